"""What can be told of a recipe at once, before a model is loaded or anything is written.

python training/round.py --recipe my.yaml --dry-run

What one section of a recipe says by itself is checked when it is loaded (training/recipe.py); here is what
needs a file beside it.
"""

from __future__ import annotations

from training.data import chat_template, shots
from training.launch import split
from training.memory import split_of
from training.run_folder import RunFolder
from training.settings.sft import Sft
from training.stages import evaluate, mix


def check(folder: RunFolder) -> None:
    """Raises UserError for what would stop the run hours later.

    No such prompt set, examples, chat template, accelerate config or task of this project; general data that
    is to be mixed in and that nobody names; a batch that cannot be split over the processes of the config.
    """
    recipe, base = folder.recipe, folder.recipe.model.base
    assert folder.prompts  # loaded and checked
    shots.load(recipe.generation.shots)
    mix.check(recipe)
    evaluate.check(recipe)
    _check_training(recipe.sft)
    if base is not None:
        _check_training(base.sft)
        if base.chat_template is not None:
            chat_template.read(base.chat_template)


def _check_training(sft: Sft) -> None:
    split(sft.batch, sft.per_device_batch, split_of(sft).processes)
