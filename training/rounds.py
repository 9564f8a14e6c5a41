"""The rounds themselves: what `training/round.py` does with its arguments.

python training/round.py --help
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ske_models.errors import UserError
from ske_models.files import write_json
from ske_models.store import difference
from training import checks, domains, launch, memory, plan, recipe
from training import stage as stages
from training.data import earlier
from training.data.objects import read_object
from training.run_folder import RunFolder, origin_of
from training.serving import servers as serving
from training.serving import where
from training.serving.servers import RunServers
from training.settings.paths import folder_at
from training.stages import Stage, agreement, base, evaluate, judge, sft

console = Console(stderr=True, highlight=False)
# What repositories have beside a checkpoint of transformers: the same weights again.
NOT_OURS = ["original/*", "consolidated*", "*.pth", "*.gguf", "*.onnx"]
PATIENCE = 20.0  # seconds; the stage of a killed command ends sooner


def main() -> None:
    """The command."""
    args = _arguments()
    wanted = recipe.load(args.recipe)
    folder = RunFolder(args.run or Path("runs") / wanted.name, wanted)
    rounds = _rounds(args.rounds, folder.rounds)
    if args.until and args.until not in stages.BY_NAME:
        raise UserError(f"--until {args.until}: no stage; one of: {', '.join(stages.BY_NAME)}")
    if args.until == base.STAGE.name and wanted.model.base is None:
        raise UserError(
            f"--until {args.until}: the recipe has an M0 (model.checkpoint) and no base model, so it has no "
            "such stage; leave it out"
        )
    if args.until == agreement.STAGE.name and not agreement.wanted(folder, rounds[-1]):
        raise UserError(
            f"--until {args.until}: round {rounds[-1]} has no such stage: it does not score itself, or "
            "analysis.self_scored is 0; leave it out"
        )
    if args.dry_run:
        checks.check(folder)
        plan.show(folder, rounds)
        return
    if args.status:
        plan.status(RunFolder.open(folder.path))
        return
    if args.push:
        from training import card

        card.check_token(args.push)
    with locked(folder.path):
        _begin(folder)
        if len(rounds) > 1 or args.until in (None, sft.STAGE.name, evaluate.STAGE.name):
            _check_memory(folder, rounds)
        _go(folder, rounds, args.until)
    if args.push:
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


def _rounds(text: str | None, available: int) -> list[int]:
    if text is None:
        return list(range(1, available + 1))
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= available:
        raise UserError(
            f"--rounds {text}: rounds 1 to {available} are in the recipe; write 2 or 1-{available}"
        )
    return list(range(first, last + 1))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the run's folder for this command and its stages. Raises UserError if another one has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise UserError(f"--run {folder}: cannot be used: {_why(error)}; give another folder") from error
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


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _begin(folder: RunFolder) -> None:
    """The recipe and M0 into the folder. What is done must have been done by this recipe.

    Raises UserError for what would stop the run hours later: what `checks.check` finds, no key, no vLLM or
    too few GPUs for the servers that it starts, no M0, one without a chat template; and for a recipe with
    another M0 than the run's.
    """
    earlier.renamed(folder)
    judge.check(folder.recipe)
    checks.check(folder)
    serving.check(folder.recipe)
    _check_start(folder)
    for n in range(folder.rounds + 1):
        for stage in stages.of_round(folder, n):
            stages.is_done(stage, folder, n)
    write_json(folder.path / "recipe.json", folder.recipe.model_dump(mode="json"))
    start = folder.checkpoint(0)
    if not folder.recipe.model.base and not (start / "config.json").is_file():
        name = folder.recipe.model.checkpoint or ""
        source = domains.start(name)
        if source is None:
            source = _download(name, folder.recipe.model.revision)
            _check_chat(source)
        start.unlink(missing_ok=True)
        start.symlink_to(source.resolve())
    write_json(folder.origin, origin_of(folder.recipe.model.model_dump()))


def _check_start(folder: RunFolder) -> None:
    """Raises UserError if M0 is there, and is another one than the recipe's."""
    file, start, now = folder.origin, folder.checkpoint(0), origin_of(folder.recipe.model.model_dump())
    if not file.is_file() or not (start / "config.json").is_file():
        return
    was = read_object(file, {}, "delete it if M0 is what the recipe says")
    if was != now:
        raise UserError(
            f"{file}: M0 is that of another recipe: {difference(was, now)}; give another --run, or delete "
            f"{start.name} and this file to do all of it again"
        )


