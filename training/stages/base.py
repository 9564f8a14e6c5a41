"""Round 0, stage `base`: M0 from a base model, by SFT on instruction data, with the trainer of the rounds.

    python -m training.stage base runs/paper 0
    accelerate launch --config_file training/recipes/accelerate/fsdp2.yaml -m training.stage base runs/paper 0

The loss is on the last turn of each chat. That is the form and the loss of the rounds' examples, and it asks
nothing of a chat template, whereas a loss on all assistant turns needs one that marks them; Magpie-Pro's
chats have one turn anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import write_jsonl
from training.data.sources import chats
from training.run_folder import RunFolder
from training.serving.where import ALONE
from training.stages import Stage, local_files, part, sft


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Makes RUN/M0 and returns its counts. Raises UserError as `trainer.train` and `sources.chats` do."""
    base = folder.recipe.model.base
    if base is None or n != 0:
        raise UserError(
            "base: the recipe names an M0 (model.checkpoint) and no base model; there is nothing to do"
        )
    from accelerate import PartialState

    from training import trainer

    source = base.data
    dropped: dict[str, int] = {}
    cpu = trainer.on_cpu()
    if PartialState(cpu=cpu).is_main_process:
        found, dropped = chats(source.path, source.config, source.split, source.column, source.rows)
        rows = [
            {"id": f"{source.path}#{i}", "kind": "general", "prompt": chat[:-1], "completion": chat[-1:]}
            for i, chat in enumerate(found)
        ]
        write_jsonl(folder.round(0) / "sft.jsonl", rows)
    PartialState().wait_for_everyone()
    return trainer.train(folder, 0) | {"dropped": dropped}


def _inputs(folder: RunFolder, _n: int) -> list[Path]:
    base = folder.recipe.model.base
    return local_files([base.data.path, base.chat_template]) if base else []


STAGE = Stage(
    name="base",
    inputs=_inputs,
    settings=lambda folder, _n: part(folder, "model") | {"seed": folder.recipe.seed},
    outputs=("M{n}/config.json",),
    work="round{n}/sft",
    run=run,
    says=sft.says,
    trains=True,
    prompts=lambda _folder, _n: ALONE,
)
