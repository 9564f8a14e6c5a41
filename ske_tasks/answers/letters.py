"""The letters of a question's options in a text: what is one, what only looks like one, which are offered.

    python -c "from ske_tasks.answers.letters import Letters; print(Letters.of({'B': ''}).head(' (B), as'))"

"A" and "I" before a lower-case word are the article and the pronoun, unless it is a connective ("A because").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ske_tasks.answers.marks import FILLER
from ske_tasks.answers.option_text import compared
from ske_tasks.answers.reply import plain

_CONNECTIVE = r"""(?:because|since|as|for|due|which|that|is|and|or|but|not|with|in|given|so|based|by|rather
    |instead|if|when|while|according|however|after|though|although|only|here|from|would|too)\b"""
# "and (B)", "or B", "/ B": a second offer; "and (B) is wrong" is none
_JOIN = (
    r"\s?(?:,?\s?(?i:\b(?:or|and|as\ well\ as)\b)|/|&|和|或|与|及|、"
    r"|,(?=\s?(?:[(\[]|\w\s?(?:[.,;]|$|and\b|or\b))))\s?"
)
_NO_VERB = (
    r"(?!\s?(?:项)?\s?(?i:is|are|was|were|can|cannot|can't|does|do|has|have|would|will|being|because)\b)"
)
# "B is correct", "A、C都是正确的"
CALLED_RIGHT = r"""\s?(?:选项|项)?(?:
    \s(?i:is|are|must\ be|should\ be|would\ be|has\ to\ be|being)
      (?:\s(?i:also|clearly|therefore|thus|the|most|indeed|probably|definitely|then|actually|my|only|one|that
        |is|both|all)){0,4}
      \s(?P<how>(?i:(?:correct|right|best|true|final)(?:\s(?:answer|choice|option|one|statement)s?)?
        |answers?|choice))\b
    |(?:都|均|皆|才|说法|也|最){0,3}(?:是)?(?:唯一|最){0,2}(?P<zh>
        (?:正确|最终|最佳|最好|最合适|最恰当)的?(?:答案|选项|选择)
        |答案(?!是|为)|正确的?|对的|符合题意))"""

# "so B", "which leaves (D)", "因此选B"
CONCLUDE = r"""(?i:\b(?:so|thus|therefore|hence|consequently|leaves|leaving|leave|must\ be|should\ be
    |has\ to\ be|it's|it\ is|that's|that\ is|choose|pick|select|go\ with|going\ with|conclude)\b|=>|→|∴
    |选择?|所以|因此|故|应为|应是)
    (?i:[\s:,\"']|\b(?:that|only|us|with|me|it|it's|is|we|I|are|left|must|should|has\ to|be|the|my
    |final|answer|correct|right|best|true|option|choice|going|go|pick|choose|select)\b|是|选项|选|为|答案){0,16}"""
END = r"""(?=\s?(?:$|[.,;!\n)]|(?i:because|since|as|due|given|which)\b
    |(?i:is\ (?:the\ )?(?:correct|right|best|answer|true))))"""

_BESIDE = re.compile(r"\W{0,4}?(?=[(\[])")


@dataclass(frozen=True)
class Letters:
    """A question's options, and the compiled patterns for their letters, which are kept between questions."""

    options: Mapping[str, str]
    alternatives: str
    run_pattern: str
    token: re.Pattern[str]
    start: re.Pattern[str]
    second: re.Pattern[str]
    called_right: re.Pattern[str]
    concluded: re.Pattern[str]
    made_right: re.Pattern[str]
    foreign: re.Pattern[str]
    in_run: re.Pattern[str]
    runs: re.Pattern[str]
    named: re.Pattern[str]
    labelled: re.Pattern[str]

    @staticmethod
    def of(options: Mapping[str, str]) -> Letters:
        """The patterns for these options."""
        single = tuple(text for text in options.values() if re.fullmatch("[A-Z]", text))
        return Letters(options, **_patterns(tuple(options), single))

    def letter(self, found: re.Match[str]) -> str:
        """The option's letter of a match with the groups `b` and `x`."""
        written = found["b"] or found["x"]
        return written if written in self.options else written.upper()

    def is_article(self, found: re.Match[str]) -> bool:
        """Whether the match is the article "A" or the pronoun "I"."""
        rest = found.string[found.end() : found.end() + 40]
        return found["x"] in ("A", "I") and bool(re.match(rf"\s(?!{_CONNECTIVE})[a-z]", rest, re.VERBOSE))

    def head(self, line: str) -> str | None:
        """The letter at the head of `line`; "" where it offers two or no option's; None where it has none."""
        found = self.start.match(line)
        if not found or self.is_article(found):
            return "" if self.foreign.match(line) else None
        letter = self.letter(found)
        rest = line[found.end() :]
        if found["x"] and self._begins_a_text(line[found.start("x") :], letter):
            return None
        if found["both"]:
            return ""
        return "" if self._second(rest, letter, found) else letter

    def _begins_a_text(self, written: str, letter: str) -> bool:
        """Whether the letter is the first word of an option's text, as in "B cells"."""
        written = plain(written)
        begun = [
            key
            for key, text in self.options.items()
            if re.match(r"\w+\W+\w", own := compared(text)) and written.startswith(own)
        ]
        return bool(begun) and letter not in begun

    def _second(self, rest: str, letter: str, found: re.Match[str]) -> bool:
        """Whether another letter is offered: "B and D", "B. this and D. that", "(A) this, (B) that"."""
        own = compared(self.options[letter])
        if own and plain(rest.lstrip(" .):]-")) == own:
            return False  # "D. A and C", where that is D's text
        place = 0
        while other := self.second.match(rest, place):
            if self.letter(other) != letter and not self.is_article(other):
                return True
            place = other.end()
        text = self.options[letter]
        if text and rest.lstrip().startswith(text):
            beside = _BESIDE.match(rest, rest.index(text) + len(text))
            other = self.token.match(rest, beside.end()) if beside else None
            if other and other["b"] and self.letter(other) != letter:
                return True
        labelled = found["b"] or re.match(r"[.):]", rest)
        if not labelled:
            return False
        sentence = re.split(r"(?<=[.;!?])\s", rest[2:600], maxsplit=1)[0] if found["b"] else rest[:600]
        return any(
            self.letter(other) != letter
            for other in self.second.finditer(sentence)
            if other["b"] or re.match(r"[.):]\s?\w", sentence[other.end() :])
        )

    def in_text(self, text: str) -> list[str]:
        """Every letter that is alone in a short text, or in a run ("ABD"), each once, in order."""
        runs = re.findall(rf"(?<![A-Za-z])(?:{self.alternatives})+(?![A-Za-z])", text)
        return list(dict.fromkeys(letter for run in runs for letter in re.findall(self.alternatives, run)))

    def bracketed(self, sentence: str) -> list[str]:
        """The letters that a sentence names as options, "(B)", "option B", "B选项", each once, in order."""
        found = [m["b"] or m["o"] or m["z"] for m in self.named.finditer(sentence)]
        return list(dict.fromkeys(letter for letter in found if letter in self.options))

    def is_list(self, lines: list[str]) -> bool:
        """Whether the lines are the question's options again: "A. it / B. that", "A. it B. that C. all"."""
        order = list(self.options)
        label = rf"[(\[]?({self.alternatives})(?:[)\]]|[.:]\s?)\s?(?=\w|[^\s\w.,;)、])"
        heads = [m[1] for line in lines[:3] if (m := re.match(rf"\W{{0,6}}{label}", line))]
        if len(heads) > 1 and heads == order[: len(heads)]:
            return True
        inline = list(dict.fromkeys(re.findall(rf"(?<!\w){label}", lines[0]))) if lines else []
        begins = bool(lines) and bool(re.match(rf"\W{{0,6}}{label}", lines[0]))
        return begins and len(inline) > 2 and inline == order[: len(inline)]

    def is_item(self, sentence: str, parts: list[str]) -> bool:
        """Whether a sentence is one of a list of options: it begins with a letter, and so does another."""
        label = re.compile(
            rf"\W{{0,6}}(?i:option\s?|choice\s?|选项)?[(\[]?({self.alternatives})(?:[).:\]]|选?项)"
        )
        begun = label.match(sentence)
        return bool(begun) and any((m := label.match(part)) and begun and m[1] != begun[1] for part in parts)

    def label_and_text(self, line: str) -> str | None:
        """The letter of "D. A and C" where that is D's whole text."""
        found = re.match(rf"\W{{0,6}}({self.alternatives})\s?[).:\]]{{1,2}}\s?", line)
        own = compared(self.options[found[1]]) if found else ""
        return found[1] if found and own and plain(line[found.end() :]) == own else None

    def with_own_text(self, line: str) -> str | None:
        """The letter of a line that ends with "is B. iron", where B's text is "iron"."""
        found = list(self.labelled.finditer(line))
        if found and (own := compared(self.options[found[-1][1]])) and plain(line[found[-1].end() :]) == own:
            return found[-1][1]
        return None

    def ends_with_own_text(self, sentence: str) -> bool:
        """Whether it ends with a letter and that option's whole text: "(D) 4 minutes"."""
        found = [m for m in self.named.finditer(sentence) if m["b"]]
        return bool(found) and plain(sentence[found[-1].end() :]) == compared(self.options[found[-1]["b"]])

    def run(self, tail: str) -> str | None:
        """ "A, B and D", "(A)(B)", "ABD" at the head of `tail` as "ABD"; None when there is none."""
        found = self.in_run.match(tail)
        letters = set(re.findall("|".join(map(re.escape, self.options)), found["run"])) if found else set()
        return "".join(sorted(letters)) or None


