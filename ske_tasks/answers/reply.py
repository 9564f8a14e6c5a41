r"""Parses a model's reply once: the part that can hold its answer, in lines, sentences and statements.

    python -c "from ske_tasks.answers.reply import parse; print(parse('So **the answer is B**.').statements)"

The kinds of answer (`choice`, `several`, `free`, `numbers`, `math`) read the `ParsedReply` and clean nothing
themselves. Every pattern is linear in the length of the text: repetitions are bounded, white space is
normalised first, and a reply of more than `MOST` characters (`LOOP` of one that repeats itself) is read at
both of its ends.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from ske_models.ends import END_OF_TURN, NEXT_QUESTION, SUMMARY
from ske_models.reply import reply_of
from ske_tasks.answers.marks import BOXED, Statement, find_statements

MOST = 60_000  # characters of a reply that are read: the first third and the last two thirds
LOOP = 12_000  # of one that repeats itself, since it says the same everywhere
LONGEST = 2_000  # characters of one line that are compared

WIDE = str.maketrans(
    dict(zip("（）【】［］〔〕：，．“”‘’「」『』−–—", '()[][][]:,.""\'\'""""---', strict=True))
    # a Chinese sentence ends without a space
    | {"。": ". ", "！": "! ", "？": "? ", "；": "; "}
    | {chr(0xFF21 + n): chr(ord("A") + n) for n in range(26)}
    | {chr(0xFF41 + n): chr(ord("a") + n) for n in range(26)}
    | {chr(0xFF10 + n): str(n) for n in range(10)}
)
_NEXT_ITEM = re.compile(rf"\n(?:\#{{2,4}}\ ?)?{NEXT_QUESTION}\ ?\d{{0,4}}\ ?:")
_FENCE = re.compile(r"^\ ?(?:```[\w+-]{0,12}|\"\"\"|''')\ ?$", re.MULTILINE)
_TAG = re.compile(r"<answer>([^<]{0,2000})</answer>", re.IGNORECASE)
# {"answer": "B"}, {'final_answer': 24}
_JSON = re.compile(
    r"""["'](?:final|correct|the)?[_\ ]?(?:answer|choice|option)["']\ ?:\ ?
        (?:"([^"\n]{1,500})"|([^\s",}\]]{1,60}))""",
    re.IGNORECASE | re.VERBOSE,
)
# "The answer is A because" is complete up to "A", "The answer is A" at a cut is not
_COMPLETE = re.compile(
    r"""[.!?)\]}$"'](?=\s|$)(?!\s(?:or|and|&|/|或|和|与))    # "(B) or" goes on
      | \n | (?=,?\s(?:because|since|due|which)\b) | (?=,?因为)""",
    re.VERBOSE,
)
_JOINED = re.compile(r"[\s$\\()]{0,6}(?:or|and|,|、|或|和)[\s$\\()]{0,6}")
_LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit|mathit|mbox)\ ?\{([^{}]{0,500})\}")


@dataclass(frozen=True)
class ParsedReply:
    """What of a model's text can hold its answer, taken apart once.

    text: cleaned. truncated: the text was cut at its token limit, so that only what is said in full counts
    and nothing is concluded from how it ends; what is not complete is not in `text`.
    """

    text: str
    truncated: bool = False

    @cached_property
    def lines(self) -> list[str]:
        """The lines that hold something, without outer spaces."""
        return [line.strip()[:LONGEST] for line in self.text.split("\n") if line.strip()]

    @cached_property
    def sentences(self) -> list[str]:
        """Split at sentence ends (not at decimals) and line ends; empty ones are left out."""
        parts = re.split(r"(?<=[.!?])\s+|\n+", self.text)
        return [part.strip()[-LONGEST:] for part in parts if part.strip(" .")]

    @cached_property
    def statements(self) -> list[Statement]:
        """Every place that states an answer, in order."""
        return find_statements(self.text)

    @cached_property
    def items(self) -> list[ParsedReply]:
        """The reply cut before each "Question:" (the first 20) and before a summary of several answers."""
        cuts = sorted(
            mark.start() for pattern in (_NEXT_ITEM, SUMMARY) for mark in pattern.finditer(self.text)
        )
        edges = [0, *[cut for cut in cuts[:20] if self.text[:cut].strip()], len(self.text)]
        parts = [self.text[start:end].strip() for start, end in pairwise(edges)]
        return [
            ParsedReply(part, self.truncated and n == len(parts)) for n, part in enumerate(parts, 1) if part
        ]

    @property
    def first_line(self) -> str:
        """The first line that holds something, or ""."""
        return self.lines[0] if self.lines else ""

    @property
    def last_line(self) -> str:
        """The last line that holds something, or ""."""
        return self.lines[-1] if self.lines else ""

    @property
    def last_sentence(self) -> str:
        """The last sentence, or ""."""
        return self.sentences[-1] if self.sentences else ""


