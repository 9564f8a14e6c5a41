"""How many tokens per second does SFT train: ours, a plain PyTorch loop of the same work, and TRL's defaults?

    python benchmarks/sft.py                                      # TinyWorld: its recipe, model and chats
    python benchmarks/sft.py --recipe laptop --lora 0 --model DIR --data ORG/CHATS    # a real model, on a CPU
    python benchmarks/sft.py --recipe paper --model ORG/NAME --data ORG/CHATS --column messages    # on a GPU

Ours are the settings that a recipe trains with, through the functions of training/trainer.py. The loop
(benchmarks/sft_loop.py) has the same batches, precision, optimizer and schedule; that it does the same work
is seen in its losses, which are those of ours, step by step. TRL's are those of `SFTConfig()`, but for what
decides what is learned (examples per step, learning rate, longest example). Between the two: ours with one
setting of TRL's each. Every run trains a few steps of its own epoch's order; tokens are counted without
padding, and the time is that of `trainer.train()`, without checkpoints.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import as_run, interleaved, publish, ratios
from benchmarks.sft_runs import TRL_BATCH, Trained, Work, loop, ours, quiet, read, settings, trl
from ske_models import embedded
from training import recipe
from training.data.examples import order
from training.settings.sft import Sft
from training.trainer import on_cpu

OURS, LOOP, TRL = "ours", "a plain PyTorch loop", "TRL's defaults"
TRLS_LOSS = "ours, TRL's loss"
NOISE = 0.02  # relative difference of a step's loss, in bfloat16 and after some steps


def padding(lengths: Sequence[int], size: int) -> float:
    """The part of all positions that is padding, where `size` examples in a row are padded to the longest."""
    parts = [lengths[at : at + size] for at in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(part) * max(part) for part in parts)


def flops(run: Trained, length: float) -> float:
    """Of forward and backward, per token, at a mean length of examples (PaLM, arXiv:2204.02311, appendix B).

    Weights that are frozen have no gradient: 4 per parameter instead of 6.
    """
    return 4 * run.parameters + 2 * run.trained + 12 * run.width * length


def peak(bf16: bool, size: int = 2048) -> float:
    """FLOP/s of one large matrix product on this machine, the best of ten."""
    device = "cpu" if on_cpu() else "cuda"
    a = torch.rand(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def apart(ones: Sequence[Trained], others: Sequence[Trained]) -> tuple[float, float]:
    """(largest relative difference of the losses of the first steps, and of all steps)."""
    first, every = [], []
    for one, other in zip(ones, others, strict=True):
        found = [abs(a - b) / abs(b) for a, b in zip(one.losses, other.losses, strict=True)]
        first.append(found[0])
        every += found
    return max(first), max(every)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="world", help="whose `sft` are our settings")
    parser.add_argument("--lora", type=int, metavar="R", help="rank, 0: all parameters; else the recipe's")
    parser.add_argument("--model", default=str(embedded.path()), help="a checkpoint, if not the embedded one")
    parser.add_argument("--data", metavar="DATASET", help="with chats; TinyWorld's general data otherwise")
    parser.add_argument("--column", default="messages", help="of DATASET, with the chats")
    parser.add_argument("--rows", type=int, default=4_000, help="chats of an epoch, at most")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", metavar="NAME", help="write benchmarks/results/NAME.md")
    args = parser.parse_args()
    quiet()
    sft = settings(args.recipe, args.lora)
    rows, lengths = read(
        args.data, args.column, args.rows, recipe.load(args.recipe).prompts, args.model, sft.max_length
    )
    runs = _runs(sft)
    done: dict[str, list[Trained]] = {name: [] for name in runs}

    with tempfile.TemporaryDirectory() as folder:

        def one(name: str) -> None:
            how, settled = runs[name]
            turn = len(done[name])
            done[name].append(how(Work(args.model, rows, settled, args.steps, turn, Path(folder) / "work")))

        interleaved({name: partial(one, name) for name in done}, args.repeats)
    _publish({name: found[1:] for name, found in done.items()}, runs, lengths, args)


def _runs(sft: Sft) -> dict[str, tuple[Callable[[Work], Trained], Sft]]:
    """Ours, the loop, ours with each of the settings in which TRL differs, and TRL."""
    changes: dict[str, dict[str, Any]] = {
        "ours, gradient checkpointing": {"gradient_checkpointing": True},
        f"ours, {TRL_BATCH} examples at a time": {"per_device_batch": TRL_BATCH},
        "ours, TRL's attention (sdpa)": {"attention": "sdpa"},
    }
    different = {name: sft.model_copy(update=change) for name, change in changes.items()}
    found: dict[str, tuple[Callable[[Work], Trained], Sft]] = {OURS: (ours, sft)}
    if not sft.padding_free:
        found[LOOP] = (loop, sft)
    if on_cpu():
        found[TRLS_LOSS] = (partial(ours, trls_loss=True), sft)
    found |= {name: (ours, settled) for name, settled in different.items() if settled != sft}
    return found | {TRL: (trl, sft.model_copy(update={"per_device_batch": TRL_BATCH}))}


def _table(
    done: dict[str, list[Trained]],
    runs: dict[str, tuple[Callable[[Work], Trained], Sft]],
    lengths: list[int],
    best: float,
) -> list[list[str]]:
    """A row per settings. best: FLOP/s of this machine."""
    sft = runs[OURS][1]
    slowness = {name: [run.seconds / run.tokens for run in found] for name, found in done.items()}
    work = {name: [run.processor / run.tokens for run in found] for name, found in done.items()}
    shuffled = random.Random(0).sample(lengths, len(lengths))
    grouped = [lengths[i] for i in order(lengths, sft.batch, 1, "0", grouped=not sft.padding_free)]
    table = []
    for name, found in done.items():
        rate = statistics.median(run.tokens / run.seconds for run in found)
        size = runs[name][1].per_device_batch or sft.batch
        length = sum(n * n for n in lengths) / sum(lengths)
        table.append(
            [
                name,
                f"{rate:,.0f}",
                _over_ours(slowness, name),
                _over_ours(work, name),
                f"{padding(shuffled if name == TRL else grouped, size):.1%}",
                f"{1 - sum(run.tokens for run in found) / sum(run.positions for run in found):.1%}",
                f"{rate * flops(found[0], length) / best:.0%}",
                f"{1000 * statistics.median(run.prepared for run in found):.2f}",
            ]
        )
    return table


def _over_ours(slowness: dict[str, list[float]], name: str) -> str:
    middle, low, high = ratios(slowness, name, OURS)
    return "1" if name == OURS else f"{1 / middle:.2f} [{1 / high:.2f}, {1 / low:.2f}]"


def _publish(
    done: dict[str, list[Trained]],
    runs: dict[str, tuple[Callable[[Work], Trained], Sft]],
    lengths: list[int],
    args: argparse.Namespace,
) -> None:
    sft = runs[OURS][1]
    best = peak(sft.bf16)
    notes = [
        f"{args.data or 'TinyWorld'}: {len(lengths):,} chats of {statistics.mean(lengths):.0f} tokens in the "
        f"mean, {max(lengths)} at most; medians of {args.repeats} interleaved runs of {args.steps} steps of "
        f"{sft.batch} examples, and the range of the ratios.",
        f"Ours: `sft` of the recipe `{args.recipe}`, trained are "
        f"{done[OURS][0].trained / 1e6:,.1f} of {done[OURS][0].parameters / 1e6:,.1f} million parameters; "
        "examples sorted by length within groups of batches. TRL's defaults: "
        f"{TRL_BATCH} examples at a time in random order, gradient checkpointing, sdpa.",
    ]
    for other in (LOOP, TRLS_LOSS):
        if other in done:
            first, every = apart(done[OURS], done[other])
            notes.append(
                f"Losses of ours and of {other.removeprefix('ours, ')}: at most {first:.0e} apart (relative) "
                f"in the first step, {every:.0e} in all."
            )
            if every > NOISE:
                raise SystemExit(f"{other}: not the same work: its losses are up to {every:.1%} from ours")
    notes += [
        f"Share of the peak: FLOPs of the tokens without padding (6 per parameter, 4 per frozen one, and "
        f"attention), over {best / 1e12:.2f} TFLOP/s, the best of ten products of 2,048 x 2,048 matrices in "
        f"{'bfloat16' if sft.bf16 else 'float32'} on this machine.",
        *(["Not run on a GPU; padding-free attention (recipe `paper`) needs one."] if on_cpu() else []),
    ]
    publish(
        args.save or "sft",
        "How many tokens per second does SFT train: ours, a plain loop, and TRL's defaults?",
        as_run(),
        [
            *("settings", "tokens/s", "over ours", "over ours, processor time", "padding of an epoch"),
            *("padding of the timed steps", "share of the peak", "ms to prepare an example"),
        ],
        _table(done, runs, lengths, best),
        notes,
        ["trl", "transformers", "torch", "accelerate"],
        bool(args.save),
    )


if __name__ == "__main__":
    main()
