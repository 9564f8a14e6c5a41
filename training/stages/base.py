"""Round 0, stage `base`: M0 from a base model, by SFT on instruction data, with the trainer of the rounds.

    python -m training.stages.base runs/paper 0
    accelerate launch --config_file training/recipes/accelerate/fsdp2.yaml -m training.stages.base runs/paper 0

The loss is on the last turn of each chat. That is the form and the loss of the rounds' examples, and it asks
nothing of a chat template, whereas a loss on all assistant turns needs one that marks them; Magpie-Pro's
chats have one turn anyway.
"""

from __future__ import annotations

from typing import Any

from accelerate import PartialState

from ske_models.errors import UserError
from ske_models.files import write_jsonl
from training.data.sources import chats
from training.run_folder import Run
from training.stages import sft


def run(run: Run, n: int) -> dict[str, Any]:
    """Makes RUN/M0 and returns its counts. Raises UserError as `training.stages.sft.run` and `sources.chats` do."""
    base = run.recipe.model.base
    if base is None or n != 0:
        raise UserError(
            "base: the recipe names an M0 (model.checkpoint) and no base model; there is nothing to do"
        )
    source = base.data
    dropped: dict[str, int] = {}
    cpu = sft.on_cpu()
    if PartialState(cpu=cpu).is_main_process:
        found, dropped = chats(source.path, source.config, source.split, source.column, source.rows)
        rows = [
            {"id": f"{source.path}#{i}", "kind": "general", "prompt": chat[:-1], "completion": chat[-1:]}
            for i, chat in enumerate(found)
        ]
        write_jsonl(run.round(0) / "sft.jsonl", rows)
    PartialState().wait_for_everyone()
    return sft.run(run, 0) | {"dropped": dropped}


if __name__ == "__main__":
    from training.stage import command

    command("base")
