"""The comparison itself: accuracies, paired differences, and what differs between the runs' settings.

from ske_tasks.compare.table import compare
compare(runs)               # of ske_tasks/compare/runs.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ske_models.errors import UserError
from ske_tasks.compare.items import Item, Run
from ske_tasks.compare.paired import Paired, mcnemar

BESIDE = 4  # runs that fit beside each other
SHOWN = 5  # names of items in an error, or settings of one kind


@dataclass(frozen=True)
class Comparison:
    """Runs over the same items. names: of the runs, short. keys: of the items, in the order of `pairs`."""

    runs: list[Run]
    names: list[str]
    keys: list[tuple[str, str]]
    pairs: Paired

    def column(self, run: int) -> list[Item]:
        """A run's items in the order of `keys`."""
        return [self.runs[run].items[key] for key in self.keys]


def compare(runs: Sequence[Run]) -> Comparison:
    """Raises UserError for fewer than two runs, or runs over different items, naming the difference."""
    if len(runs) < 2:
        raise UserError(f"{runs[0].name if runs else 'nothing'}: one run; two are needed")
    for other in runs[1:]:
        _check_same(runs[0], other)
    keys = list(runs[0].items)
    items = [runs[0].items[key] for key in keys]
    pairs = Paired(
        [[run.items[key].right for run in runs] for key in keys],
        [item.group for item in items],
        [item.cluster for item in items],
        [item.subset for item in items],
    )
    return Comparison(list(runs), short(runs), keys, pairs)


def short(runs: Sequence[Run]) -> list[str]:
    """Names for columns: what differs of the folders, and the method."""
    folders = [str(Path(run.name).resolve()) for run in runs]
    common = os.path.commonpath(folders)
    names = []
    for run, folder in zip(runs, folders, strict=True):
        cut = folder.removeprefix(common).strip("/")
        names.append(f"{cut} ({run.label})" if cut and run.label not in cut else cut or run.label or run.name)
    return names if len(set(names)) == len(names) else [f"{n}: {name}" for n, name in enumerate(names, 1)]


def _check_same(base: Run, other: Run) -> None:
    both = f"{base.name} and {other.name} are not over the same questions: "
    mine, theirs = ({task for task, _ in run.items} for run in (base, other))
    if mine != theirs:
        only = [
            f"only {run.name} has {', '.join(sorted(tasks)[:SHOWN])}"
            for run, tasks in ((base, mine - theirs), (other, theirs - mine))
            if tasks
        ]
        raise UserError(f"{both}{'; '.join(only)}; evaluate both on the same tasks")
    for one, two in ((base, other), (other, base)):
        missing = [key for key in one.items if key not in two.items]
        if missing:
            first = ", ".join("/".join(key) for key in missing[:SHOWN])
            raise UserError(
                f"{both}{two.name} lacks {len(missing)} of {len(one.items)} ({first}, ...); use one --limit"
            )
    changed = [key for key, item in base.items.items() if item.same != other.items[key].same]
    if changed:
        first = ", ".join("/".join(key) for key in changed[:SHOWN])
        raise UserError(
            f"{both}{len(changed)} have another question or gold answer ({first}); the task has changed"
        )


