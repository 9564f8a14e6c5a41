"""What a run's files say in numbers: accuracies and differences with intervals, the data, the costs.

from training.reporting.tables import accuracies, results
accuracies(results(folder))["ske_arc_c", "explicit"][4]        # M4

Everything is read from what the stages left, so a run that is under way gives what there is so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ske_models.files import Row, read_jsonl
from ske_tasks.intervals import Interval, interval
from training.data.objects import RESULT, read_object
from training.data.texts import SampleRow, rows_of
from training.run_folder import RunFolder
from training.stage import STAGES, read_record

AVERAGE = "average"
EXTRACTION = "extraction"  # shown beside the methods: is the written knowledge right and complete?


@dataclass(frozen=True)
class Result:
    """One evaluation: `rows` as the stage `evaluate` writes them, by doc_id; lm-eval's own `metrics`."""

    rows: dict[int, Row]
    metrics: dict[str, float]

    def values(self, key: str = "hit", kind: str | None = None) -> dict[int, float]:
        """doc_id -> 0 or 1, of the items that have this key (and are of this kind of question)."""
        return {
            i: float(row[key])
            for i, row in self.rows.items()
            if row.get(key) is not None and kind in (None, row["doc"].get("kind"))
        }

    def clusters(self, docs: Iterable[int]) -> list[str]:
        """Which items belong together, e.g. are about one person."""
        return [self.rows[i]["cluster"] for i in docs]


Results = dict[tuple[str, str, int], Result]  # by (task, method, checkpoint)
Series = dict[int, Interval]  # by checkpoint


def results(folder: RunFolder) -> Results:
    """What has been evaluated so far."""
    found: Results = {}
    for k in range(folder.rounds + 1):
        for task in folder.recipe.evaluate.tasks:
            for method in folder.recipe.evaluate.methods:
                file = folder.results(k) / f"{task}.{method}.json"
                if file.is_file():
                    rows = rows_of(file.with_name(f"{task}.{method}.samples.jsonl"), SampleRow)
                    result = read_object(file, RESULT, "delete it to evaluate again")
                    by_id = {row["doc_id"]: row for row in rows}
                    found[task, method, k] = Result(by_id, result["metrics"])
    return found


def accuracies(found: Results) -> dict[tuple[str, str], Series]:
    """(task, method) -> checkpoint -> accuracy in percent; with several tasks also (AVERAGE, method).

    Besides the methods there is EXTRACTION, where a task measures it: of the knowledge of `explicit`.
    """
    table: dict[tuple[str, str], Series] = {}
    for (task, method, k), result in found.items():
        table.setdefault((task, method), {})[k] = _mean(result, "hit")
        if method == "explicit" and result.values(EXTRACTION):
            table.setdefault((task, EXTRACTION), {})[k] = _mean(result, EXTRACTION)
    return table | _averages(table)


def by_kind(found: Results, task: str, method: str) -> dict[str, Series]:
    """Kind of question -> checkpoint -> accuracy, for a task whose items have a kind."""
    table: dict[str, Series] = {}
    for (its_task, its_method, k), result in found.items():
        if (its_task, its_method) == (task, method):
            for kind in dict.fromkeys(row["doc"].get("kind") for row in result.rows.values()):
                if kind is not None:
                    table.setdefault(kind, {})[k] = _mean(result, "hit", kind)
    return table


def steps(found: Results, rounds: int) -> dict[tuple[str, str], dict[tuple[int, int], Interval]]:
    """(task, method) -> (k, before) -> M`k` - M`before` in points, item by item.

    Every checkpoint against the one before it, and the last against M0.
    """
    pairs = list(dict.fromkeys([*((k, k - 1) for k in range(1, rounds + 1)), (rounds, 0)]))
    table: dict[tuple[str, str], dict[tuple[int, int], Interval]] = {}
    for task, method in dict.fromkeys((task, method) for task, method, _ in found):
        for k, before in pairs:
            if (task, method, k) in found and (task, method, before) in found:
                gain = _gain(found[task, method, k], found[task, method, before])
                table.setdefault((task, method), {})[k, before] = gain
    return table | _averages(table)


