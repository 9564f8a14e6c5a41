"""The loss of SFT on a CPU, of the same value as TRL's: the head on some completion tokens at a time.

    python benchmarks/sft.py --recipe laptop --model DIR --data FILE     # what it is worth

TRL's own (`trl.kernels.chunked_logprob`, 1.16) is written for a GPU. On a CPU it scores the tokens of the
prompts, too, takes some twenty passes over each piece of the logits, and multiplies in float32 in the
backward pass.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from trl import SFTTrainer

from training.data.examples import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PIECE = 512  # tokens whose logits are in memory at a time


def trainer_for(model: PreTrainedModel, cpu: bool) -> type[SFTTrainer]:
    """The trainer whose loss is fast where a model is trained.

    TRL's own on a GPU, among several processes, and for models whose logits are more than the head's output
    (a cap or a scale) or whose loss has a term for the router of experts.
    """
    alone = cpu and int(os.environ.get("WORLD_SIZE", "1")) == 1
    routed = "router_aux_loss_coef" in model.config.to_dict()
    return CpuTrainer if alone and not routed and _only_head(model) else SFTTrainer


def _only_head(model: PreTrainedModel) -> bool:
    """Whether a model's logits are what its head makes of the last hidden states, and nothing else."""
    ids = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return torch.equal(logits, model.get_output_embeddings()(hidden))


class CpuTrainer(SFTTrainer):
    """TRL's trainer with the loss of this module. It logs `mean_token_accuracy`, and no entropy."""

    right = learned = 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """The sum over the completion tokens of a part of the step, over their number in the whole step."""
        labels = inputs["labels"][:, 1:]
        is_learned = labels != IGNORED
        targets = labels[is_learned]
        network = model.get_base_model() if isinstance(model, PeftModel) else model
        with self.accelerator.autocast():
            hidden = network.base_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            ).last_hidden_state[:, :-1][is_learned]
            head = network.get_output_embeddings()
            parts = [
                checkpoint(_piece, head, *piece, use_reentrant=False, preserve_rng_state=False)
                for piece in zip(hidden.split(PIECE), targets.split(PIECE), strict=True)
            ]
        self.right += int(sum(right for _, right in parts))
        self.learned += len(targets)
        total = torch.stack([loss for loss, _ in parts]).sum()
        return total / (len(targets) if num_items_in_batch is None else num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the accuracy of the tokens since the last time."""
        if self.learned:
            logs["mean_token_accuracy"] = self.right / self.learned
            self.right = self.learned = 0
        super().log(logs, start_time)


def _piece(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(summed loss, how many targets are the most likely token) of `hidden`, (tokens, width)."""
    logits = head(hidden).float()
    return cross_entropy(logits, targets, reduction="sum"), (logits.detach().argmax(1) == targets).sum()
