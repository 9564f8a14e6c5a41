"""The stages of a round, in order: whether each is done, and how it is run.

    python -m training.stage synthesize runs/mine 2   # one stage of round 2, as `training/round.py` starts it

A stage that is done leaves `round2/synthesize.json`: counts, seconds, versions, and what it was made from. It
is done again if a file that it reads has changed, an edited one for example; it is refused if the recipe says
something else than it was done with. What a stage reads and follows is in its file (training/stages/).
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from ske_models.errors import UserError, one_of
from ske_models.files import file_digest, read_jsonl, write_json, write_text
from ske_models.fingerprint import digest, weights
from ske_models.store import difference
from training.data.objects import RECORD, read_object
from training.data.windows import delete_parts
from training.run_folder import RunFolder
from training.serving.servers import RunServers
from training.serving.where import given
from training.stages import Stage, agreement, base, evaluate, judge, mix, questions, select, sft, synthesize
from training.stopping import end_with_parent, one_line_when_stopped
from training.versions import versions

STAGES = tuple(m.STAGE for m in (base, questions, synthesize, judge, agreement, select, mix, sft, evaluate))
BY_NAME = {stage.name: stage for stage in STAGES}


def of_round(folder: RunFolder, n: int) -> tuple[Stage, ...]:
    """The stages of a round, in order. Round 0 has M0: its making, if it comes from a base model."""
    if n == 0:
        return (base.STAGE, evaluate.STAGE) if folder.recipe.model.base else (evaluate.STAGE,)
    absent = {base.STAGE.name} | (set() if agreement.wanted(folder, n) else {agreement.STAGE.name})
    return tuple(stage for stage in STAGES if stage.name not in absent)


def is_done(stage: Stage, folder: RunFolder, n: int) -> bool:
    """Whether a stage was done with the files as they are now.

    Raises UserError if it was done with another recipe.
    """
    file = stage.record(folder, n)
    if not file.is_file():
        return False
    record = read_record(stage, folder, n)
    said, now = _flat(record["settings"]), _flat(stage.settings(folder, n))
    if said != now:
        raise UserError(
            f"{file}: done with another recipe: {difference(said, now)}; "
            f"give another --run, or delete this file to do {stage.name} again and all that follows"
        )
    whole = all(path.exists() for path in stage.paths(folder, n))
    read, noted = _digests(stage, folder, n), record["inputs"]
    # a release before this one noted only files of the run
    others = {_name(folder, path) for path in stage.inputs(folder, n) if not _own(folder, path)}
    return whole and noted | {name: read[name] for name in others - noted.keys()} == read


def read_record(stage: Stage, folder: RunFolder, n: int) -> dict[str, Any]:
    """The record of a stage that is done. Raises UserError if it is none."""
    return read_object(stage.record(folder, n), RECORD, f"delete it to do {stage.name} again")


def execute(stage: Stage, folder: RunFolder, n: int) -> dict[str, Any]:
    """Does a stage in this process and writes its record.

    Raises UserError if something that it reads is missing or broken, before anything is deleted; or if the
    run cannot be written.

    Among the processes of `accelerate launch`, the first one writes the record.
    """
    for path in stage.inputs(folder, n):
        if path.suffix == ".jsonl" and _own(folder, path):
            read_jsonl(path)  # a broken line shall not cost what was made of the file when it was whole
    digests = _digests(stage, folder, n)
    said = stage.settings(folder, n)
    first = os.environ.get("RANK", "0") == "0"
    if first:
        try:
            _clear_other_work(stage, folder, n, digest([digests, said]))
        except OSError as error:  # a disk that is mounted to be read only
            raise UserError(
                f"{folder.round(n)}: cannot be written: {error.strerror}; do the stage in a copy of the run"
            ) from error
    started = time.monotonic()
    counts = stage.run(folder, n)
    record = {
        "stage": stage.name,
        "round": n,
        "seconds": round(time.monotonic() - started, 1),
        "counts": counts,
        "inputs": digests,
        "settings": said,
        "recipe": folder.recipe.hash,
        "versions": versions(),
    }
    if first:
        write_json(stage.record(folder, n), record)
        delete_parts(folder.round(n))
    return record


def needs(stage: Stage, folder: RunFolder, n: int) -> None:
    """Raises UserError naming the round that has to be done first, if a file of it is missing."""
    for path in stage.inputs(folder, n):
        if path.name == "lineage.json" or path.exists():
            continue
        where = path.relative_to(folder.path).parts[0]
        before = f"M{where[1:]}" if where.startswith("M") else where
        raise UserError(
            f"round {n}, {stage.name}: {path} is missing; do what makes {before} first (leave out --rounds)"
        )


def _digests(stage: Stage, folder: RunFolder, n: int) -> dict[str, str]:
    """By name, the content of what it reads. Weights and data of others are large: they are hashed once."""
    return {
        _name(folder, path): file_digest(path) if _own(folder, path) else weights(str(path))
        for path in stage.inputs(folder, n)
    }


def _own(folder: RunFolder, path: Path) -> bool:
    """Whether it is a file of the run: no checkpoint that was there before, no data that the recipe names."""
    return path.is_relative_to(folder.path) and not path.is_dir()


def _name(folder: RunFolder, path: Path) -> str:
    return str(path.relative_to(folder.path) if path.is_relative_to(folder.path) else path)


def _clear_other_work(stage: Stage, folder: RunFolder, n: int, key: str) -> None:
    """Deletes what an unfinished or earlier try left that was made from something else."""
    mark = folder.round(n) / f".{stage.name}.key"
    if mark.is_file() and mark.read_text(encoding="utf-8") != key:
        for path in stage.paths(folder, n):
            path.unlink(missing_ok=True)
        if stage.work:
            shutil.rmtree(folder.path / stage.work.format(n=n), ignore_errors=True)
    stage.record(folder, n).unlink(missing_ok=True)
    write_text(mark, key)


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """{"sft": {"batch": 32}} as {"sft.batch": 32}.

    What is off (null, false, empty) is left out: so what a release before this one could not set is off.
    """
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, dict):
            flat |= _flat(entry, f"{above}{name}.")
        elif entry is not None and entry is not False and entry != []:
            flat[f"{above}{name}"] = entry
    return flat


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.stage")
    parser.add_argument("stage", help=", ".join(BY_NAME))
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("round", type=int, help="the round, 1 for the one that makes M1")
    args = parser.parse_args()
    one_of("stage", args.stage, BY_NAME)
    if "RANK" in os.environ:
        end_with_parent()  # the launcher
    folder = RunFolder.open(args.run)
    if not 0 <= args.round <= folder.rounds:
        raise UserError(f"round {args.round}: this run has rounds 1 to {folder.rounds}")
    stage = BY_NAME[args.stage]
    wanted = stage.prompts(folder, args.round)
    if wanted and wanted not in given():  # by hand: round.py has them before it starts a stage
        with one_line_when_stopped(), RunServers(folder, partial(print, file=sys.stderr)) as servers:
            servers.use(wanted)
            sys.exit(servers.run([sys.executable, "-m", "training.stage", *sys.argv[1:]], os.environ))
    execute(stage, folder, args.round)


if __name__ == "__main__":
    main()
