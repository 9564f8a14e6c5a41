"""How the training of a round is started: a process of its own, or several under `accelerate launch`.

    accelerate launch --config_file training/recipes/accelerate/fsdp2.yaml -m training.stage sft runs/paper 1

from training.launch import command
command(folder, 1, stage)
"""

from __future__ import annotations

import sys
from pathlib import Path

from ske_models.errors import UserError
from ske_models.yaml_data import load_yaml
from training.recipe import FOLDER
from training.run_folder import RunFolder
from training.settings.paths import file_at
from training.settings.sft import Sft


def settings(folder: RunFolder, n: int) -> Sft:
    """How round `n` trains: the recipe's `sft` with the round's own epochs, learning rate and warm-up."""
    if n == 0:
        assert folder.recipe.model.base is not None  # round 0 is only there to make M0 from it
        return folder.recipe.model.base.sft
    own = folder.settings(n).model_dump(
        include={"epochs", "learning_rate", "warmup_steps"}, exclude_none=True
    )
    return folder.recipe.sft.model_copy(update=own)


def command(folder: RunFolder, n: int, stage: str) -> list[str]:
    """The command line of a stage that trains. Raises UserError if the accelerate config is missing."""
    sft = settings(folder, n)
    module = ["-m", "training.stage", stage, str(folder.path), str(n)]
    if sft.accelerate is None:
        return [sys.executable, *module]
    start = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*start, "--config_file", str(accelerate_config(sft.accelerate)), *module]


def accelerate_config(name_or_path: str) -> Path:
    """A config of ours by its name, or a file. Raises UserError if there is neither."""
    ours = {path.stem: path for path in sorted((FOLDER / "accelerate").glob("*.yaml"))}
    path = ours.get(name_or_path) or file_at(name_or_path)
    if path is None:
        raise UserError(
            f"sft.accelerate: {name_or_path}: no such file, nor a config of that name ({', '.join(ours)}); "
            "`accelerate config` makes one"
        )
    if not isinstance(load_yaml(path, f"sft.accelerate: {path}"), dict):
        raise UserError(f"sft.accelerate: {path}: no config; `accelerate config` makes one")
    return path


def split(batch: int, per_device: int | None, processes: int) -> tuple[int, int]:
    """(examples a device and step, accumulation steps) of a global batch.

    Raises UserError if they cannot multiply to exactly `batch`.
    """
    size = per_device or batch // processes
    if size * processes == 0 or batch % (size * processes):
        each = f"sft.per_device_batch ({per_device}) x " if per_device else ""
        raise UserError(
            f"sft.batch: {batch} examples cannot be split evenly: it must be a multiple of "
            f"{each}processes ({processes})"
        )
    return size, batch // (size * processes)
