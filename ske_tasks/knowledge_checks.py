"""What is wrong with written knowledge: it states an answer, restates the options, or repeats itself.

    lm_eval --model ske_explicit ... --tasks ske --log_samples --output_path out
    python -m ske_tasks.knowledge_checks out     # the counts, and the accuracy with and without each

`check` looks at one text. Our tasks log it per sample (`doc.ske.checks`), and count it beside `unanswered`. In
what a model writes, an answer is what our own extraction finds (ske_tasks/answers), where it is stated in so many
words: a list of facts about the options answers nothing.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ske_tasks.answers.extract import extract, is_right
from ske_tasks.answers.option_text import compared
from ske_tasks.answers.statements import clean, plain, statements
from ske_tasks.paired import Paired
from ske_tasks.six.rows import options_of
from ske_tasks.six.subsets import samples

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

    Returns `answer`: the answer that it states, or None; `right`: whether that is the right one; `restated`: how
    many of the question's options are in it word for word; `repeated`: the share of it that repeats what it
    has said already, 0 to 1; `cut`: whether it reached its token limit, None where that is not known; `empty`.
    """
    answer = stated_answer(knowledge, row)
    return {
        "answer": answer,
        "right": is_right(answer, row),
        "restated": restated(knowledge, row["options"]),
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

    A choice may be stated in any way that is read in an answer. Of other kinds the last number or line would be
    taken, as an answer has one; here only what follows a statement ("The answer is") is.
    """
    if row["kind"] not in ("choice", "multi_choice") and not statements(clean(knowledge)):
        return None
    return extract(knowledge, row["kind"], options_of(row)) or None


def restated(knowledge: str, options: Sequence[str]) -> int:
    """How many options are in the text word for word (case and punctuation at their ends do not count)."""
    text = plain(knowledge)
    return sum(
        bool(option) and bool(re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text))
        for option in map(compared, options)
    )


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


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Each kind: how many questions, and their accuracy beside that of the others."""
    shown = Table("knowledge that", title=f"{len(lines)} questions with knowledge")
    for column in ("questions", "accuracy", "accuracy of the others"):
        shown.add_column(column, justify="right")
    for name, words in KINDS.items():
        with_it = [line["acc_micro"] for line in lines if line[name]]
        others = [line["acc_micro"] for line in lines if not line[name]]
        cells = [str(Paired([[v] for v in part], ["all"] * len(part)).average(0)) if part else "" for part in (with_it, others)]
        shown.add_row(words, str(len(with_it)), *cells)
    return shown


def main() -> None:
    """Print a table per task, and one of all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="lm_eval's --output_path, or one samples_*.jsonl")
    console = Console()
    everything = []
    for task, lines in samples(parser.parse_args().path).items():
        known = [line for line in lines if "knowledge_answers" in line]
        everything += known
        if known:
            console.print(task, table(known))
    console.print("all", table(everything) if everything else "no knowledge: not a run of method=explicit")


if __name__ == "__main__":
    main()
