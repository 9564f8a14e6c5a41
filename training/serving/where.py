"""Where a stage finds the servers that the run manages.

from training.serving.where import given, urls
urls("M1")          # ["http://127.0.0.1:20517/v1", ...]
"""

from __future__ import annotations

import json
import os

from ske_models.errors import UserError
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.settings.judge import OpenAIJudge

VARIABLE = "SKE_SERVED"  # set for the stages of a run: JSON, {"M1": [base URLs]}
JUDGE = "judge"  # what the servers of the recipe's judge are called
ALONE = ""  # what a stage wants that must have the GPUs and the memory for itself


def given() -> dict[str, list[str]]:
    """Base URLs by the name of what is served: a checkpoint ("M1"), or JUDGE."""
    return json.loads(os.environ.get(VARIABLE, "{}"))


def urls(name: str) -> list[str]:
    """The base URLs of one model. Raises UserError if it is not served."""
    found = given()
    if name not in found:
        raise UserError(
            f"{name}: is served by the run itself; start the stage by python -m training.stage, or the run "
            "by training/round.py"
        )
    return found[name]


def of_judge(recipe: Recipe) -> str | None:
    """What a stage that prompts the recipe's judge wants: its servers, if the run manages some."""
    return JUDGE if isinstance(recipe.judge, OpenAIJudge) and recipe.judge.serve else None


def of_checkpoint(folder: RunFolder, n: int) -> str | None:
    """What a stage that prompts M`n` wants: its servers, or the machine for itself where it loads M`n`.

    None, where servers that somebody else has started are prompted: it does not matter.
    """
    generation = folder.recipe.generation
    if generation.serve:
        return f"M{n}"
    return None if generation.endpoints else ALONE
