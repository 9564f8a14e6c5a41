"""SFT as a plain PyTorch loop: what `benchmarks/sft.py` measures the trainers against.

    from benchmarks.sft_loop import train
    train(network, dataset, config, pad)

Nothing but the work itself: batches in the dataset's order, padded to their longest example, bfloat16
autocast where the recipe has it, cross entropy over the completion tokens of the whole step, gradients
clipped, AdamW, the recipe's schedule of the learning rate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import get_scheduler

from training.data.examples import IGNORED
from training.trainer import on_cpu

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel
    from trl import SFTConfig


@dataclass(frozen=True)
class Done:
    """`losses` of the steps; `tokens` without and `positions` with padding; `seconds` of the loop."""

    losses: list[float]
    tokens: int
    positions: int
    seconds: float


def train(network: PreTrainedModel, dataset: Dataset, config: SFTConfig, pad: int) -> Done:
    """Trains one pass over a dataset of whole batches.

    config: whose batch, optimizer settings and precision are taken. pad: the id that is padded with.
    """
    device = torch.device("cpu" if on_cpu() else "cuda")
    network.to(device).train()
    accumulated, size = config.gradient_accumulation_steps, config.per_device_train_batch_size
    steps = len(dataset) // (size * accumulated)
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        weights,
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = get_scheduler(config.lr_scheduler_type, optimizer, int(config.warmup_steps), steps)
    losses, tokens, positions = [], 0, 0
    began = time.perf_counter()
    for step in range(steps):
        rows = [dataset[step * size * accumulated + i] for i in range(size * accumulated)]
        learned = sum(label != IGNORED for row in rows for label in row["labels"])
        loss = torch.zeros((), device=device)
        for at in range(0, len(rows), size):
            ids, labels, mask = _batch(rows[at : at + size], pad, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bool(config.bf16)):
                logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            flat = logits.float().flatten(0, 1), labels[:, 1:].flatten()
            part = cross_entropy(*flat, ignore_index=IGNORED, reduction="sum") / learned
            part.backward()
            loss += part.detach()
            tokens, positions = tokens + int(mask.sum()), positions + ids.numel()
        clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return Done(losses, tokens, positions, time.perf_counter() - began)


def _batch(
    rows: list[dict[str, list[int]]], pad: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, labels, mask) of examples, each (examples, longest), padded at the right."""
    ids = [torch.tensor(row["input_ids"]) for row in rows]
    padded = pad_sequence(ids, batch_first=True, padding_value=pad)
    labels = pad_sequence([torch.tensor(row["labels"]) for row in rows], True, IGNORED)
    mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
    return padded.to(device), labels.to(device), mask.to(device)
