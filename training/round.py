"""Self-learning rounds: M0 to M1 (meta), M2, M3, M4, each a normal Hugging Face checkpoint.

    python training/round.py                                     # the default recipe, in runs/NAME
    python training/round.py --recipe my.yaml --run runs/mine --rounds 1-2 --until judge
    python training/round.py --recipe paper --dry-run            # counts, tokens, cost; loads no model
    python training/round.py --status

Given again after any stop, it continues. The stages are listed in `training/stage.py`, a file each; what they
write lies in the run's folder (`training/run_folder.py`), to be looked at, edited and continued from.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ske_models.errors import UserError
from ske_models.files import read_json, write_json
from training import domains, launch, plan, recipe
from training import stage as stages
from training.run_folder import RunFolder
from training.stages import Stage, base, judge

console = Console(stderr=True, highlight=False)
PATIENCE = 20.0  # seconds; the stage of a killed command ends sooner


def main() -> None:
    """The command."""
    args = _arguments()
    wanted = recipe.load(args.recipe)
    folder = RunFolder(args.run or Path("runs") / wanted.name, wanted)
    rounds = _rounds(args.rounds, folder.rounds)
    if args.until and args.until not in stages.BY_NAME:
        raise UserError(f"--until {args.until}: no stage; one of: {', '.join(stages.BY_NAME)}")
    if args.dry_run:
        plan.show(folder, rounds)
        return
    if args.status:
        plan.status(RunFolder.open(folder.path))
        return
    with locked(folder.path):
        _begin(folder)
        _go(folder, rounds, args.until)
    if args.push:
        from training import card

        for n in [0, *rounds] if wanted.model.base else rounds:
            card.push(folder, n, args.push)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train M1, M2, ... from M0 by self-learning rounds.")
    default = domains.DEFAULT_RECIPE
    names = ", ".join(recipe.names())
    parser.add_argument("--recipe", default=default, help=f"{names}, or a YAML file (default: {default})")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--rounds", metavar="1-4", help="which rounds (default: all of the recipe)")
    parser.add_argument("--until", metavar="STAGE", help="stop after this stage of the last round")
    parser.add_argument("--dry-run", action="store_true", help="what would be done, and what it costs")
    parser.add_argument("--status", action="store_true", help="what is done and what is left")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload checkpoints and data at the end")
    return parser.parse_args()


def _rounds(text: str | None, there: int) -> list[int]:
    if text is None:
        return list(range(1, there + 1))
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= there:
        raise UserError(f"--rounds {text}: rounds 1 to {there} are in the recipe; write 2 or 1-{there}")
    return list(range(first, last + 1))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run's folder for this command and its stages. Raises UserError if another one has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"--run {folder}: cannot be used: {error.strerror}; give another folder") from error
    with lock:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(f"--run {folder}: another command works there; wait for it") from None
                time.sleep(0.2)
        os.set_inheritable(lock.fileno(), True)
        yield


def _begin(folder: RunFolder) -> None:
    """The recipe and M0 into the folder. What is done must have been done by this recipe.

    Raises UserError for what would stop the run hours later: no such prompt set, no key, no M0, or
    one without a chat template.
    """
    judge.check(folder.recipe)
    for n in range(folder.rounds + 1):
        for stage in stages.of_round(folder, n):
            stages.is_done(stage, folder, n)
    write_json(folder.path / "recipe.json", folder.recipe.model_dump(mode="json"))
    start = folder.checkpoint(0)
    if folder.recipe.model.base or (start / "config.json").is_file():
        return
    name = folder.recipe.model.checkpoint or ""
    source = domains.start(name)
    if source is None:
        source = _download(name, folder.recipe.model.revision)
        _check_chat(source)
    start.unlink(missing_ok=True)
    start.symlink_to(source.resolve())


def _check_chat(folder: Path) -> None:
    """Raises UserError if there is no chat model in a folder."""
    from transformers import AutoTokenizer

    from training.data.examples import end_of_turn

    if not (folder / "config.json").is_file():
        raise UserError(f"model.checkpoint: {folder}: no config.json in it, so no model; name another one")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.checkpoint: {folder}: its tokenizer cannot be loaded: {reason}") from error
    end_of_turn(tokenizer)


def _download(name: str, revision: str | None) -> Path:
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model.checkpoint: {name}: no such folder, and not to be had: {reason}") from error


def _go(folder: RunFolder, rounds: list[int], until: str | None) -> None:
    if folder.recipe.model.base or 1 in rounds:
        for stage in stages.of_round(folder, 0):
            _do(stage, folder, 0)
            if stage.name == until == base.STAGE.name:
                console.print("stopped after base; without --until it goes on")
                return
    for n in rounds:
        for stage in stages.of_round(folder, n):
            _do(stage, folder, n)
            if stage.name == until and n == rounds[-1]:
                console.print(f"stopped after {until} of round {n}; without --until it goes on")
                return
    if folder.recipe.analysis.items:
        _process([sys.executable, "-m", "training.reporting.analysis", str(folder.path)], "the analysis")
    _process([sys.executable, "-m", "training.reporting.report", str(folder.path)], "the report")


def _do(stage: Stage, folder: RunFolder, n: int) -> None:
    name = f"round {n}, {stage.name}"
    if stages.is_done(stage, folder, n):
        console.print(f"[dim]{name}: done[/]")
        return
    stages.needs(stage, folder, n)
    console.print(f"[bold]{name}[/]")
    if stage.light:
        stages.execute(stage, folder, n)
    else:
        _process(_command(stage, folder, n), name)
    plan.show_counts(read_json(stage.record(folder, n)), console)


def _command(stage: Stage, folder: RunFolder, n: int) -> list[str]:
    if stage.trains:
        return launch.command(folder, n, stage.name)
    return [sys.executable, "-m", "training.stage", stage.name, str(folder.path), str(n)]


def _process(command: list[str], name: str) -> None:
    """Runs a stage; it ends when this process ends, however that happens. Raises UserError if it fails."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "LMEVAL_LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        command,
        env={**quiet, **os.environ},
        close_fds=False,  # the lock is held until the last of them has ended
        preexec_fn=stages.end_with_parent,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{name} ended with status {done.returncode}; the lines above say why")


if __name__ == "__main__":
    main()