def _check_memory(folder: RunFolder, rounds: list[int]) -> None:
    """Raises UserError if a training that is yet to be done here cannot fit."""
    base_sft = folder.recipe.model.base
    if base_sft is not None and not stages.is_done(base.STAGE, folder, 0):
        memory.check(plan.shapes_of(folder), base_sft.sft)
    if not all(stages.is_done(sft.STAGE, folder, n) for n in rounds):
        memory.check(plan.shapes_of(folder), folder.recipe.sft)


def _check_chat(folder: Path) -> None:
    """Raises UserError if there is no chat model in a folder."""
    from training.data.examples import end_of_turn, load_tokenizer

    if not (folder / "config.json").is_file():
        raise UserError(f"model.checkpoint: {folder}: no config.json in it, so no model; name another one")
    end_of_turn(load_tokenizer(str(folder)))


def _download(name: str, revision: str | None) -> Path:
    if (local := folder_at(name)) is not None:
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=NOT_OURS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.checkpoint: {name}: no such folder, and it cannot be downloaded: {reason}"
        ) from error


def _go(folder: RunFolder, rounds: list[int], until: str | None) -> None:
    started = time.monotonic()
    todo = [0, *rounds] if folder.recipe.model.base or 1 in rounds else rounds
    with RunServers(folder, _dim) as servers:
        for n in todo:
            for stage in stages.of_round(folder, n):
                _do(stage, folder, n, servers)
                if stage.name == until and (n == rounds[-1] or stage is base.STAGE):
                    say(f"stopped after {until} of round {n}; without --until it continues")
                    return
        python = [sys.executable, "-m"]
        if folder.recipe.analysis.items:
            servers.use(where.of_judge(folder.recipe))
            _process([*python, "training.reporting.analysis", str(folder.path)], "the analysis", servers)
        servers.use(where.ALONE)
        _process([*python, "training.reporting.report", str(folder.path)], "the report", servers)
    say(f"all of it took {_duration(time.monotonic() - started)}")


def _do(stage: Stage, folder: RunFolder, n: int, servers: RunServers) -> None:
    name = f"round {n}, {stage.name}"
    if stages.is_done(stage, folder, n):
        say(f"{name}: done", style="dim")
        return
    stages.needs(stage, folder, n)
    servers.use(stage.prompts(folder, n))
    say(f"{name} ...", style="dim")
    if stage.light:
        stages.execute(stage, folder, n)
    else:
        _process(_command(stage, folder, n), name, servers)
    record = stages.read_record(stage, folder, n)
    say(f"{name}: {stage.says(record['counts'])} ({_duration(record['seconds'])})")
    for warning in record["counts"].get("warnings", ()):
        say(f"warning: {warning}", style="bold yellow")


def say(text: str, style: str = "") -> None:
    """A line on stderr, as it is: no markup of a name or a path counts."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def _dim(text: str) -> None:
    say(text, style="dim")


def _duration(seconds: float) -> str:
    """12 s, or 3 min 20 s, or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60} min"


def _command(stage: Stage, folder: RunFolder, n: int) -> list[str]:
    if stage.trains:
        return launch.command(folder, n, stage.name)
    return [sys.executable, "-m", "training.stage", stage.name, str(folder.path), str(n)]


def _process(command: list[str], name: str, servers: RunServers) -> None:
    """Runs a stage; it ends when this process ends, however that happens. Raises UserError if it fails."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "LMEVAL_LOG_LEVEL": "ERROR"}
    status = servers.run(command, {**quiet, **os.environ})
    if status < 0:
        signal_ = signal.Signals(-status).name
        hint = "; too little memory, perhaps" if signal_ == "SIGKILL" else ""
        raise UserError(f"{name} was ended by {signal_}{hint}; the same command continues")
    if status:
        raise UserError(f"{name} ended with status {status}; the lines above say why")
