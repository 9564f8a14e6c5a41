"""A run's folder: what lies where.

    RUN/recipe.json              the recipe as it was read
    RUN/M0 ... RUN/M4            the checkpoints (M0: a link to where it is)
    RUN/M0.json                  what the recipe calls M0
    RUN/round1/ ...              the files of a round, and STAGE.json for each stage that is done
    RUN/results/M1/              lm-eval's results of a checkpoint
    RUN/report.html              and the pictures beside it

from training.run_folder import RunFolder
RunFolder.open(Path("runs/mine")).round(1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import read_json
from ske_models.prompts import PromptSet
from ske_models.prompts import load as load_prompts
from ske_models.reply import Marks, marks_of
from training.recipe import Recipe, Round, Select, of_json


@dataclass(frozen=True)
class RunFolder:
    """A folder and the recipe that it belongs to."""

    path: Path
    recipe: Recipe

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run in a folder. Raises UserError if there is none."""
        file = path / "recipe.json"
        if not file.is_file():
            raise UserError(f"{path}: no run here; start one with python training/round.py --run {path}")
        return cls(path, of_json(read_json(file), file))

    @property
    def prompts(self) -> PromptSet:
        """The recipe's prompt set."""
        return load_prompts(self.recipe.prompts)

    @property
    def marks(self) -> Marks:
        """What a thought is told by in the texts of this run."""
        return marks_of(self.recipe.generation.think or "default")

    @property
    def origin(self) -> Path:
        """The file that says what the recipe calls M0 (`origin_of`)."""
        return self.path / "M0.json"

    @property
    def rounds(self) -> int:
        """How many rounds the recipe has."""
        return len(self.recipe.rounds)

    def round(self, n: int) -> Path:
        """The folder of round `n` (1, 2, ...), which makes M`n`. Round 0 makes M0 from a base model."""
        return self.path / f"round{n}"

    def checkpoint(self, n: int) -> Path:
        """The folder of M`n`."""
        return self.path / f"M{n}"

    def results(self, n: int) -> Path:
        """Where the evaluation of M`n` is written."""
        return self.path / "results" / f"M{n}"

    def settings(self, n: int) -> Round:
        """What the recipe says of round `n`."""
        return self.recipe.rounds[n - 1]

    def select(self, n: int) -> Select:
        """How round `n` selects."""
        return self.settings(n).select or self.recipe.select

    def start(self, n: int) -> int:
        """The checkpoint (0, 1, ...) that the SFT of round `n` starts from."""
        return 0 if self.settings(n).start == "M0" else n - 1

    def writer(self, n: int) -> int:
        """The checkpoint that writes the texts of round `n`, and judges them where `judge` is `self`."""
        return n - 1


def origin_of(model: Mapping[str, Any]) -> dict[str, str | None]:
    """What the section `model` of a recipe says of where M0 comes from, by the names of its fields."""
    base = model.get("base")
    name, said = ("model.base", base) if base else ("model", model)
    return {f"{name}.{field}": said.get(field) for field in ("checkpoint", "revision")}
