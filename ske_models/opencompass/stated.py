"""What of an answer OpenCompass' rules are shown: its last statement, without thoughts and reasoning.

    pred_postprocessor = dict(type="ske_models.opencompass.conclusion")     # of a model entry in a config

OpenCompass 0.5.4 reads the first line (NQ) or the first letter that one of its patterns finds ("Answer: (B)"
is an A to them), so what precedes the statement must go. Our lm-eval tasks have rules of their own
(ske_tasks/answers); where an answer starts and ends is the same in both.
"""

from __future__ import annotations

import re
from itertools import islice

from ske_models.records import Answer
from ske_models.reply import marks_of, reply_of

_STATED = re.compile(
    r"""
    \b answers? (?: \s+ (?:is|are)\b \s* :? | \s* : )     # The answer is: B; **Answer:** B
    | (?= 答案 )                                            # 答案是(B)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:if|whether|suppose|assume|is|was)\s+(?:the|my|your)\s+(?:\w+\s+)?\Z", re.IGNORECASE
)
_END_OF_TURN = re.compile(
    r"""
    <\| (?: eot_id | end | im_end | endoftext | end_of_text | return | im_start ) \|>     # Llama 3, Qwen, Phi
    | </s> | \[/?INST\]                                                                  # Llama 2, Mistral
    | < (?: end_of_turn | start_of_turn | eos ) >                                        # Gemma
    | [<‹]｜ (?: end▁of▁sentence | User ) ｜[>›]                                           # DeepSeek
    """,
    re.VERBOSE,
)
# A model that runs on writes the next question: "\nQuestion: ...", "\nQ2: ...", "\n问题: ..."
_NEXT_QUESTION = re.compile(
    r"""
    \n [\s\#*]{0,8}
    (?: Question | Q | User | Human | Problem | Exercise | Instruction | 问题 | 题目 )
    \s? [0-9]{0,4} \s? [:\uff1a]
    """,
    re.VERBOSE,
)
_CLOSED = re.compile(r"[.!?。！？)\]}$\"'](?=\s|\Z|\*)|\n")  # a statement is complete there


def conclusion(text: str, think: str | bool | None = "default") -> str:
    """The last statement of the answer, as "The answer is ..."; a text without one stays as it is.

    A model's `pred_postprocessor`, for methods that reason first. Thoughts are left out (think: their marks,
    as in `SKEExplicit`), and so is what follows another question, if the first is answered. Of a text that
    reached its token limit (known where ske_models/opencompass/tasks.py evaluates) only a complete statement
    counts; without one it is empty, so that nothing is concluded from where it was cut.
    """
    reply = _END_OF_TURN.split(reply_of(text, marks_of(think)), maxsplit=1)[0]
    truncated = isinstance(text, Answer) and text.trace.get("truncated", {}).get("answer") is True
    for following in [*islice(_NEXT_QUESTION.finditer(reply), 20), None]:
        part = reply[: following.start()] if following else reply
        if stated := _last(part, truncated and following is None):
            return stated
    return "" if truncated else reply


def reply_only(text: str, think: str | bool | None = "default") -> str:
    """The text without thoughts; the `pred_postprocessor` of `direct`."""
    return reply_of(text, marks_of(think))


def _last(text: str, complete: bool) -> str | None:
    """The last statement of a text; complete: one that the end of the text has not cut off."""
    for mark in reversed(list(_STATED.finditer(text))):
        if _HYPOTHETICAL.search(text, max(0, mark.start() - 40), mark.start()):
            continue
        rest = text[mark.end() :].lstrip(" *\n")
        if not rest or (complete and not _CLOSED.search(rest)):
            continue
        if rest.startswith("答案"):
            return re.sub(r"\A答案[】\]]\s*[:：]?\s*", "答案是", rest)  # 【答案】: B
        return f"The answer is {rest}"
    return None
