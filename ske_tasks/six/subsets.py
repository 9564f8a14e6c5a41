"""The table by subset (57 subjects of MMLU, 21 sets of AGIEval, 27 tasks of BBH) of a finished run.

lm_eval --model ske_explicit ... --tasks ske --log_samples --output_path out
python -m ske_tasks.six.subsets out              # a samples_*.jsonl, or a folder with them
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ske_models.errors import UserError
from ske_models.files import read_jsonl
from ske_tasks.six.metrics import macro


def samples(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged samples of our benchmarks by task; of several runs in a folder, each task's latest.

    Raises:
        UserError: nothing there, or no samples of our tasks (`--log_samples` was not given).
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; give lm_eval's --output_path")
    files = (
        [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"), key=lambda file: file.stem[-26:])
    )
    found = {}
    for file in files:
        lines = read_jsonl(file)
        if lines and "ske_question" in lines[0]["doc"] and "subset" in lines[0]["doc"]:
            found[file.stem.removeprefix("samples_").rsplit("_", 1)[0]] = lines
    if not found:
        raise UserError(
            f"{path}: no samples of the ske benchmarks; run lm_eval with --log_samples --output_path"
        )
    return found


def table(task: str, lines: list[dict[str, Any]]) -> Table:
    """One task: questions, accuracy, unanswered and truncated of every subset, then macro and micro."""
    shown = Table("subset", title=task)
    for column in ("questions", "acc", "unanswered", "truncated"):
        shown.add_column(column, justify="right")
    by_subset = defaultdict(list)
    for line in lines:
        by_subset[line["doc"]["subset"]].append(line)
    for subset, members in sorted(by_subset.items()):
        shown.add_row(subset, *_row(members, sum(m["acc_micro"] for m in members) / len(members)))
    shown.add_section()
    if len(by_subset) > 1:
        shown.add_row("all, macro (acc)", *_row(lines, macro(line["acc"] for line in lines)))
    shown.add_row(
        "all, micro (acc_micro)", *_row(lines, sum(line["acc_micro"] for line in lines) / len(lines))
    )
    return shown


def _row(members: list[dict[str, Any]], accuracy: float) -> list[str]:
    cut = [member["truncated"] for member in members if "truncated" in member]
    unanswered = sum(member["unanswered"] for member in members)
    return [
        str(len(members)),
        f"{100 * accuracy:.2f}",
        str(unanswered),
        str(sum(cut)) if cut else "not known",
    ]


def main() -> None:
    """Print a table for every task found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="lm_eval's --output_path, or one samples_*.jsonl")
    console = Console()
    for task, lines in samples(parser.parse_args().path).items():
        console.print(table(task, lines))


if __name__ == "__main__":
    main()
