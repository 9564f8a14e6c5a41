r"""Finds where a model's text states its answer: "The answer is ...", `\boxed{...}`, "答案是 ..."

The kinds of answer (`ske_tasks.answers.choice`, `extract_free`, `extract_math`) read what follows such a
place. The last statement counts, so a changed mind is followed; hypothetical ("if the answer is A") and
questioning ("is the answer A?") sentences state nothing.

    python -c "from ske_tasks.answers.statements import statements; print(statements('So the answer is B.'))"
"""

import re
from dataclasses import dataclass

_WIDE = str.maketrans(
    "（）【】［］：，；。！？．“”‘’−–—"
    + "".join(chr(0xFF21 + i) + chr(0xFF41 + i) for i in range(26))
    + "".join(chr(0xFF10 + i) for i in range(10)),
    "()[][]:,;.!?.\"\"''---" + "".join(chr(65 + i) + chr(97 + i) for i in range(26)) + "0123456789",
)
_END_OF_TURN = re.compile(r"<\|(?:eot_id|end|im_end|endoftext|end_of_text)\|>|</s>")
# A base model that runs on after its answer writes the next question; that part is not its answer.
_NEXT_ITEM = re.compile(
    r"\n\s*(?:Question|Q|User|Human|### (?:Question|Instruction)|问题|题目)\s*\d*\s*[:：]"
)
_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)

# What may stand between the mark and the letter: quotes, a colon, "clearly", "option" ...
FILLER = (
    r"(?i:[\s:\"'*,>-]|\b(?:clearly|therefore|thus|definitely|simply|just|indeed|actually|probably|likely|most|"
    r"that|options?|choices?|letters?|answers?|number|is|are|statement|correct|right|best|one|the|first|second|"
    r"third|fourth|last)\b|选项|选|是|为)*"
)
_BE = (
    r"(?:\b(?:is|are|was|were|will\ be|would\ be|should\ be|must\ be|has\ to\ be|can\ only\ be|becomes|"
    r"remains|seems\ to\ be|appears\ to\ be|turns\ out\ to\ be)\b(?:n't)?|isn't|wasn't|cannot\ be|can't\ be|"
    r"'s\b|:|=|->|→)"
)
_MARK = re.compile(
    rf"""(?P<answer>\b(?:answers?|ans)\b
            (?:\s+(?:choice|option|letter|here|then|(?:to|for|of|in)\ (?:[^.:\n"]|"[^"\n]*"){{1,120}}?))?
            (?:,[^.,:\n]{{1,60}},)?
            \s*(?:\(s\))?\s*{_BE}
        |^[\s\#]*(?:the\ )?(?:final\ |correct\ )?answer\s*$
        |\b(?:correct|right|best|true)\ (?:option|choice|statement|one|response)s?\s*{_BE}
        |\b(?:final\ result|final\ answer|conclusion(?=:))\s*{_BE}?
        |\b(?:I|we)(?:'ll|'d|\ will|\ would|\ should|\ must|\ can|\ therefore|\ thus|\ finally
                |\ have\ to|\ now)*
            \ (?:choose|pick|select|go\ with|settle\ on|say)\b
        |答案(?:应该|应当|应|选项|选择|就|只能|便)*(?:是|为|选|:|不是)+|答案[\]]?(?=\s*[A-Z(\[$])
        |(?:正确|符合题意|错误|不正确)的?(?:答案|选项)?(?:的)?(?:应该|应)?(?:是|为|:)
        |故选:?|应选择?:?|因此选择?:?|所以选择?:?|我选择?:?|本题选择?:?)""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|whether|unless|imagine|is|was|could|can|might)\s+"
    r"(?:that\s+)?(?:the\s+|my\s+|your\s+)?(?:correct\s+|right\s+|final\s+|best\s+)*$"
    r"|(?:如果|假如|假设|若)[^,.\n]{0,6}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Statement:
    """A place where an answer is stated: `start` and `end` of the mark in the text, and the text after it."""

    start: int
    end: int
    tail: str


def unify(text: str) -> str:
    """Full-width letters, digits and punctuation, curly quotes and dashes as ASCII."""
    return text.translate(_WIDE)


def clean(text: str, keep_math: bool = False) -> str:
    """The part of a model's text in which its answer can stand, with plain brackets, quotes and emphasis.

    Dropped: reasoning in `<think>` (all of it when it never ends), everything from the end of the turn on,
        and a next question written after the answer. `keep_math` leaves LaTeX and its dollars as they are.
    """
    if "</think>" in text:
        text = text.rsplit("</think>", 1)[1]
    elif "<think>" in text:
        text = text.split("<think>", 1)[0]
    text = _END_OF_TURN.split(text, maxsplit=1)[0].translate(_WIDE)
    for place in _NEXT_ITEM.finditer(text):
        if text[: place.start()].strip():
            text = text[: place.start()]
            break
    text = _ANSWER_TAG.sub(r"\nThe answer is: \1\n", text)
    text = re.sub(r"\*\*|__|(?<![\w*])\*(?=\w)|(?<=\S)\*(?![\w*])", "", text) if not keep_math else text
    if not keep_math:
        text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|textit|mathit)\s*\{([^{}]*)\}", r"\1", text)
        text = re.sub(r"\\[()\[\]]", " ", text).replace("$", "").replace("`", "")
        text = re.sub(r"\\boxed\s*\{([^{}]*)\}", r" the answer is: \1 . ", text)
    return text.strip()


def statements(text: str) -> list[Statement]:
    """Every place that states an answer, in order. `tail` is what follows, 4,000 characters at most."""
    found = []
    for mark in _MARK.finditer(text):
        before, tail = text[max(0, mark.start() - 80) : mark.start()], text[mark.end() : mark.end() + 4000]
        asked = re.match(r"\s*(?:option\s*)?\(?[A-Z]\)?\s*\?", tail)
        if _HYPOTHETICAL.search(before) or asked:
            continue
        if mark[0].endswith(("n't", "cannot be", "can't be", "不是")):
            tail = " not " + tail
        found.append(Statement(mark.start(), mark.end(), tail))
    return found


def first_line(text: str) -> str:
    """The first line that holds something."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(text: str) -> str:
    """The last line that holds something."""
    return first_line("\n".join(reversed(text.splitlines())))


def sentences(text: str) -> list[str]:
    """Split at sentence ends (not at decimals) and line ends; empty ones are left out."""
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


def plain(text: str, keep_case: bool = False) -> str:
    """Lower case, one space, no outer punctuation: for comparing an option's text with what a model wrote."""
    text = text.translate(_WIDE)
    return re.sub(r"\s+", " ", text if keep_case else text.lower()).strip(" \t\n.,;:!?\"'`*")