def over(found: Results, method: str, other: str) -> dict[str, Series]:
    """task -> checkpoint -> `method` - `other` in points, item by item; with several tasks also AVERAGE."""
    table: dict[tuple[str, str], Series] = {}
    for (task, its_method, k), result in found.items():
        if its_method == method and (task, other, k) in found:
            table.setdefault((task, method), {})[k] = _gain(result, found[task, other, k])
    return {task: series for (task, _), series in (table | _averages(table)).items()}


def average(parts: Sequence[Interval]) -> Interval:
    """The mean over tasks, each counting the same; tasks are independent, so their variances add up."""
    mean = sum(part.mean for part in parts) / len(parts)
    half = sum(((part.high - part.low) / 2) ** 2 for part in parts) ** 0.5 / len(parts)
    return Interval(mean, mean - half, mean + half, sum(part.n for part in parts))


def scale_mean(scores: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean of scores from 1 to 10 with its interval, as scores (`interval` gives percent)."""
    return interval([score / 100 for score in scores], clusters)


def _mean(result: Result, key: str, kind: str | None = None) -> Interval:
    values = result.values(key, kind)
    return interval(list(values.values()), result.clusters(values))


def _gain(result: Result, other: Result) -> Interval:
    mine, theirs = result.values(), other.values()
    shared = [i for i in mine if i in theirs]
    return interval([mine[i] - theirs[i] for i in shared], result.clusters(shared))


def _averages(
    table: dict[tuple[str, str], dict[Any, Interval]],
) -> dict[tuple[str, str], dict[Any, Interval]]:
    """(AVERAGE, method) of what all tasks have; nothing where there is but one task, or a task lacks it."""
    tasks = list(dict.fromkeys(task for task, _ in table))
    averages: dict[tuple[str, str], dict[Any, Interval]] = {}
    for method in dict.fromkeys(method for _, method in table) if len(tasks) > 1 else ():
        series = [table.get((task, method), {}) for task in tasks]
        shared = [key for key in series[0] if all(key in one for one in series)]
        if shared:
            averages[AVERAGE, method] = {key: average([one[key] for one in series]) for key in shared}
    return averages


def records(folder: RunFolder) -> dict[tuple[int, str], dict[str, Any]]:
    """(round, stage) -> its record, of the stages that are done."""
    found = {}
    for n in range(folder.rounds + 1):
        for stage in STAGES:
            file = stage.record(folder, n)
            if file.is_file():
                found[n, stage.name] = read_record(stage, folder, n)
    return found


def tokens(counts: Any) -> int:
    """All that a stage counted under `tokens`, wherever it is in its counts."""
    if not isinstance(counts, dict):
        return 0
    here = counts.get("tokens", 0)
    below = sum(tokens(value) for name, value in counts.items() if name != "tokens")
    return below + (sum(here.values()) if isinstance(here, dict) else here)


def followed(folder: RunFolder, n: int) -> list[dict[str, Any]]:
    """Samples of a round from the question to what became of them: the first of each fate.

    Each: fate, row (of written.jsonl), verdicts (kind -> row of scores.jsonl, None if not judged).
    """
    here = folder.round(n)
    if not all((here / name).is_file() for name in ("written.jsonl", "scores.jsonl", "selected.jsonl")):
        return []
    select = folder.select(n)
    scores = {(row["id"], row["sample"], row["kind"]): row for row in read_jsonl(here / "scores.jsonl")}
    selected = {(row["id"], row["sample"]) for row in read_jsonl(here / "selected.jsonl")}
    found: dict[str, dict[str, Any]] = {}
    for row in read_jsonl(here / "written.jsonl"):
        name = (row["id"], row["sample"])
        verdicts = {kind: scores.get((*name, kind)) for kind in ("knowledge", "reasoning")}
        values = {kind: verdict["score"] if verdict else None for kind, verdict in verdicts.items()}
        low = [kind for kind, value in values.items() if value is not None and value < select.threshold]
        if name in selected:
            fate = "selected"
        elif None in verdicts.values():
            fate = "not judged: truncated or empty"
        elif None in values.values():
            fate = "not selected: unscored"
        elif low and select.by == "score":
            fate = f"not selected: {' and '.join(low)} below {select.threshold}"
        else:
            fate = "not selected: an equal text, the quota or the draw"
        found.setdefault(fate, {"fate": fate, "row": row, "verdicts": verdicts})
    return sorted(found.values(), key=lambda sample: sample["fate"])
