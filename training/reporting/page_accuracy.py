"""The report's section on accuracy.

from training.reporting.page_accuracy import section
section(folder, results(folder))["not_evaluated"]     # ["M3 is not evaluated yet.", ...]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ske_tasks.compare.table import benchmarks
from training.reporting import plots, tables
from training.reporting.cells import NONE, by_checkpoint, cell, listed, table
from training.reporting.tables import AVERAGE, EXTRACTION, Results, Series
from training.run_folder import RunFolder

NAMES = {"direct": "direct", "cot": "CoT", "explicit": "explicit", EXTRACTION: "knowledge right"}


def section(folder: RunFolder, found: Results) -> dict[str, Any]:
    """What the template shows of accuracy; draws accuracy.png."""
    accuracies = tables.accuracies(found)
    used, named = methods(accuracies), tasks(accuracies)
    missing = []
    for k in range(folder.rounds + 1):
        lacking = [
            f"{task} by {method}"
            for task in folder.recipe.evaluate.tasks
            for method in folder.recipe.evaluate.methods
            if (task, method, k) not in found
        ]
        if lacking:
            every = len(lacking) == len(folder.recipe.evaluate.tasks) * len(folder.recipe.evaluate.methods)
            missing.append(f"M{k} is not evaluated yet" + (f": {listed(lacking)}." if not every else "."))
    if not folder.recipe.evaluate.tasks:
        missing.append("The recipe names no task (evaluate.tasks).")
    if accuracies:
        panels = {
            _title(accuracies, task): {m: accuracies.get((task, m), {}) for m in used} for task in named
        }
        plots.accuracy(folder.path / "accuracy.png", panels, folder.rounds)
    differences = []
    steps = tables.steps(found, folder.rounds)
    for task in named:
        gained = {NAMES[method]: steps.get((task, method), {}) for method in used if method != EXTRACTION}
        pairs = sorted(
            {pair for series in gained.values() for pair in series}, key=lambda p: (p[0] - p[1], p)
        )
        rows = [
            [f"M{k} - M{before}", *(cell(series.get((k, before)), "+") for series in gained.values())]
            for k, before in pairs
        ]
        if rows:
            caption = f"{_label(task)}: what the rounds gained, in points, item by item"
            differences.append(table(f"steps-{task}", ["", *gained], rows, caption))
    ahead = {other: tables.over(found, "explicit", other) for other in ("cot", "direct")}
    for task in named:
        if any(task in series for series in ahead.values()):
            columns = {f"explicit - {NAMES[other]}": series.get(task, {}) for other, series in ahead.items()}
            caption = f"{_label(task)}: explicit against the other methods, in points, item by item"
            differences.append(by_checkpoint(f"over-{task}", columns, caption, "+"))
    kinds = []
    for task in named:
        columns = {
            kind.replace("_", " "): one for kind, one in tables.by_kind(found, task, "explicit").items()
        }
        if columns:
            kinds.append(by_checkpoint(f"kinds-{task}", columns, f"{task}, explicit, by kind of question"))
    return {
        "accuracy": [
            by_checkpoint(
                f"accuracy-{task}",
                {NAMES[method]: accuracies[task, method] for method in used if (task, method) in accuracies},
                _title(accuracies, task),
            )
            for task in named
        ],
        "average": (AVERAGE, "explicit") in accuracies,
        "knowledge_right": EXTRACTION in used,
        "differences": differences,
        "kinds": kinds,
        "main": main_table(found),
        "not_evaluated": missing,
    }


def main_table(found: Results) -> dict[str, Any] | None:
    """As the paper's main table: a row per checkpoint and method, a column per task, and the average.

    The numbers are those that lm-eval prints: of a task with subsets, the mean over them. The average counts
    every task the same, and is of all tasks or none.
    """
    said = {key: result.metrics["acc"] for key, result in found.items() if "acc" in result.metrics}
    if not said:
        return None
    named = list(dict.fromkeys(task for task, _, _ in said))
    used = [method for method in NAMES if any(its == method for _, its, _ in said)]
    rows = []
    for k in sorted({k for _, _, k in said}):
        for method in used:
            values = [said.get((task, method, k)) for task in named]
            known = [value for value in values if value is not None]
            if not known:
                continue
            average = [sum(known) / len(known) if len(known) == len(named) else None]
            shown = values + (average if len(named) > 1 else [])
            cells = [NONE if value is None else f"{100 * value:.1f}" for value in shown]
            rows.append([f"M{k} {NAMES[method]}", *cells])
    head = ["", *benchmarks(named), *([AVERAGE] if len(named) > 1 else [])]
    return table("main", head, rows, "Accuracy in percent as lm-eval prints it")


def methods(accuracies: Mapping[tuple[str, str], Series]) -> list[str]:
    """The methods that have been evaluated, in the order of `NAMES`."""
    return [method for method in NAMES if any(key[1] == method for key in accuracies)]


def tasks(accuracies: Mapping[tuple[str, str], Series]) -> list[str]:
    """The tasks that have been evaluated, the average first."""
    names = list(dict.fromkeys(task for task, _ in accuracies))
    return sorted(names, key=lambda task: task != AVERAGE)


def _label(task: str) -> str:
    return "Average" if task == AVERAGE else task


def _title(accuracies: Mapping[tuple[str, str], Series], task: str) -> str:
    n = max(one.n for (name, _), series in accuracies.items() if name == task for one in series.values())
    count = len({name for name, _ in accuracies}) - 1
    return f"Average of {count} tasks" if task == AVERAGE else f"{task}, {n:,} questions"
