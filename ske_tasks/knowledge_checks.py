"""What is wrong with written knowledge: it states an answer, restates the options, or repeats itself.

    from ske_tasks.knowledge_checks import check
    check("1. The answer is (B).", row)         # row: a `ske_tasks.six.rows.Row`

Our tasks log it per sample (`doc.ske.checks`), and count it beside `unanswered`; the counts of a run are
printed by `python -m ske_tasks.knowledge_table OUT`. An answer is what our own extraction finds
(ske_tasks/answers), where it is stated in so many words, or the only option that the text has word for word:
a list of facts about several options answers nothing. Of open questions a right answer is found wherever it
is named; a wrong one only where it is said to be the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ske_tasks.answers.extract import extract, is_right, normalise_open
from ske_tasks.answers.option_text import compared
from ske_tasks.answers.reply import parse, plain
from ske_tasks.six.rows import options_of

WORDS = 6  # in a row that are seen again, to count as repeated
LOOP = 0.5  # from this share of repeated text on, a text is a loop

# What a table says of a sample, by what `check` found.
KINDS = {
    "knowledge_answers": "states an answer",
    "knowledge_answers_right": "states the right answer",
    "knowledge_restates": "restates at least two options",
    "knowledge_loops": "loops",
    "knowledge_cut": "cut at its token limit",
    "knowledge_empty": "empty",
}


def check(knowledge: str, row: Mapping[str, Any], cut: bool | None = None) -> dict[str, Any]:
    """What is to be known of one knowledge text. row: a `ske_tasks.six.rows.Row`.

    Returns `answer`: the answer that it states, or None; `right`: whether that is the right one; `restated`:
    how many of the question's lettered options are in it word for word; `repeated`: the share of it that
    repeats what it has said already, 0 to 1; `cut`: whether it reached its token limit, None where that is
    not known; `empty`.
    """
    answer = stated_answer(knowledge, row)
    return {
        "answer": answer,
        "right": is_right(answer, row),
        "restated": len(restated(knowledge, options_of(row))) if row["letters"] else 0,
        "repeated": round(repeated(knowledge), 3),
        "cut": cut,
        "empty": not knowledge.strip(),
    }


def flags(found: Mapping[str, Any]) -> dict[str, int]:
    """A result of `check` as the counts of a task: 0 or 1 by the names of `KINDS`."""
    return {
        "knowledge_answers": int(found["answer"] is not None),
        "knowledge_answers_right": int(found["right"]),
        "knowledge_restates": int(found["restated"] >= 2),
        "knowledge_loops": int(found["repeated"] >= LOOP),
        "knowledge_cut": int(bool(found["cut"])),
        "knowledge_empty": int(found["empty"]),
    }


def stated_answer(knowledge: str, row: Mapping[str, Any]) -> str | None:
    """The answer that a text states, by our extraction; None for one that only lists facts.

    A choice may be stated in any way that is read in an answer, or by naming one option and no other ("The
    term is congenital"). Of other kinds the last number or line would be taken, as an answer has one; here
    only what follows a statement ("The answer is") is, and of open questions an alias of the right answer.
    """
    choice = row["kind"] in ("choice", "multi_choice")
    if choice or parse(knowledge).statements:
        stated = extract(knowledge, row["kind"], options_of(row))
        if stated:
            return stated
    named = restated(knowledge, options_of(row)) if choice else []
    if row["kind"] == "open":
        text = f" {normalise_open(knowledge)} "
        named = [alias for alias in row["gold"] if f" {normalise_open(alias)} " in text][:1]
    return named[0] if len(named) == 1 else None


def restated(knowledge: str, options: Mapping[str, str]) -> list[str]:
    """The letters of the options that are in the text word for word (case and outer punctuation aside)."""
    text = plain(knowledge)
    texts = {letter: compared(option) for letter, option in options.items()}
    return [
        letter
        for letter, option in texts.items()
        # most are not there at all, and need no pattern of their own
        if option and option in text and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text)
    ]


def repeated(text: str) -> float:
    """The share of a text's lines, or of its runs of six words, that were there before; the larger of both.

    Texts of fewer than twelve words have no runs that count. Where words are not separated (Chinese),
    characters take their place.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = re.findall(r"[㐀-鿿]|[^\W㐀-鿿]+", text)
    runs = [tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)]
    shares = [1 - len(set(parts)) / len(parts) for parts in (lines, runs) if len(parts) > WORDS]
    return max(shares, default=0.0)