def parse(
    text: str, truncated: bool = False, keep: Literal["words", "brackets", "latex"] = "words"
) -> ParsedReply:
    """Take a reply apart.

    Dropped: thoughts, everything from the end of the turn on, fences, emphasis, and of a truncated text what
    follows its last complete sentence, bracket or line.

    Args:
        text: what the model wrote.
        truncated: it ran into its token limit.
        keep: "latex" leaves LaTeX and its dollars, "brackets" every bracket; "words" takes LaTeX away.
    """
    text = END_OF_TURN.split(reply_of(text), maxsplit=1)[0]
    text = _both_ends(_spaced(text)).translate(WIDE)
    text = re.sub(r"<eo[ea]>", "\n", text)  # GAOKAO-Bench: end of explanation, end of answer
    text = _JSON.sub(
        lambda m: f"\nThe answer is: {m[1] or m[2]} .\n", _TAG.sub(r"\nThe answer is: \1\n", text)
    )
    text = _FENCE.sub("", text).replace("{,}", ",")
    text = {"words": _words, "brackets": _brackets, "latex": _latex}[keep](text)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if truncated:
        ends = [end.end() for end in _COMPLETE.finditer(text)]
        text = text[: ends[-1]].strip() if ends else ""
    return ParsedReply(text, truncated)


def clean(text: str) -> str:
    """An option's text as it would be in a parsed reply."""
    return _words(_spaced(text).translate(WIDE)).strip()


def unify(text: str) -> str:
    """Full-width letters, digits and punctuation, curly quotes and dashes as ASCII."""
    return text.translate(WIDE)


def plain(text: str, keep_case: bool = False) -> str:
    """Lower case, one space, no outer punctuation: for comparing an option's text with what a model wrote."""
    text = text.translate(WIDE)
    return re.sub(r"\s+", " ", text if keep_case else text.lower()).strip(" \t\n.,;:!?\"'`*")


def boxes(text: str) -> list[tuple[int, int, str]]:
    r"""(start, end, content) of every closed `\boxed{...}` and `\fbox{...}`, the outer one of nested ones."""
    opened: list[tuple[int, bool]] = []  # where each open brace is, and whether a box begins there
    found: list[tuple[int, int, str]] = []
    for token in re.finditer(r"\\(?:boxed|fbox)\s?\{|\\.|[{}]", text):
        if token[0][-1] == "{" and token[0] != "\\{":
            opened.append((token.start(), len(token[0]) > 1))
        elif token[0] == "}" and opened:
            start, is_box = opened.pop()
            if is_box:
                inner = text.index("{", start) + 1
                while found and found[-1][0] > start:
                    found.pop()
                found.append((start, token.end(), text[inner : token.start()]))
    return found


def _spaced(text: str) -> str:
    """One kind of space, single; at most one empty line; no run of one character longer than 60."""
    text = re.sub(r"[^\S\n]+", " ", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"(?:\ ?\n\ ?)+", lambda m: "\n\n" if m[0].count("\n") > 1 else "\n", text)
    return re.sub(r"(\S)\1{60,}", lambda m: m[1] * 60, text)


def _both_ends(text: str) -> str:
    most = MOST
    if len(text) > LOOP and len(zlib.compress(data := text.encode("utf-8", "replace"), 1)) < len(data) / 12:
        most = LOOP
    return text if len(text) <= most else f"{text[: most // 3]}\n\n{text[-2 * most // 3 :]}"


def _latex(text: str) -> str:
    """Without emphasis and escaped dollars."""
    return text.replace("\\$", "").replace("**", "")


def _brackets(text: str) -> str:
    """Without emphasis, backslashes and dollars; what is in a box that ends a line or sentence is stated."""
    text = re.sub(r"\\boxed ?\{([^\n]{0,300}?)\}(?=\s?\$?\s?(?:\.|\n|$))", rf" {BOXED} \1 ", text)
    text = re.sub(r"\\text\{([^\n]{0,300}?)\}", r"\1", text)
    return text.replace("**", " ").replace("\\", "").replace("$", " ").replace("`", " ")


def _words(text: str) -> str:
    """Without emphasis, LaTeX's text commands and dollars; a box becomes the mark of a statement."""
    text = re.sub(r"\*\*|__|(?<![\w*])\*(?=\w)|(?<=\S)\*(?![\w*])", "", text)
    text = _LATEX_TEXT.sub(r"\1", text)
    pieces: list[str] = []
    after = 0
    for start, end, content in boxes(text):
        between = text[after:start]
        if after and _JOINED.fullmatch(between):  # \boxed{A} and \boxed{C} are one statement
            pieces[-1] = f"{pieces[-1].removesuffix(' . ')} {between} {content} . "
        else:
            pieces += [between, f" {BOXED} {content} . "]
        after = end
    text = "".join([*pieces, text[after:]])
    return re.sub(r"\ {2,}", " ", re.sub(r"\\[()\[\]]", " ", text).replace("$", "").replace("`", ""))
