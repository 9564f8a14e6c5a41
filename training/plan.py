"""What a run will do (`--dry-run`), and what it has done (`--status`).

python training/round.py --recipe paper --dry-run
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import disable_progress_bars
from rich.console import Console
from rich.table import Table

from training import domains, memory
from training import stage as stages
from training.recipe import SERVED, DatasetChats
from training.run_folder import RunFolder
from training.serving import servers
from training.settings.judge import OpenAIJudge
from training.settings.paths import folder_at

PER_TABLE = 4  # rounds beside each other in 80 columns
STATUS_PER_TABLE = 8
MIXED = ("knowledge", "reasoning", "scoring_knowledge", "scoring_reasoning", "general")
CONFIG = "config.json"
HUB_SECONDS = 1.0


def show(folder: RunFolder, rounds: Iterable[int]) -> None:
    """Prints counts, estimated tokens, judge cost and checkpoint sizes; loads no model.

    A column per round: so every figure is whole in 80 columns, and in a pipe. More rounds than fit there
    are more tables.
    """
    from training.stages import judge

    recipe, console = folder.recipe, _console()
    _say(console, f"recipe {recipe.name} ({recipe.hash}), in {folder.path}")
    analysis = judge.estimate_texts(recipe, sum(_analysed(folder)), False)
    columns = {n: _round(folder, n) for n in rounds}
    numbers = list(columns)
    for start in range(0, len(numbers), PER_TABLE):
        _table(console, {n: columns[n] for n in numbers[start : start + PER_TABLE]})
    if not all(column.bounded for column in columns.values()):
        _say(
            console,
            "no bound: mix.general is null, so all general data is mixed in, of sources without `rows`",
        )
    shapes = shapes_of(folder)
    each = f"{shapes.bytes / 1e9:.3f} GB each" if shapes else "of a size that is known only with the network"
    _say(console, f"checkpoints: {folder.rounds}, {each}")
    unknown = ["memory of training: known only with the network, or with the weights"]
    for line in memory.say(shapes, recipe.sft) if shapes else unknown:
        _say(console, line)
    for line in _servers(folder):
        _say(console, line)
    tasks, methods = _some(len(recipe.evaluate.tasks), "task"), _some(len(recipe.evaluate.methods), "method")
    _say(console, f"evaluation: {tasks} x {methods} x {folder.rounds + 1} checkpoints")
    tokens = analysis["input_tokens"] + analysis["output_tokens"]
    _say(
        console,
        f"analysis: {analysis['verdicts']:,} verdicts by {recipe.judge.kind} at most"
        + (f", {tokens:,} tokens" if tokens else "")
        + ("" if analysis["usd"] is None else f", ${analysis['usd']:,.2f}"),
    )
    for line in _parts(folder):
        _say(console, line)
    total = (analysis["usd"] or 0.0) + sum(column.usd or 0.0 for column in columns.values())
    # a verdict without a clear score is asked for again, and how many are cannot be known
    _say(console, f"judge cost in all, at most, if no verdict is asked for twice: ${total:,.2f}")
    if isinstance(recipe.judge, OpenAIJudge) and total > (recipe.judge.max_usd or total):
        _say(console, f"warning: judge.max_usd is {recipe.judge.max_usd:,g}: the run may stop there")


@dataclass(frozen=True)
class _Column:
    """What one round will do, at most: name of a figure -> the figure. bounded: what trains, too."""

    figures: dict[str, str]
    usd: float | None
    bounded: bool


def _round(folder: RunFolder, n: int) -> _Column:
    from training.stages import judge, synthesize

    recipe, settings = folder.recipe, folder.settings(n)
    written, judged = synthesize.estimate(recipe, n), judge.estimate(recipe, n)
    examples = _examples(folder, n)
    epochs = settings.epochs or recipe.sft.epochs
    steps = None if examples is None else -(-examples // recipe.sft.batch) * epochs
    usd = judged.get("usd")
    itself = settings.judge == "self"
    return _Column(
        {
            "from": f"M{folder.start(n)}",
            "questions": f"{settings.questions:,}",
            "texts": f"{written['texts']:,}",
            "tokens at most": f"{written['output_tokens_at_most']:,}",
            "judged by": f"M{folder.writer(n)} itself" if itself else recipe.judge.kind,
            "verdicts": f"{judged['verdicts']:,}",
            "judge tokens": f"{judged['input_tokens'] + judged['output_tokens']:,}",
            "judge cost": "-" if usd is None else f"${usd:,.2f}",
            "examples at most": "no bound" if examples is None else f"{examples:,}",
            "steps at most": "no bound" if steps is None else f"{steps:,}",
        },
        usd,
        examples is not None,
    )


def _examples(folder: RunFolder, n: int) -> int | None:
    """The most examples that the SFT set of a round can have; None if it takes all of data without `rows`."""
    from training.stages import mix

    settings, samples = folder.settings(n), folder.recipe.generation.samples
    limits = settings.mix.model_dump(include=set(MIXED))
    selected = settings.questions * (folder.select(n).per_question or samples)
    first = folder.settings(1).questions * samples
    most = {"knowledge": selected, "reasoning": selected}
    most |= {"scoring_knowledge": first, "scoring_reasoning": first}
    if limits["general"] is None:
        sources = folder.recipe.general
        rows = [s.rows if isinstance(s, DatasetChats) else -(-mix.MADE // len(sources)) for s in sources]
        if None in rows:
            return None
        most["general"] = sum(filter(None, rows))
    return sum(
        min(limit, most.get(kind, limit)) if limit is not None else most.get(kind, 0)
        for kind, limit in limits.items()
    )


def _table(console: Console, columns: dict[int, _Column]) -> None:
    table = Table()
    table.add_column("", no_wrap=True)
    for n in columns:
        table.add_column(f"M{n}", justify="right", no_wrap=True, min_width=1)
    for name in next(iter(columns.values())).figures:
        table.add_row(name, *(column.figures[name] for column in columns.values()))
    console.print(table)


def _console() -> Console:
    """As wide as the terminal; in a pipe 80 columns, of which nothing here needs more."""
    return Console(highlight=False)


def _say(console: Console, text: str) -> None:
    """A line as it is: no markup, never cut."""
    console.print(text, markup=False, soft_wrap=True)


def _servers(folder: RunFolder) -> list[str]:
    """What the run serves itself, and when."""
    recipe, lines = folder.recipe, []
    for section, serve in servers.settings(recipe).items():
        gpus = f", {serve.gpus} GPUs" if serve.gpus > 1 else ""
        of = "M0, M1, ... while each is prompted" if section == "generation" else "the judge"
        lines.append(f"servers: {serve.data_parallel} x vllm serve{gpus}, of {of}")
    if recipe.generation.serve and recipe.evaluate.backend not in SERVED:
        lines.append(
            f"warning: evaluation is not by these servers: evaluate.backend is {recipe.evaluate.backend}"
        )
    return lines


def _analysed(folder: RunFolder) -> tuple[int, int]:
    """The most texts that the analysis has judged: of every checkpoint; and, for a judge that is a model, of
    every round that scored itself, to see whether the two agree."""
    recipe = folder.recipe
    explicit = len(recipe.evaluate.tasks) if "explicit" in recipe.evaluate.methods else 0
    themselves = sum(settings.judge == "self" for settings in recipe.rounds)
    by_a_model = domains.named(recipe.judge.kind) is None
    sampled = recipe.analysis.self_scored or (recipe.analysis.items if by_a_model else 0)
    return recipe.analysis.items * explicit * (folder.rounds + 1), sampled * themselves


def _parts(folder: RunFolder) -> list[str]:
    """What the verdicts of the analysis are on: the knowledge of a text, and its reasoning."""
    recipe, (tested, own) = folder.recipe, _analysed(folder)
    items, tasks = recipe.analysis.items, _some(len(recipe.evaluate.tasks), "task")
    lines = []
    if tested:
        of = f"{items:,} items x {tasks} x {folder.rounds + 1} checkpoints"
        lines.append(f"  {2 * tested:,}: knowledge and reasoning of {of}")
    if own:
        size = recipe.analysis.self_scored or items
        of = f"{size:,} texts of each of {_some(own // size, 'round')} that score themselves"
        what = "the same" if tested else "knowledge and reasoning"
        lines.append(f"  {2 * own:,}: {what} of {of}")
    return lines


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def status(folder: RunFolder) -> None:
    """Prints which stages are done, a row per stage."""
    console = _console()
    _say(console, f"{folder.path} (recipe {folder.recipe.name}, {folder.recipe.hash})")
    rounds = range(folder.rounds + 1)
    done = {
        (stage.name, n): stages.is_done(stage, folder, n)
        for n in rounds
        for stage in stages.of_round(folder, n)
    }
    for start in range(0, len(rounds), STATUS_PER_TABLE):
        some = rounds[start : start + STATUS_PER_TABLE]
        table = Table()
        table.add_column("", no_wrap=True)
        for n in some:
            table.add_column(f"M{n}", justify="center", no_wrap=True)
        for stage in stages.STAGES:
            if any((stage.name, n) in done for n in rounds):
                words = {None: "", True: "done", False: "-"}
                table.add_row(stage.name, *(words[done.get((stage.name, n))] for n in some))
        console.print(table)
    left = sum(not whole for whole in done.values())
    _say(console, f"stages left: {left}" if left else "everything is done")


def shapes_of(folder: RunFolder) -> memory.Shapes | None:
    """The tensors of the checkpoint that the run starts from; None if they are not known without loading it.

    The hub is asked for the headers of the files, for at most `HUB_SECONDS`: a plan is there at once, also
    offline.
    """
    model = folder.recipe.model
    name = str(model.base.checkpoint if model.base else model.checkpoint)
    revision = model.base.revision if model.base else model.revision
    start = domains.start(name) or folder_at(name) or folder.checkpoint(0)
    cached = try_to_load_from_cache(name, CONFIG, revision=revision) if not start.is_dir() else None
    if start.is_dir() or isinstance(cached, str):
        return memory.of_folder(start if start.is_dir() else Path(str(cached)).parent)
    found: list[memory.Shapes] = []
    asking = threading.Thread(target=_ask_the_hub, args=(name, revision, found), daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    return found[0] if found else None


def _ask_the_hub(name: str, revision: str | None, found: list[memory.Shapes]) -> None:
    if constants.HF_HUB_OFFLINE:
        return
    disable_progress_bars()
    try:
        files = HfApi().get_safetensors_metadata(name, revision=revision, timeout=HUB_SECONDS).files_metadata
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError, ValueError):
        return  # no network, or no such model: then there is nothing to be shown
    tensors = {key: (t.dtype, tuple(t.shape)) for file in files.values() for key, t in file.tensors.items()}
    found.append(memory.Shapes(tensors))
