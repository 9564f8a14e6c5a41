"""The stages of a round, in order: what each needs, whether it is done, and how it is run.

    python -m training.stages.synthesize runs/world 2      # one stage of round 2, as `training/round.py` starts it

A stage that is done leaves `round2/synthesize.json`: counts, seconds, versions, and what it was made from. It
is done again if a file that it reads has changed, an edited one for example; it is refused if the recipe says
something else than it was done with.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import file_digest, read_json, read_jsonl, write_json, write_text
from ske_models.fingerprint import digest
from ske_models.store import difference
from training.data.shots import load as load_shots
from training.data.windows import delete_parts
from training.run_folder import Run

# What changes how fast a text comes, or what it may cost, but not the text.
NOT_IDENTITY = {
    "endpoints", "concurrency", "timeout_s", "max_retries", "deadline_s", "max_usd", "key_env", "base_url",
    "accelerate", "per_device_batch", "save_steps",
}  # fmt: skip
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
LIBRARIES = ("torch", "transformers", "trl", "accelerate", "datasets", "lm-eval", "openai", "vllm")


@dataclass(frozen=True)
class Stage:
    """One step of a round, done by `run` of a module. Paths are relative to the run's folder.

    outputs: what it leaves. work: a folder of unfinished work. light: needs no process of its own.
    """

    name: str
    module: str
    outputs: tuple[str, ...]
    work: str | None = None
    light: bool = False

    def record(self, run: Run, n: int) -> Path:
        """The file that says that it is done."""
        return run.round(n) / f"{self.name}.json"

    def paths(self, run: Run, n: int) -> list[Path]:
        """Its outputs in round `n`."""
        return [run.folder / name.format(n=n) for name in self.outputs]


STAGES = (
    Stage("questions", "questions", ("round{n}/questions.jsonl", "round{n}/dropped.jsonl")),
    Stage("synthesize", "synthesize", ("round{n}/written.jsonl",)),
    Stage("judge", "judge", ("round{n}/scores.jsonl",)),
    Stage("select", "select", ("round{n}/selected.jsonl",), light=True),
    Stage("mix", "mix", ("round{n}/sft.jsonl",), light=True),
    Stage("sft", "sft", ("M{n}/config.json",), work="round{n}/sft"),
)
BASE = Stage("base", "base", ("M{n}/config.json",), work="round{n}/sft")
EVALUATE = Stage("evaluate", "evaluate", (), work="results/M{n}")
BY_NAME = {stage.name: stage for stage in (BASE, *STAGES, EVALUATE)}


def inputs(name: str, run: Run, n: int) -> list[Path]:
    """The files that a stage of round `n` reads."""
    here, first = run.round(n), run.round(1)
    if name == "questions":
        earlier = [run.round(k) / "questions.jsonl" for k in range(1, n)]
        return earlier + (_checkpoint(run, run.writer(n)) if _asks(run) else [])
    if name == "synthesize":
        return [here / "questions.jsonl", *_checkpoint(run, run.writer(n))]
    if name == "judge":
        itself = run.settings(n).judge == "self"
        return [here / "written.jsonl", *(_checkpoint(run, run.writer(n)) if itself else [])]
    if name == "select":
        return [here / name for name in ("questions.jsonl", "written.jsonl", "scores.jsonl")]
    if name == "mix":
        return [here / "selected.jsonl", first / "scores.jsonl", first / "written.jsonl"]
    if name == "sft":
        return [here / "sft.jsonl", *_checkpoint(run, run.start(n))]
    return _checkpoint(run, n) if name == "evaluate" else []


def settings(name: str, run: Run, n: int) -> dict[str, Any]:
    """What the recipe says to a stage of round `n`, without what does not change its result."""
    recipe = run.recipe
    prompts = {"prompts": run.prompts.hash, "layout": recipe.layout, "seed": recipe.seed}
    shots = {"shots": load_shots(recipe.generation.shots if n == 1 else None).hash}
    if name == "questions":
        count = {"count": run.settings(n).questions}
        return _part(run, "questions", *(["generation"] if _asks(run) else [])) | prompts | shots | count
    if name == "synthesize":
        return _part(run, "generation") | prompts | shots
    if name == "judge":
        role = run.settings(n).judge
        return _part(run, "generation" if role == "self" else "judge") | prompts | {"role": role}
    if name == "select":
        return {"select": run.select(n).model_dump(mode="json"), "seed": recipe.seed}
    if name == "mix":
        return _part(run, "general") | prompts | {"mix": run.settings(n).mix.model_dump(mode="json")}
    if name == "sft":
        own = run.settings(n).model_dump(mode="json", include={"epochs", "learning_rate", "warmup_steps"})
        return _part(run, "sft") | {"seed": recipe.seed, "start": run.start(n)} | own
    return _part(run, "evaluate") | prompts if name == "evaluate" else _part(run, "model")


def _checkpoint(run: Run, k: int) -> list[Path]:
    return [run.checkpoint(k) / "config.json", run.checkpoint(k) / "lineage.json"]


def _asks(run: Run) -> bool:
    return any(source.source == "passages" for source in run.recipe.questions.sources)


def _part(run: Run, *names: str) -> dict[str, Any]:
    whole = run.recipe.model_dump(mode="json")
    return {name: _plain(whole[name]) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if key not in NOT_IDENTITY}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def of_round(run: Run, n: int) -> tuple[Stage, ...]:
    """The stages of a round, in order. Round 0 has M0: its making, if it comes from a base model."""
    if n == 0:
        return (BASE, EVALUATE) if run.recipe.model.base else (EVALUATE,)
    return (*STAGES, EVALUATE)


def is_done(stage: Stage, run: Run, n: int) -> bool:
    """Whether a stage was done with the files as they are now.

    Raises UserError if it was done with another recipe.
    """
    file = stage.record(run, n)
    if not file.is_file():
        return False
    record = read_json(file)
    said = settings(stage.name, run, n)
    if record["settings"] != said:
        flat, now = _flat(record["settings"]), _flat(said)
        raise UserError(
            f"{file}: done with another recipe: {difference(flat, now)}; "
            f"give another --run, or delete this file to do {stage.name} again and all that follows"
        )
    whole = all(path.exists() for path in stage.paths(run, n))
    return whole and record["inputs"] == _digests(stage, run, n)


def execute(stage: Stage, run: Run, n: int) -> dict[str, Any]:
    """Does a stage in this process and writes its record.

    Raises UserError if something that it reads is missing or broken, before anything is deleted.

    Among the processes of `accelerate launch`, the first one writes the record.
    """
    for path in inputs(stage.name, run, n):
        if path.suffix == ".jsonl":
            read_jsonl(path)  # a broken line shall not cost what was made of the file when it was whole
    digests = _digests(stage, run, n)
    said = settings(stage.name, run, n)
    first = os.environ.get("RANK", "0") == "0"
    if first:
        _clear_other_work(stage, run, n, digest([digests, said]))
    started = time.monotonic()
    counts = importlib.import_module(f"training.stages.{stage.module}").run(run, n)
    record = {
        "stage": stage.name,
        "round": n,
        "seconds": round(time.monotonic() - started, 1),
        "counts": counts,
        "inputs": digests,
        "settings": said,
        "recipe": run.recipe.hash,
        "versions": versions(),
    }
    if first:
        write_json(stage.record(run, n), record)
        delete_parts(run.round(n))
    return record


def command(name: str) -> None:
    """What `python -m training.NAME RUN ROUND` does."""
    parser = argparse.ArgumentParser(prog=f"python -m training.stages.{BY_NAME[name].module}")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("round", type=int, help="the round, 1 for the one that makes M1")
    args = parser.parse_args()
    if "RANK" in os.environ:
        end_with_parent()  # the launcher
    run = Run.open(args.run)
    if not 0 <= args.round <= run.rounds:
        raise UserError(f"round {args.round}: this run has rounds 1 to {run.rounds}")
    execute(BY_NAME[name], run, args.round)


def end_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def needs(stage: Stage, run: Run, n: int) -> None:
    """Raises UserError naming the round that has to be done first, if a file of it is missing."""
    for path in inputs(stage.name, run, n):
        if path.name == "lineage.json" or path.exists():
            continue
        where = path.relative_to(run.folder).parts[0]
        before = f"M{where[1:]}" if where.startswith("M") else where
        raise UserError(
            f"round {n}, {stage.name}: {path} is missing; do what makes {before} first (leave out --rounds)"
        )


def versions() -> dict[str, str]:
    """The libraries that are installed."""
    dists = importlib.metadata.distributions()
    found = {dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in dists}
    return {name: found[name] for name in LIBRARIES if name in found}


def _digests(stage: Stage, run: Run, n: int) -> dict[str, str]:
    return {str(path.relative_to(run.folder)): file_digest(path) for path in inputs(stage.name, run, n)}


def _clear_other_work(stage: Stage, run: Run, n: int, key: str) -> None:
    """Deletes what an unfinished or earlier try left that was made from something else."""
    mark = run.round(n) / f".{stage.name}.key"
    if mark.is_file() and mark.read_text(encoding="utf-8") != key:
        for path in stage.paths(run, n):
            path.unlink(missing_ok=True)
        if stage.work:
            shutil.rmtree(run.folder / stage.work.format(n=n), ignore_errors=True)
    stage.record(run, n).unlink(missing_ok=True)
    write_text(mark, key)


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """{"sft": {"batch": 32}} as {"sft.batch": 32}."""
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{above}{name}.") if isinstance(entry, dict) else {f"{above}{name}": entry}
    return flat
