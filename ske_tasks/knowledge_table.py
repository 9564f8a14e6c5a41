"""What is wrong with the knowledge of a finished run, and how accurate the answers are where it is.

lm_eval --model ske_explicit ... --tasks ske --log_samples --output_path out
python -m ske_tasks.knowledge_table out      # a samples_*.jsonl, or a folder with them
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ske_models.errors import UserError
from ske_tasks.intervals import interval
from ske_tasks.knowledge_checks import KINDS
from ske_tasks.six.subsets import samples


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Each kind: how many questions, and their accuracy beside that of the others."""
    shown = Table("knowledge that", title=f"{len(lines)} questions with knowledge")
    for column in ("questions", "accuracy", "accuracy of the others"):
        shown.add_column(column, justify="right")
    for name, words in KINDS.items():
        with_it = [line["acc_micro"] for line in lines if line[name]]
        others = [line["acc_micro"] for line in lines if not line[name]]
        shown.add_row(words, str(len(with_it)), _accuracy(with_it), _accuracy(others))
    return shown


def _accuracy(verdicts: Sequence[int]) -> str:
    return str(interval(verdicts, [str(place) for place in range(len(verdicts))])) if verdicts else ""


def main() -> None:
    """Print a table per task, and one of all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="lm_eval's --output_path, or one samples_*.jsonl")
    try:
        tasks = samples(parser.parse_args().path)
    except UserError as error:
        sys.exit(f"error: {error}")
    console, everything = Console(), []
    for task, lines in tasks.items():
        known = [line for line in lines if "knowledge_answers" in line]
        everything += known
        if known:
            console.print(task, table(known))
    console.print("all", table(everything) if everything else "no knowledge: not a run of method=explicit")


if __name__ == "__main__":
    main()
