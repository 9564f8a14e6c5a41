"""Small runs of `python training/round.py` on TinyWorld, and what a test asks of them.

from small_runs import command, small, write
command("--recipe", write(tmp_path / "small.yaml", small()), "--run", tmp_path / "run")
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.recipe import FOLDER

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "training" / "round.py"
CHECKPOINT = "embedded"
TEXTS = ("questions", "dropped", "written", "scores", "selected", "sft")  # the JSONL files of a round
STAGES = ("questions", "synthesize", "judge", "select", "mix", "sft")


@dataclass(frozen=True)
class Finished:
    """A run that was done in one go. `seconds`: how long it took."""

    folder: Path
    recipe: Path
    seconds: float


def small(**changes: Any) -> dict[str, Any]:
    """recipes/world.yaml with two short rounds: the world judges, then M1 itself.

    changes: other values of top-level keys; a mapping is merged into the one that is there, at every level.
    """
    content = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
    args = {"dtype": "float32", "device": "cpu", "batch_size": 64}
    scorings = {"scoring_knowledge": 240, "scoring_reasoning": 160, "general": 60}
    short = {
        "name": "small",
        "model": {"checkpoint": CHECKPOINT},
        "generation": {"args": args, "samples": 2, "window": 64},
        "sft": {"save_steps": 20, "max_length": 512},
        "rounds": [
            {"judge": "judge", "questions": 120, "epochs": 6, "mix": scorings},
            {"judge": "self", "questions": 40, "epochs": 1, "mix": scorings, "select": {"threshold": 5}},
        ],
        "evaluate": {"tasks": ["ske_world_dev"], "limit": 24, "args": args},
        "analysis": {"items": 4},
    }
    return merged(merged(content, short), changes)


def merged(old: Any, new: Any) -> Any:
    """`old` with the entries of `new`; mappings are merged at every level, anything else is replaced."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return copy.deepcopy(new)
    return old | {key: merged(old.get(key), value) for key, value in new.items()}


class _WrittenOut(yaml.SafeDumper):
    """Writes a value that occurs twice twice: recipes have no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(file: Path, content: dict[str, Any]) -> Path:
    """A recipe as a file."""
    file.write_text(yaml.dump(content, Dumper=_WrittenOut, sort_keys=False), encoding="utf-8")
    return file


def environment(**extra: str) -> dict[str, str]:
    """Without a hub."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"} | extra


def command(
    *args: object, env: dict[str, str] | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, args)],
        env=(env or environment()) | extra,
        capture_output=True,
        text=True,
        check=False,
    )


def module(name: str, *args: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """A stage by its own command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "training.stage", name, *map(str, args)],
        env=environment(**extra),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that must have failed without a traceback."""
    assert done.returncode != 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    at = done.stderr.find("ske-learn: ")
    assert at >= 0, done.stderr
    return done.stderr[at:]


def texts(folder: Path) -> dict[str, bytes]:
    """The JSONL files of all rounds of a run, by their place in its folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for name in TEXTS
        for file in sorted(folder.glob(f"round*/{name}.jsonl"))
    }


def records(folder: Path) -> dict[str, int]:
    """The record of each stage that is done, with its time of change in nanoseconds."""
    names = (*STAGES, "evaluate", "base")
    files = (file for name in names for file in sorted(folder.glob(f"round*/{name}.json")))
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}