def differences(runs: Sequence[Run]) -> list[str]:
    """What differs between the runs beside their verdicts, a line each: prompt set, task, extraction ..."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    found: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        values = [run.settings.get(name, "none") for run in runs]
        if len(set(values)) > 1:
            task, _, what = name.rpartition(": ")
            shown = [value if len(value) <= 60 else f"{value[:40].strip()!r}..." for value in values]
            if len(set(shown)) < len(set(values)):  # long texts that begin alike: function sources, templates
                shown = [f"text {sorted(set(values)).index(value) + 1}" for value in values]
            found.setdefault((what, *shown), []).append(task)
    lines = []
    for (what, *shown), tasks in found.items():
        where = f" ({', '.join(tasks[:SHOWN])}{', ...' if len(tasks) > SHOWN else ''})" if tasks[0] else ""
        lines.append(f"{what}{where}: {' | '.join(' '.join(value.split()) for value in shown)}")
    return lines


def left_out(runs: Sequence[Run]) -> list[str]:
    """The tasks that are in no table, a line each."""
    return [f"{task}: {why}" for task, why in {k: v for run in runs for k, v in run.left_out.items()}.items()]


def accuracies(found: Comparison) -> Table:
    """A row per benchmark, the average, and the costs; a column per run. Of many runs, a row per run."""
    if len(found.runs) > BESIDE:
        return _a_row_per_run(found)
    table = Table(title="Accuracy in percent [95 % interval]")
    table.add_column("")
    table.add_column("n", justify="right")
    for name in found.names:
        table.add_column(escape(name), justify="right")
    runs = range(len(found.runs))
    for group in found.pairs.groups:
        of_runs = [found.pairs.accuracy(group, run) for run in runs]
        table.add_row(group, f"{of_runs[0].n:,}", *map(str, of_runs))
    if len(found.pairs.groups) > 1:
        table.add_section()
        table.add_row("average", f"{len(found.keys):,}", *(str(found.pairs.average(run)) for run in runs))
    table.add_section()
    for name, cells in costs(found).items():
        table.add_row(name, "", *cells)
    return table


def benchmarks(tasks: Sequence[str]) -> list[str]:
    """Names of tasks for the head of a wide table: ske_quick_mmlu is mmlu, if nothing else is."""
    names = [task.removeprefix("ske_").removeprefix("quick_") for task in tasks]
    return names if len(set(names)) == len(names) else list(tasks)


def _a_row_per_run(found: Comparison) -> Table:
    """As the main table of a paper: models and methods below each other, benchmarks beside each other."""
    groups = found.pairs.groups
    few = len(groups) <= 2
    table = Table(title="Accuracy in percent" + (" [95 % interval]" if few else ""))
    # the name gives way where the terminal is narrow: no figure does
    table.add_column("", overflow="fold", min_width=12)
    spent = costs(found)
    heads = [
        f"{escape(name)}\nn {found.pairs.accuracy(group, 0).n:,}"
        for group, name in zip(groups, benchmarks(groups), strict=True)
    ]
    heads += ["average"] if len(groups) > 1 else []
    for head in [*heads, *(cost.replace(" ", "\n") for cost in spent)]:
        table.add_column(head, justify="right", no_wrap=True)
    for run, name in enumerate(found.names):
        values = [found.pairs.accuracy(group, run) for group in groups]
        values += [found.pairs.average(run)] if len(groups) > 1 else []
        cells = [str(value) if few else f"{value.mean:.1f}" for value in values]
        cells += [of_runs[run] for of_runs in spent.values()]
        ends = run + 1 < len(found.runs) and found.runs[run + 1].name != found.runs[run].name
        table.add_row(escape(name), *cells, end_section=ends)
    return table


def costs(found: Comparison) -> dict[str, list[str]]:
    """What the runs cost, and what went wrong in them: a cell per run; "" where a run does not say."""
    rows: dict[str, list[str]] = {"tokens written": [], "seconds in the engine": []}
    for place, run in enumerate(found.runs):
        tokens = [item.tokens for item in found.column(place) if item.tokens is not None]
        rows["tokens written"].append(f"{sum(tokens):,}" if tokens else "")
        spent, made, needed = run.seconds or (0.0, 0, 0)
        part = "" if made == needed else f" ({made:,} of {needed:,} texts)"
        said = f"{spent:,.0f}{part}" if made else "all stored"
        rows["seconds in the engine"].append(said if needed else "")
    flags = {
        "unanswered": "unanswered",
        "truncated": "truncated",
        "ended: repeats itself": "looped",
        "knowledge states an answer": "leaked",
    }
    for words, name in flags.items():
        for place in range(len(found.runs)):
            known = [value for item in found.column(place) if (value := getattr(item, name)) is not None]
            rows.setdefault(words, []).append(f"{sum(known):,}" if known else "")
    return {name: cells for name, cells in rows.items() if any(cells)}


def paired(found: Comparison) -> Table:
    """A section for each two runs: how far the second is ahead of the first, by benchmark and on average.

    Of many runs, those two that differ in one respect (`_pairs`), and on average alone.
    """
    table = Table(title="Question by question: second minus first, in points")
    for name in ("", "difference [95 % interval]", "gained", "lost", "p (McNemar, exact)"):
        table.add_column(name, justify="right" if name else "left")
    many = len(found.runs) > BESIDE
    groups: list[str | None] = [*found.pairs.groups]
    shown = [*([] if many and len(groups) > 1 else groups), *([None] if len(groups) > 1 else [])]
    for base, run in _pairs(found.runs) if many else combinations(range(len(found.runs)), 2):
        name = f"{escape(found.names[run])} - {escape(found.names[base])}"
        if not many:
            table.add_section()
            table.add_row(f"[bold]{name}")
        for group in shown:
            gained, lost = found.pairs.flips(run, base, group)
            points = found.pairs.difference(run, base, group)
            first = name if many else f"  {group or 'average'}"
            table.add_row(first, str(points), str(gained), str(lost), p_value(gained, lost))
    return table


def _pairs(runs: Sequence[Run]) -> list[tuple[int, int]]:
    """Of many runs those two that are worth a look: the methods of each folder; and by each method every
    folder against the one before it, and the last against the first (M1 - M0, M2 - M1, ..., M4 - M0). Up to
    eight folders of one run each: all pairs."""
    if len(runs) <= 2 * BESIDE and len({run.name for run in runs}) == len(runs):
        return [*combinations(range(len(runs)), 2)]
    found = [
        (base, run) for base, run in combinations(range(len(runs)), 2) if runs[base].name == runs[run].name
    ]
    for label in dict.fromkeys(run.label for run in runs):
        same = [place for place, run in enumerate(runs) if run.label == label]
        found += dict.fromkeys([*pairwise(same), (same[0], same[-1])])
    return [(base, run) for base, run in dict.fromkeys(found) if base != run]


def p_value(gained: int, lost: int) -> str:
    """As it is printed: three digits after the point, or less than 0.001."""
    p = mcnemar(gained, lost)
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"
