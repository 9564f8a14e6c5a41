"""What do LoRA and the training of all parameters need, on the same data and steps, and what do they learn?

    python benchmarks/sft_lora.py --recipe laptop --model DIR --data ORG/CHATS

The settings are the recipe's but for the learning rate, which each has for itself. Each runs in a process
of its own, whose peak memory has the libraries in it, too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.report import as_run, publish
from benchmarks.sft_runs import Trained, Work, ours, quiet, read, settings
from training import recipe
from training.trainer import on_cpu


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="laptop", help="whose `sft` are the settings")
    parser.add_argument("--lora", type=int, default=16, metavar="R", help="rank, on all linear layers")
    parser.add_argument("--rates", type=float, nargs=2, default=[2e-5, 2e-4], help="in full, and of LoRA")
    parser.add_argument("--model", required=True, help="a checkpoint")
    parser.add_argument("--data", metavar="DATASET", required=True, help="with chats")
    parser.add_argument("--column", default="messages", help="of DATASET, with the chats")
    parser.add_argument("--rows", type=int, default=4_000, help="chats of an epoch, at most")
    parser.add_argument("--batch", type=int, help="examples per step, if not the recipe's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/sft_lora.md")
    args = parser.parse_args()
    quiet()
    table = []
    for rank, rate in zip((0, args.lora), args.rates, strict=True):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            done, memory = pool.submit(one, args, rank, rate).result()
        ends = max(len(done.losses) // 4, 1)
        table.append(
            [
                f"LoRA, r = {rank}" if rank else "all parameters",
                f"{done.trained / 1e6:,.1f}",
                f"{rate:g}",
                f"{memory / 1e9:,.1f}",
                f"{done.tokens / done.seconds:,.0f}",
                f"{done.processor / done.tokens * 1000:,.1f}",
                f"{done.losses[0]:.3f}",
                f"{done.losses[-1]:.3f}",
                f"{statistics.mean(done.losses[:ends]):.3f}",
                f"{statistics.mean(done.losses[-ends:]):.3f}",
            ]
        )
    publish(
        "sft_lora",
        "What do LoRA and the training of all parameters need, and what do they learn?",
        as_run(),
        [
            *("trained", "million of them", "learning rate", "peak memory, GB", "tokens/s"),
            *("processor s per 1,000 tokens", "loss of the first step", "of the last"),
            *("mean of the first quarter", "of the last"),
        ],
        table,
        [
            f"{done.parameters / 1e6:,.1f} million parameters with the adapters; {args.steps} steps of "
            f"{args.batch or settings(args.recipe, 0).batch} examples, the same ones in the same order, "
            f"{done.tokens:,} tokens, one run each. The loss of a step is that of its examples, so steps "
            "differ by their examples, too.",
            f"Settings: `sft` of the recipe `{args.recipe}`. Peak memory is that of the process"
            + (" (VmHWM)." if on_cpu() else "'s tensors on the GPU."),
        ],
        ["peft", "trl", "transformers", "torch"],
        args.save,
    )


def one(args: argparse.Namespace, rank: int, rate: float) -> tuple[Trained, float]:
    """(a run, bytes at its peak)."""
    quiet()
    sft = settings(args.recipe, rank).model_copy(update={"learning_rate": rate})
    sft = sft.model_copy(update={"batch": args.batch or sft.batch})
    rows, _ = read(
        args.data, args.column, args.rows, recipe.load(args.recipe).prompts, args.model, sft.max_length
    )
    with tempfile.TemporaryDirectory() as folder:
        done = ours(Work(args.model, rows, sft, args.steps, 0, Path(folder)))
    if not on_cpu():
        return done, torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    [kilobytes] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return done, int(kilobytes) * 1024


if __name__ == "__main__":
    main()
