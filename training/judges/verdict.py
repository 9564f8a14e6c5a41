"""Reading a judge's text: the score that it closes with, or none. Never a guess.

    from training.judges.verdict import read_score
    read_score("The facts are right, one is missing.\\nScore: 7")    # 7

A score counts where the judge states it: in the last line, as a line or a sentence of its own ("Score: 8",
"**Final score:** 8/10", "The score is [[8]]."). What a judge mentions, quotes or hedges does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ske_models.ends import END_OF_TURN
from ske_models.reply import DEFAULT, Marks, reply_of

AGAIN = 0.7  # the temperature (at least) of a second attempt; greedily a model would say the same

# Markup around a score. Quotation marks and ">" stay: what stands behind them is somebody else's score.
# Between two letters markup stays, too: "S*core" is no word of a judge.
_MARKUP = re.compile(
    r"\\boxed(?=\{)|(?<![A-Za-z*_`#$\[\]{}])[*_`#$\[\]{}]+|[*_`#$\[\]{}]+(?![A-Za-z*_`#$\[\]{}])"
)
_STATEMENT = re.compile(
    r"""
    (?: ^ [\s•-]* | (?<=[.!?]) ["')\u201d]? \s+ )       # opens its line, or follows a sentence
    (?P<own> (?: (?: the | my | final | overall | total ) \s+ ){0,3} score )
    (?: \s* \(? (?: 1 \s* (?: - | – | to ) \s* 10 | out \s of \s 10 ) \)? )?
    \s* (?: [:=：] | \b is \b \s* :? ) \s*
    \(? (?P<score> 10 | [1-9] ) \)?
    (?: \s* \(? \s* (?: / | out \s of ) \s* 10 \s* \)? )?
    \s* (?: $ | [.!] (?= \s | $ ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one text.

    score: 1 to 10, or None (unscored). text: the judge's own without its thoughts, "" where none came.
    attempts: how often it was prompted. why: None, or why it is unscored: "unreadable", "truncated",
    "filtered: ..." (by the endpoint) or "failed: ...".
    """

    score: int | None
    text: str
    attempts: int = 1
    why: str | None = None


def read_verdict(text: str, truncated: bool, attempts: int = 1, marks: Marks = DEFAULT) -> Verdict:
    """A judge's text as a verdict. What it thought first is no part of it: models learn from the text.

    marks: what a thought is told by. A text that reached its token limit has no score: "Score: 1" may be half
    of "Score: 10".
    """
    reply = _own_text(text, marks)
    if truncated:
        return Verdict(None, reply, attempts, "truncated")
    score = _score(reply)
    return Verdict(score, reply, attempts, "unreadable" if score is None else None)


def read_score(text: str) -> int | None:
    """The score, 1 to 10, that a judge's text closes with; None if it is missing or not clear.

    Not clear: no integer from 1 to 10, two different scores stated, anything after the score.
    """
    return _score(_own_text(text, DEFAULT))


def _own_text(text: str, marks: Marks) -> str:
    """What a judge says: neither its thoughts nor what follows the end of its turn."""
    return END_OF_TURN.split(reply_of(text, marks), maxsplit=1)[0]


def _score(reply: str) -> int | None:
    lines = [_MARKUP.sub("", line).strip() for line in reply.splitlines()]
    lines = [line for line in lines if any(map(str.isalnum, line))]
    if not lines:
        return None
    stated = {int(match["score"]) for line in lines for match in _statements(line)}
    closing = [match for match in _statements(lines[-1]) if match.end() == len(lines[-1])]
    return stated.pop() if closing and len(stated) == 1 else None


def _statements(line: str) -> list[re.Match[str]]:
    """The scores that a line states itself: not those within quotation marks."""
    return [match for match in _STATEMENT.finditer(line) if not _quoted(line[: match.start("own")])]


def _quoted(before: str) -> bool:
    return before.count('"') % 2 == 1 or before.count("\u201c") > before.count("\u201d")
