"""What of an answer OpenCompass' rules are shown: its last statement, without thoughts and reasoning.

    pred_postprocessor = dict(type="ske_models.opencompass.conclusion")     # of a model entry in a config

OpenCompass 0.5.4 reads the first line (NQ) or the first letter that one of its patterns finds ("Answer: (B)"
is an A to them), so what precedes the statement must go. Our lm-eval tasks have rules of their own
(ske_tasks/answers); where an answer starts and ends is the same in both.
"""

from __future__ import annotations

import re

from ske_models.ends import END_OF_TURN, HYPOTHETICAL, NEXT_QUESTION, SUMMARY
from ske_models.records import Answer
from ske_models.reply import marks_of, reply_of

_STATED = re.compile(
    r"""
    \b answers? (?: \s+ (?:is|are)\b \s* :? | \s* : )     # The answer is: B; **Answer:** B
    | (?= 答案 )                                            # 答案是(B)
    """,
    re.VERBOSE | re.IGNORECASE,
)
# In a text as it was written: "\n\n**Question 2:** ...", "\n问题: ..."
_NEXT_QUESTION = re.compile(rf"\n[\s\#*]{{0,8}}{NEXT_QUESTION}\s?[0-9]{{0,4}}\s?[:\uff1a]")
_CLOSED = re.compile(r"[.!?。！？)\]}$\"'](?=\s|\Z|\*)|\n")  # a statement is complete there


def conclusion(text: str, think: str | bool | None = "default") -> str:
    """The last statement of the answer, as "The answer is ..."; a text without one stays as it is.

    A model's `pred_postprocessor`, for methods that reason first. Thoughts are left out (think: their marks,
    as in `SKEExplicit`), and so is what follows another question, or a summary of several answers, if the
    first is answered. Of a text that reached its token limit (known where ske_models/opencompass/tasks.py
    evaluates) only a complete statement counts; without one it is empty, so that nothing is concluded from
    where it was cut.
    """
    reply = END_OF_TURN.split(reply_of(text, marks_of(think)), maxsplit=1)[0]
    truncated = isinstance(text, Answer) and text.trace.get("truncated", {}).get("answer") is True
    ends = sorted(mark.start() for pattern in (_NEXT_QUESTION, SUMMARY) for mark in pattern.finditer(reply))
    for end in [*ends[:20], None]:
        if stated := _last(reply[:end], truncated and end is None):
            return stated
    return "" if truncated else reply


def reply_only(text: str, think: str | bool | None = "default") -> str:
    """The text without thoughts; the `pred_postprocessor` of `direct`."""
    return reply_of(text, marks_of(think))


def _last(text: str, complete: bool) -> str | None:
    """The last statement of a text; complete: one that the end of the text has not cut off."""
    for mark in reversed(list(_STATED.finditer(text))):
        if HYPOTHETICAL.search(text, max(0, mark.start() - 40), mark.start()):
            continue
        rest = text[mark.end() :].lstrip(" *\n")
        if not rest or (complete and not _CLOSED.search(rest)):
            continue
        if rest.startswith("答案"):
            return re.sub(r"\A答案[】\]]\s*[:：]?\s*", "答案是", rest)  # 【答案】: B
        return f"The answer is {rest}"
    return None
