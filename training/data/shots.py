"""Few-shot examples for M0, which has not learned the steps yet; later checkpoints are asked zero-shot.

from training.data.shots import load
load("shots.yaml").steps[0].knowledge

The file has two lists: `steps` (question, knowledge, reasoning) for `synthesize`, and `ask` (passage,
question) for questions that are written from passages.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from ske_models.errors import UserError
from ske_models.fingerprint import digest
from ske_models.yaml_data import load_with_lines
from training.recipe import FOLDER
from training.run_folder import RunFolder
from training.settings.errors import explain
from training.settings.paths import file_at

Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepShot(_Strict):
    """A question, what must be known, and the reasoning down to the answer."""

    question: Text
    knowledge: Text
    reasoning: Text


class AskShot(_Strict):
    """A passage, and a question about what it teaches."""

    passage: Text
    question: Text


class Shots(_Strict):
    """A file of examples; none at all is the zero-shot case."""

    steps: list[StepShot] = []
    ask: list[AskShot] = []

    @property
    def hash(self) -> str:
        """16 hex digits of the content."""
        return digest(self.model_dump())


def load(name: str | None) -> Shots:
    """The examples of a file, by its path, or by its name in `training/recipes`. None: no examples.

    Raises UserError: no such file, not YAML, an entry missing, unknown or empty.
    """
    if name is None:
        return Shots()
    path = file_at(name) or file_at(str(FOLDER / name))
    if path is None:
        raise UserError(f"generation.shots: {name}: no such file, neither here nor in {FOLDER}")
    content, lines = load_with_lines(path, str(path))
    try:
        return Shots.model_validate(content)
    except ValidationError as error:
        said = explain(str(path), content, lines, error.errors()[0], "training/recipes/shots.yaml")
        raise UserError(
            f"{said}; `steps` has question, knowledge and reasoning, `ask` passage and question"
        ) from error


def of_round(folder: RunFolder, n: int) -> dict[str, str]:
    """What a record says of the examples of round `n`: only M0, which writes in round 1, is shown some."""
    return {"shots": load(folder.recipe.generation.shots if n == 1 else None).hash}
