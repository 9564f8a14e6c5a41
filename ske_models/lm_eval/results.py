"""What a run of `ske_explicit` leaves behind: counts of all processes, files beside the store.

Used by ske_models/lm_eval/model.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ske_models.records import StepCounts


def added_up(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of all processes: the first one's, with everybody's counts and seconds added up."""
    steps: dict[str, StepCounts] = {}
    for report in reports:
        for step, counts in report["steps"].items():
            steps[step] = steps.get(step, StepCounts()) + StepCounts(**counts)
    return reports[0] | {"steps": {step: asdict(counts) for step, counts in steps.items()}}


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """JSONL, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    part.replace(path)
