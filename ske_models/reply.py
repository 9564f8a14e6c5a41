"""What of a text is the reply, for models that think first. The store keeps whole texts; uses take the reply.

    from ske_models.reply import reply_of, split_thought
    reply_of("<think>Paris? Yes.</think>\n\nThe answer is Paris.")     # "The answer is Paris."

Step 2, log-likelihood contexts, judges, training examples, answer extraction and OpenCompass' `conclusion`
all come here. The marks are those of the models' own chat templates and model cards (November 2026): Qwen,
DeepSeek, GLM `<think>`; `<thinking>`, `<thought>`, `<reason>`, `<reasoning>` of fine-tunes; Magistral
`[THINK]`; Kimi `◁think▷`; OpenThinker `<|begin_of_thought|>`; Seed-OSS `<seed:think>`; gpt-oss' channels
(https://github.com/openai/harmony); Command A `<|START_THINKING|>`; Gemma 4 `<|channel>thought`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from ske_models.errors import UserError


class Split(NamedTuple):
    """A text taken apart. finished: its last thought has ended; if it has not, the reply is empty."""

    thought: str
    reply: str
    finished: bool


@dataclass(frozen=True)
class Marks:
    """What a thought is told by.

    pairs: finds a mark; the group `open` or `close` is the name that the two have in common. None: no marks.
    channels: gpt-oss' channels, too.
    """

    pairs: re.Pattern[str] | None
    channels: bool = False


_TAG = r"(?:seed:)? (?:think(?:ing)? | thoughts? | reason(?:ing)?)"
_PAIRS = re.compile(
    rf"""
      < (?P<open1>{_TAG}) >  |  </ (?P<close1>{_TAG}) >               # <think> ... </think>, <seed:think>
    | \[ (?P<open2>(?-i:THINK)) \]  |  \[/ (?P<close2>(?-i:THINK)) \]  # [THINK] ... [/THINK]
    | ◁ (?P<open3>think) ▷  |  ◁/ (?P<close3>think) ▷                 # ◁think▷ ... ◁/think▷
    | <\|begin_of_(?P<open4>thought)\|>  |  <\|end_of_(?P<close4>thought)\|>   # <|begin_of_thought|> ...
    | <\|START_(?P<open5>THINKING)\|>  |  <\|END_(?P<close5>THINKING)\|>       # <|START_THINKING|> ...
    | <\|(?P<open6>channel)>thought  |  <(?P<close6>channel)\|>        # <|channel>thought ... <channel|>
    """,
    re.VERBOSE | re.IGNORECASE,
)
DEFAULT = Marks(_PAIRS, channels=True)
NO_MARKS = Marks(None)

# <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
_CHANNEL = re.compile(
    r"<\|channel\|>\s{0,9}(?P<name>\w{1,40})(?:[^<]{0,200}(?:<\|constrain\|>[^<]{0,80})?<\|message\|>)?"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
# the same, decoded without its special tokens: "analysisWe need ...assistantfinalYes."
_BARE_CHANNEL = re.compile(r"\s{0,9}analysis(?=\S)")
_BARE_FINAL = "assistantfinal"
_BARE_UNFINISHED = re.compile(r"\s{0,9}analysis(?=[A-Z\"'(])")
# OpenThinker and Command A mark the reply, too
_REPLY_MARKS = re.compile(
    r"<\|begin_of_solution\|>|<\|end_of_solution\|>|<\|START_(?:RESPONSE|TEXT)\|>|<\|END_(?:RESPONSE|TEXT)\|>"
)
_QUOTES = "`\"'"
# what a line may have before a thought that begins it: "<|im_start|>assistant <think>"
_LINE_START = re.compile(r"\s*(?:<\|[^|<>]{1,40}\|>\w{0,20}\s*)*")


def reply_of(text: str, marks: Marks = DEFAULT) -> str:
    """The text without its thoughts; empty if the last of them has not ended."""
    return split_thought(text, marks).reply


def split_thought(text: str, marks: Marks = DEFAULT) -> Split:
    """(thought, reply, finished). A text without marks is its own reply. Linear in the length.

    What precedes a closing mark without an opening one is thought: the opening one was in the prompt. A mark
    within quotes or backticks is spoken of, not used, and so is one in mid-line that nothing closes.
    """
    if marks.channels and "<|channel|>" in text:
        return _by_channels(text)
    if marks.channels and (start := _BARE_CHANNEL.match(text)):
        thought, final, reply = text[start.end() :].partition(_BARE_FINAL)
        if final:
            return Split(thought.strip(), reply.lstrip(), True)
        if _BARE_UNFINISHED.match(text):
            return Split(thought.strip(), "", False)
    return _by_pairs(text, marks.pairs) if marks.pairs else Split("", text, True)


def _by_pairs(text: str, pairs: re.Pattern[str]) -> Split:
    """As `split_thought`, by the marks of `pairs` alone."""
    thoughts: list[str] = []
    replies: list[str] = []
    begun: str | None = None  # the name of the thought that we are in
    opened = 0  # where it begins
    inner: set[str] = set()  # names of marks that were opened within it
    after = 0  # the end of the last mark that counted
    for mark in pairs.finditer(text):
        if _is_quoted(text, mark):
            continue
        name = mark[mark.lastgroup or 0].lower()
        opens = (mark.lastgroup or "").startswith("open")
        if begun is not None and (opens or (name != begun and name in inner)):
            (inner.add if opens and name != begun else inner.discard)(name)
            continue
        piece = text[after : mark.start()]
        if opens:
            replies.append(piece)
            begun, inner, opened = name, set(), mark.start()
            begins_line = after == opened  # another thought was before it
        else:
            thoughts += [piece] if begun is not None else [*replies, piece]
            replies = replies if begun is not None else []
            begun = None
        after = mark.end()
    if begun is not None:
        line = text[text.rfind("\n", 0, opened) + 1 : opened]
        if begins_line or _LINE_START.fullmatch(line):
            return Split("".join([*thoughts, text[after:]]).strip(), "", False)
        after = opened
    if not thoughts:
        return Split("", text, True)
    reply = _REPLY_MARKS.sub("", "".join([*replies, text[after:]]))
    return Split("".join(thoughts).strip(), reply.lstrip(), True)


def _by_channels(text: str) -> Split:
    """The channel `final` is the reply; every other one, and what comes before the first, is thought."""
    thoughts: list[str] = []
    replies: list[str] = []
    began, name = 0, ""  # of the channel that we are in; the prompt may have begun the first
    for mark in [*_CHANNEL.finditer(text), None]:
        body = text[began : mark.start() if mark else len(text)]
        ended = _CHANNEL_END.search(body)
        (replies if name == "final" else thoughts).append(body[: ended.start()] if ended else body)
        if mark:
            began, name = mark.end(), mark["name"]
    return Split("".join(thoughts).strip(), "".join(replies).lstrip(), bool(replies))


def _is_quoted(text: str, mark: re.Match[str]) -> bool:
    before = text[max(mark.start() - 1, 0) : mark.start()]
    return before != "" and before in _QUOTES and text.startswith(before, mark.end())


def with_end(marks: Marks, end: str | None) -> Marks:
    """The marks, with another text that ends a thought (lm-eval's `think_end_token`)."""
    if end is None or (marks.pairs is not None and marks.pairs.fullmatch(end)):
        return marks
    other = rf"(?P<close_end>{re.escape(end)})"
    if marks.pairs is None:
        return Marks(re.compile(other))
    return Marks(re.compile(f"{marks.pairs.pattern}|{other}", marks.pairs.flags), marks.channels)


def marks_of(setting: str | bool | None) -> Marks:
    """The marks that a setting names.

    "default"; "off", False or None (which lm-eval makes of "none"): every text is a reply as it is;
    "OPEN...CLOSE", as in "<plan>...</plan>": this pair and no other. Raises UserError for anything else.
    """
    if setting in ("default", True):
        return DEFAULT
    if setting is None or setting is False or str(setting).lower() in ("off", "none"):
        return NO_MARKS
    opening, dots, closing = str(setting).partition("...")
    if not (opening.strip() and dots and closing.strip()):
        raise UserError(f"think={setting}: unknown; default, off, or the two marks as in <plan>...</plan>")
    pair = f"(?P<open>{re.escape(opening.strip())})|(?P<close>{re.escape(closing.strip())})"
    return Marks(re.compile(pair))
