"""The stages of a round, a file per stage, named like the stage; and what each of them says about itself.

from training.stages import mix
mix.STAGE.inputs(folder, 2)      # the files that the stage `mix` of round 2 reads

`training/stage.py` lists them and runs them. A stage's file is imported to see what is done, which must not
take seconds: so it imports torch, lm-eval and the like only where it uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.run_folder import RunFolder
from training.settings.paths import file_at

# What changes how fast a text comes, or what it may cost, but not the text.
NOT_IDENTITY = {
    "endpoints", "concurrency", "timeout_s", "max_retries", "deadline_s", "max_usd", "key_env", "base_url",
    "accelerate", "per_device_batch", "save_steps", "serve", "num_concurrent", "max_wait", "timeout",
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One step of a round. Paths in `outputs` and `work` are relative to the run's folder.

    inputs(folder, n): the files that it reads in round `n`; settings(folder, n): what the recipe says to it,
    without what does not change its result. run(folder, n) does it and returns its counts; says(counts): the
    two or three figures of them that a person wants to read.
    outputs: what it leaves; a function of folder and round, where the recipe says what. work: a folder of
    unfinished work. light: needs no process of its own.
    trains: may be several processes, under `accelerate launch`.
    prompts(folder, n): the model that it prompts, of those that the run serves (training/serving/where.py);
    ALONE: it must have the GPUs for itself; None: neither.
    """

    name: str
    inputs: Callable[[RunFolder, int], list[Path]]
    settings: Callable[[RunFolder, int], dict[str, Any]]
    outputs: tuple[str, ...] | Callable[[RunFolder, int], tuple[str, ...]]
    run: Callable[[RunFolder, int], dict[str, Any]]
    says: Callable[[dict[str, Any]], str]
    work: str | None = None
    light: bool = False
    trains: bool = False
    prompts: Callable[[RunFolder, int], str | None] = lambda _folder, _n: None

    def record(self, folder: RunFolder, n: int) -> Path:
        """The file that says that it is done."""
        return folder.round(n) / f"{self.name}.json"

    def paths(self, folder: RunFolder, n: int) -> list[Path]:
        """Its outputs in round `n`."""
        names = self.outputs(folder, n) if callable(self.outputs) else self.outputs
        return [folder.path / name.format(n=n) for name in names]


def part(folder: RunFolder, *names: str) -> dict[str, Any]:
    """Sections of the recipe, without what does not change a result."""
    whole = folder.recipe.model_dump(mode="json")
    return {name: _identity(whole[name]) for name in names}


def prompting(folder: RunFolder) -> dict[str, Any]:
    """What every stage that renders prompts depends on."""
    recipe = folder.recipe
    return {"prompts": folder.prompts.hash, "layout": recipe.layout, "seed": recipe.seed}


def checkpoint_files(folder: RunFolder, k: int) -> list[Path]:
    """What changes when M`k` does: of one that the run made two files, of another M0 the whole folder."""
    here = folder.checkpoint(k)
    files = [here / "config.json", here / "lineage.json"]
    return files if k or folder.recipe.model.base else [*files, here]


def local_files(names: Iterable[str | None]) -> list[Path]:
    """Those of the names in a recipe that are files of this machine, whose content counts."""
    return [path for name in names if name is not None and (path := file_at(name)) is not None]


def _identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _identity(entry) for key, entry in value.items() if key not in NOT_IDENTITY}
    return [_identity(entry) for entry in value] if isinstance(value, list) else value
