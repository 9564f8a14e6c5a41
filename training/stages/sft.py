"""Stage `sft`: M(n) from its start checkpoint and the SFT set of its round.

    python -m training.stage sft runs/mine 1          # round1/sft.jsonl -> M1
    accelerate launch --config_file training/recipes/accelerate/fsdp2.yaml -m training.stage sft runs/paper 1

The training itself is in `training/trainer.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data.texts import ExampleRow, rows_of
from training.run_folder import RunFolder
from training.serving.where import ALONE
from training.stages import Stage, checkpoint_files, part


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Makes RUN/M{n} and returns its counts. Raises UserError as `training.trainer.train` does."""
    rows_of(folder.round(n) / "sft.jsonl", ExampleRow)  # before seconds of imports
    from training.trainer import train

    return train(folder, n)


def says(counts: dict[str, Any]) -> str:
    """The figures that matter of a training."""
    loss = counts["loss"]
    said = f"{counts['examples']:,} examples, {counts['steps']:,} steps"
    said += f", loss {loss['first']:.2f} to {loss['last']:.2f}"
    return said + (f", {counts['too_long']:,} too long ones left out" if counts["too_long"] else "")


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    return [folder.round(n) / "sft.jsonl", *checkpoint_files(folder, folder.start(n))]


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    own = folder.settings(n).model_dump(mode="json", include={"epochs", "learning_rate", "warmup_steps"})
    return part(folder, "sft") | {"seed": folder.recipe.seed, "start": folder.start(n)} | own


STAGE = Stage(
    name="sft",
    inputs=_inputs,
    settings=_settings,
    outputs=("M{n}/config.json",),
    work="round{n}/sft",
    run=run,
    says=says,
    trains=True,
    prompts=lambda _folder, _n: ALONE,
)
