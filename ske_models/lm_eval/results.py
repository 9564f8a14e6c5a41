"""What a run of `ske_explicit` leaves behind: can it be written, counts of all processes, files beside it.

Used by ske_models/lm_eval/model.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.records import StepCounts


def check_output_path() -> None:
    """lm-eval finds out only after the run that it cannot write its results, and then exits with 0."""
    if Path(sys.argv[0]).name not in ("lm_eval", "lm-eval", "__main__.py"):
        return
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--output_path", "-o", type=Path)
    wanted = parser.parse_known_args(sys.argv[1:])[0].output_path
    if wanted is None:
        return
    try:
        folder = wanted.parent if wanted.suffix == ".json" else wanted
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_path {wanted}: cannot be written: {error}") from error


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
