"""What a run will do (`--dry-run`), what it has done (`--status`), and the counts of a stage as it ends.

python training/round.py --recipe paper --dry-run
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from rich.console import Console
from rich.table import Table

from ske_models.files import read_json
from training import domains
from training import stage as stages
from training.run_folder import RunFolder
from training.stages import base

SKIPPED = {"agreement", "histogram", "truth", "warnings"}  # the report shows them


def show(folder: RunFolder, rounds: Iterable[int]) -> None:
    """Prints counts, estimated tokens, judge cost and checkpoint sizes; loads no model."""
    from training.stages import judge, synthesize

    table = Table(title=f"recipe {folder.recipe.name} ({folder.recipe.hash}), in {folder.path}")
    for column in ("round", "questions", "texts", "tokens at most", "verdicts", "judged by", "judge tokens"):
        table.add_column(column, justify="left" if column in ("round", "judged by") else "right")
    for column in ("judge cost", "SFT examples at most", "steps at most"):
        table.add_column(column, justify="right")
    analysis = judge.estimate_texts(folder.recipe, _analysed(folder), False)
    total = analysis["usd"] or 0.0
    for n in rounds:
        written, judged = synthesize.estimate(folder.recipe, n), judge.estimate(folder.recipe, n)
        settings = folder.settings(n)
        limits = settings.mix.model_dump(exclude={"kept_as"})
        kept = folder.select(n).per_question or folder.recipe.generation.samples
        most = {"knowledge": settings.questions * kept, "reasoning": settings.questions * kept}
        first = folder.settings(1).questions * folder.recipe.generation.samples
        most |= {"scoring_knowledge": first, "scoring_reasoning": first}
        examples = sum(
            min(limit, most.get(kind, limit)) if limit is not None else most.get(kind, 0)
            for kind, limit in limits.items()
        )
        epochs = settings.epochs or folder.recipe.sft.epochs
        cost = judged.get("usd")
        total += cost or 0.0
        table.add_row(
            f"{n}: M{folder.start(n)} to M{n}",
            f"{settings.questions:,}",
            f"{written['texts']:,}",
            f"{written['output_tokens_at_most']:,}",
            f"{judged['verdicts']:,}",
            f"M{folder.writer(n)} itself" if settings.judge == "self" else folder.recipe.judge.kind,
            f"{judged['input_tokens'] + judged['output_tokens']:,}",
            "-" if cost is None else f"${cost:,.2f}",
            f"{examples:,}",
            f"{-(-examples // folder.recipe.sft.batch) * epochs:,}",
        )
    console = Console()
    console.print(table)
    size = _bytes(folder)
    console.print(
        f"checkpoints: {folder.rounds}, "
        + (f"{size / 1e9:.3f} GB each" if size else "of a size that cannot be had without the network"),
        highlight=False,
    )
    console.print(
        f"evaluation: {len(folder.recipe.evaluate.tasks)} tasks x "
        f"{len(folder.recipe.evaluate.methods)} methods x {folder.rounds + 1} checkpoints",
        highlight=False,
    )
    tokens = analysis["input_tokens"] + analysis["output_tokens"]
    console.print(
        f"analysis: {analysis['verdicts']:,} verdicts by {folder.recipe.judge.kind} at most"
        + (f", {tokens:,} tokens" if tokens else "")
        + ("" if analysis["usd"] is None else f", ${analysis['usd']:,.2f}"),
        highlight=False,
    )
    console.print(f"judge cost in all, at most: ${total:,.2f}", highlight=False)


def _analysed(folder: RunFolder) -> int:
    """The most texts that the analysis has judged: of every checkpoint and, for a judge that is a model, of
    every round that scored itself."""
    recipe = folder.recipe
    explicit = len(recipe.evaluate.tasks) if "explicit" in recipe.evaluate.methods else 0
    themselves = sum(settings.judge == "self" for settings in recipe.rounds)
    by_a_model = domains.named(recipe.judge.kind) is None
    return recipe.analysis.items * (explicit * (folder.rounds + 1) + by_a_model * themselves)


def status(folder: RunFolder) -> None:
    """Prints which stages are done."""
    table = Table(title=f"{folder.path} (recipe {folder.recipe.name}, {folder.recipe.hash})")
    table.add_column("round")
    names = [stage.name for stage in stages.STAGES if stage is not base.STAGE]
    for name in names:
        table.add_column(name, justify="center")
    left = 0
    for n in range(folder.rounds + 1):
        done = {stage.name: stages.is_done(stage, folder, n) for stage in stages.of_round(folder, n)}
        left += sum(not whole for whole in done.values())
        if "base" in done:  # M0 is made by SFT, too
            done["sft"] = done["base"]
        table.add_row(f"M{n}", *("" if name not in done else "done" if done[name] else "-" for name in names))
    Console().print(table)
    print(f"stages left: {left}" if left else "everything is done")


def show_counts(record: dict[str, Any], console: Console) -> None:
    """A line of what a stage counted, and its warnings."""
    flat = {name: value for name, value in record["counts"].items() if name not in SKIPPED}
    said = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in flat.items())
    console.print(f"  {said or 'nothing counted'} ({record['seconds']:.0f} s)")
    for warning in record["counts"].get("warnings", ()):
        console.print(f"  [yellow]warning:[/] {warning}")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(entry)}" for key, entry in value.items()) + ")"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bytes(folder: RunFolder) -> int | None:
    """The size of a checkpoint on disk; None if it cannot be had without loading it."""
    model = folder.recipe.model
    name = model.base.checkpoint if model.base else model.checkpoint
    start = domains.start(name) or folder.checkpoint(0)
    if start.is_dir():
        return sum(file.stat().st_size for file in start.glob("*.safetensors"))
    try:
        index = hf_hub_download(str(name), "model.safetensors.index.json", revision=model.revision)
    except (EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError):
        return None  # a model of one file, or no network
    return int(read_json(Path(index))["metadata"]["total_size"])
