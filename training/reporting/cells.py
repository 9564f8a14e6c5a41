"""Numbers as the report and the terminal show them.

from training.reporting.cells import cell
cell(Interval(55.24, 52.1, 58.0, 400))      # "55.2 [52.1, 58.0]"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ske_tasks.intervals import Interval
from training.reporting.tables import Series

NONE = "–"


def cell(value: Interval | None, sign: str = "", places: int = 1) -> str:
    """55.2 [52.1, 58.0]; with `sign` "+" every number has one."""
    if value is None:
        return NONE
    mean, low, high = (f"{number:{sign}.{places}f}" for number in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def by_checkpoint(
    name: str, columns: Mapping[str, Series], caption: str, sign: str = "", places: int = 1
) -> dict[str, Any]:
    """A row per checkpoint, a column per series."""
    checkpoints = sorted({k for series in columns.values() for k in series})
    rows = [
        [f"M{k}", *(cell(series.get(k), sign, places) for series in columns.values())] for k in checkpoints
    ]
    return table(name, ["", *columns], rows, caption)


def table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> dict[str, Any]:
    """A table as the template shows it; `name` is its id in the page."""
    return {"id": name, "head": head, "rows": rows, "caption": caption}


def share(value: float | None) -> str:
    """0.552 as 55.2 %."""
    return NONE if value is None else f"{100 * value:.1f} %"


def listed(words: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = [*words] or [""]
    return f"{', '.join(first)} and {last}" if first else last
