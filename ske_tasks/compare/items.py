"""A run as it is compared: its questions with their verdicts, and its settings. No harness is known here.

from ske_tasks.compare.items import Item, Run
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Item:
    """One question of a run. None: the run does not say.

    group: the row of the table it counts for, its task if nothing else is wanted. same: a digest of question
    and gold answer.
    """

    task: str
    name: str
    group: str
    same: str
    right: float
    subset: str
    cluster: str
    tokens: int | None = None
    unanswered: bool | None = None
    truncated: bool | None = None
    looped: bool | None = None
    leaked: bool | None = None
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """Items by (task, name). `label`: the method, where it is known.

    settings: what a run was, by name, to find what differs between runs.
    seconds: time in the engine, and for how many of the texts (others came from a store); None: not known.
    left_out: tasks that have no verdict on each question, and why.
    """

    name: str
    label: str = ""
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    seconds: tuple[float, int, int] | None = None
    left_out: dict[str, str] = field(default_factory=dict)


def cost(trace: Mapping[str, Any]) -> tuple[int | None, bool | None, bool | None]:
    """Of both steps: (tokens written, whether one reached its limit, whether `stop_loops` has ended one).

    None where it is not known; the last one also where it is not so, as most runs end no text.
    """
    written = [tokens for tokens in (trace.get("tokens") or {}).values() if tokens is not None]
    cut = [value for value in (trace.get("truncated") or {}).values() if value is not None]
    looped = True in (trace.get("looped") or {}).values() or None
    return sum(written) if written else None, any(cut) if cut else None, looped