def _token(one: str) -> str:
    """A letter that is alone: in brackets or quotes (any case) or bare; groups `b` and `x`."""
    bare = rf"(?<![A-Za-z0-9'\\_-])(?P<x>{one}|(?i:{one})(?=\s?(?:[.,;!]?\s?$|\n)))"
    bare += r"(?![A-Za-z0-9_']|-\w|\s?[=+^*]|\.\d)"
    bracket = rf"[(\[{{<\"']\s?(?P<b>(?i:{one}))\s?[)\]}}>\"']"
    return rf"(?:{bracket}|{bare})"


@lru_cache(maxsize=512)
def _patterns(letters: tuple[str, ...], single: tuple[str, ...]) -> dict[str, Any]:
    """The patterns of `Letters` for these letters; single: options whose whole text is a letter."""
    one = "|".join(map(re.escape, letters))
    token = _token(one)
    run = rf"(?:[(\[]?(?:{one})[)\]]?(?:\s?(?:[,、&]|\band\b|和|与|及)\s?(?:选项)?|\s?)){{1,12}}"
    capital = all(re.fullmatch("[A-Z]", letter) for letter in letters)
    known = "|".join([one, *single])
    foreign = rf"{FILLER}(?:[(\[](?!{known})[A-Z][)\]]"
    foreign += rf"|(?<![\w'])(?!{known})[A-Z](?=\s?(?:[.,;]\s|[.,;]?$)))"
    function = r"(?<![A-Za-z0-9_\\^}])"  # P(A), f(B)
    word = r"(?i:\b(?:options?|choices?|answers?)|选项)"

    def compiled(pattern: str) -> re.Pattern[str]:
        return re.compile(pattern, re.VERBOSE)

    return {
        "alternatives": one,
        "run_pattern": run,
        "token": compiled(token),
        "start": compiled(rf"{FILLER}(?P<both>(?i:either|both|between|neither)\s(?:option\s)?)?{token}"),
        "second": compiled(rf"{_JOIN}(?i:option\s?|choice\s?|选项)?{token}{_NO_VERB}"),
        "called_right": compiled(
            # not from the middle of a run, which would make long runs slow
            r"(?<![A-Za-z0-9_(\\^])(?<![A-J1-5][\s,、&])(?<![A-J1-5][,)\]]\s)"
            rf"(?P<run>{run})(?:选项|项)?{CALLED_RIGHT}"
        ),
        "concluded": compiled(rf"{CONCLUDE}{token}{END}"),
        "made_right": compiled(
            rf"\b(?i:mak(?:es?|ing)|leav(?:es?|ing)|so)\s(?i:only\s)?(?i:option|choice|answer|statement)?\s?{token}"
            r"\s(?i:(?:as\s)?(?:the\s)?(?:only\s|most\s|\w{1,12}\s)?(?:correct|right|best|true|answer|valid))"
        ),
        "foreign": compiled(foreign if capital else r"(?!)"),
        "in_run": compiled(
            rf"{FILLER}(?P<run>(?:[\s()\[\],;/&、\"']|(?i:\band\b|\boptions?\b)|和|与|及|以及"
            rf"|(?:{one})(?![a-z]|\s(?!{_CONNECTIVE})[a-z])){{1,60}})"
        ),
        "runs": compiled(rf"(?<![A-Za-z0-9_]){run}"),
        "labelled": compiled(rf"(?:\b(?:is|are|be|option)|:)\s(?:option\s)?({one})[.:)]\s?"),
        "named": compiled(
            rf"{function}[(\[]\s?(?P<b>{one})\s?[)\]]|{word}\s?[(\"']?(?P<o>{one})(?![A-Za-z0-9_'])"
            rf"|(?<![A-Za-z0-9_])(?P<z>{one})(?=选?项)"
        ),
    }
