"""What a run of `ske_explicit` leaves behind: the counts of all processes.

Used by ske_models/lm_eval/model.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ske_models.records import StepCounts


def added_up(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report of all processes: the first one's, with everybody's counts and seconds added up."""
    steps: dict[str, StepCounts] = {}
    for report in reports:
        for step, counts in report["steps"].items():
            steps[step] = steps.get(step, StepCounts()) + StepCounts(**counts)
    return reports[0] | {"steps": {step: asdict(counts) for step, counts in steps.items()}}
