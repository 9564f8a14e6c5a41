"""How many tokens a second does SFT train, with our settings and with TRL's defaults?

    python benchmarks/sft.py                                      # TinyWorld: its recipe, model and chats
    python benchmarks/sft.py --recipe paper --model ORG/NAME --data ORG/CHATS --column messages    # on a GPU

Ours are the settings that a recipe trains with, through the functions of training/trainer.py. TRL's are those
of `SFTConfig()`, but for what decides what is learned (examples a step, learning rate, longest example).
Between the two: ours with one setting of TRL's each. Every run trains a few steps of its own epoch's order;
tokens are counted without padding, and the time is that of `trainer.train()`."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback
from transformers import ProgressCallback as Bar
from trl import SFTConfig, SFTTrainer

from benchmarks.report import interleaved, publish, ratios
from ske_models import embedded, prompts
from training import recipe
from training.data import sources
from training.data.examples import encode, end_of_turn, order
from training.settings.sft import Sft
from training.tinyworld import chats
from training.trainer import arguments, examples, load_model, on_cpu

TRL, OURS = "TRL's defaults", "ours"
TRL_BATCH = SFTConfig.__dataclass_fields__["per_device_train_batch_size"].default
Rows = list[dict[str, Any]]


@dataclass
class Trained:
    """What one run trained. `positions`: tokens and padding; `prepared`: s an example; `trained`: s.

    parameters: those that a token is multiplied with; width: layers x hidden size.
    """

    tokens: int
    positions: int
    prepared: float
    trained: float
    parameters: int
    width: int


class Counting:
    """A collator that counts the tokens and the positions of the batches that it makes."""

    def __init__(self, collate: Callable[[Any], dict[str, torch.Tensor]]) -> None:
        self.collate = collate
        self.tokens = self.positions = 0

    def __call__(self, features: Any) -> dict[str, torch.Tensor]:
        """The batch. One without a mask (padding-free) has no padding."""
        batch = self.collate(features)
        self.positions += batch["input_ids"].numel()
        mask = batch.get("attention_mask")
        self.tokens += batch["input_ids"].numel() if mask is None else int(mask.sum())
        return batch


def train(trainer: SFTTrainer, prepared: float) -> Trained:
    """Trains. prepared: seconds that it took to prepare an example."""
    counting = trainer.data_collator = Counting(trainer.data_collator)
    trainer.remove_callback(Bar)
    trainer.remove_callback(PrinterCallback)
    began = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - began
    config = trainer.model.config
    looked_up = 0 if config.tie_word_embeddings else trainer.model.get_input_embeddings().weight.numel()
    parameters = trainer.model.num_parameters() - looked_up
    width = config.num_hidden_layers * config.hidden_size
    return Trained(counting.tokens, counting.positions, prepared, trained, parameters, width)


def ours(
    model: str, tokenizer: PreTrainedTokenizerBase, rows: Rows, sft: Sft, steps: int, turn: int, work: Path
) -> Trained:
    """`steps` steps of an epoch as `training.trainer.train` trains it."""
    config, network = arguments(sft, work, turn), load_model(model, None, sft)
    began = time.perf_counter()
    dataset, _ = examples(tokenizer, end_of_turn(tokenizer), rows, sft, str(turn))
    prepared = (time.perf_counter() - began) / len(rows)
    dataset = dataset.select(drawn(len(dataset) // sft.batch, sft.batch, steps, turn))
    trainer = SFTTrainer(network, args=config, train_dataset=dataset, processing_class=tokenizer)
    return train(trainer, prepared)


def trl(
    model: str, tokenizer: PreTrainedTokenizerBase, rows: Rows, sft: Sft, steps: int, turn: int, work: Path
) -> Trained:
    """As many steps with TRL's own defaults, its preparation of the examples included."""
    config = SFTConfig(
        output_dir=str(work),
        seed=turn,
        gradient_accumulation_steps=sft.batch // TRL_BATCH,
        num_train_epochs=1,
        learning_rate=sft.learning_rate,
        max_length=sft.max_length,
        use_cpu=on_cpu(),
        report_to=[],
    )
    network = load_model(model, None, sft.model_copy(update={"attention": None}))
    dataset = Dataset.from_list(random.Random(turn).sample(rows, steps * sft.batch))
    began = time.perf_counter()
    trainer = SFTTrainer(network, args=config, train_dataset=dataset, processing_class=tokenizer)
    return train(trainer, (time.perf_counter() - began) / len(dataset))


def drawn(batches: int, batch: int, steps: int, turn: int) -> list[int]:
    """Indices of the examples of `steps` whole batches out of `batches`."""
    chosen = random.Random(turn).sample(range(batches), steps)
    return [i for one in chosen for i in range(one * batch, (one + 1) * batch)]


def padding(lengths: Sequence[int], size: int) -> float:
    """The part of all positions that is padding, where `size` examples in a row are padded to the longest."""
    parts = [lengths[at : at + size] for at in range(0, len(lengths), size)]
    return 1 - sum(lengths) / sum(len(part) * max(part) for part in parts)


def flops(run: Trained, length: float) -> float:
    """Of forward and backward, a token, at a mean length of examples (PaLM, arXiv:2204.02311, appendix B)."""
    return 6 * run.parameters + 12 * run.width * length


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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="world", help="whose `sft` are our settings")
    parser.add_argument("--model", default=str(embedded.path()), help="a checkpoint, if not the embedded one")
    parser.add_argument("--data", metavar="DATASET", help="with chats; TinyWorld's general data otherwise")
    parser.add_argument("--column", default="messages", help="of DATASET, with the chats")
    parser.add_argument("--rows", type=int, default=4_000, help="chats of an epoch")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/sft.md")
    args = parser.parse_args()
    chosen = recipe.load(args.recipe)
    sft = chosen.sft.model_copy(update={"epochs": 1})
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    if args.data:
        found, _ = sources.chats(args.data, None, "train", args.column, args.rows)
        rows = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in found]
    else:
        made = chats.make(prompts.load(chosen.prompts), args.rows, "sft")
        rows = [
            {"prompt": chat.messages, "completion": [{"role": "assistant", "content": chat.answer}]}
            for chat in made
        ]
    lengths = [len(ids) for ids, _ in encode(tokenizer, end_of_turn(tokenizer), rows)]
    rows = [row for row, length in zip(rows, lengths, strict=True) if length <= sft.max_length]
    lengths = [length for length in lengths if length <= sft.max_length]
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(sft)
        done: dict[str, list[Trained]] = {name: [] for name in [*settings, TRL]}

        def one(name: str) -> None:
            turn, work = len(done[name]), Path(folder) / "work"
            how, settled = (trl, sft) if name == TRL else (ours, settings[name])
            done[name].append(how(args.model, tokenizer, rows, settled, args.steps, turn, work))

        interleaved({name: lambda name=name: one(name) for name in done}, args.repeats)
    _publish({name: found[1:] for name, found in done.items()}, settings, lengths, args)


def _settings(sft: Sft) -> dict[str, Sft]:
    """Ours, and ours with each of the settings in which TRL differs."""
    changes: dict[str, dict[str, Any]] = {
        OURS: {},
        "ours, gradient checkpointing": {"gradient_checkpointing": True},
        f"ours, {TRL_BATCH} examples at a time": {"per_device_batch": TRL_BATCH},
        "ours, TRL's attention (sdpa)": {"attention": "sdpa"},
    }
    different = {name: sft.model_copy(update=change) for name, change in changes.items()}
    return {name: found for name, found in different.items() if name == OURS or found != sft}


def _publish(
    done: dict[str, list[Trained]], settings: dict[str, Sft], lengths: list[int], args: argparse.Namespace
) -> None:
    sft = settings[OURS]
    slowness = {name: [run.trained / run.tokens for run in runs] for name, runs in done.items()}
    best = peak(sft.bf16)
    shuffled = random.Random(0).sample(lengths, len(lengths))
    table = []
    for name, runs in done.items():
        chosen = settings.get(name, sft.model_copy(update={"per_device_batch": TRL_BATCH}))
        if name == TRL:
            seen = shuffled
        else:
            seen = [lengths[i] for i in order(lengths, sft.batch, 1, "0", grouped=not sft.padding_free)]
        middle, low, high = ratios(slowness, name, OURS)
        rate = statistics.median(run.tokens / run.trained for run in runs)
        table.append(
            [
                name,
                f"{rate:,.0f}",
                "1" if name == OURS else f"{1 / middle:.2f} [{1 / high:.2f}, {1 / low:.2f}]",
                f"{padding(seen, chosen.per_device_batch or sft.batch):.1%}",
                f"{1 - sum(run.tokens for run in runs) / sum(run.positions for run in runs):.1%}",
                f"{rate * flops(runs[0], sum(n * n for n in lengths) / sum(lengths)) / best:.0%}",
                f"{1000 * statistics.median(run.prepared for run in runs):.2f}",
            ]
        )
    publish(
        "sft",
        "How many tokens a second does SFT train, with our settings and with TRL's defaults?",
        "python benchmarks/sft.py " + " ".join(sys.argv[1:]),
        [
            *("settings", "tokens/s", "over ours", "padding of an epoch", "padding of the timed steps"),
            *("share of the peak", "ms to prepare an example"),
        ],
        table,
        [
            f"{args.data or 'TinyWorld'}: {len(lengths):,} chats of {statistics.mean(lengths):.0f} tokens in "
            f"the mean, {max(lengths)} at most; medians of {args.repeats} interleaved runs of {args.steps} "
            f"steps of {sft.batch} examples, and the range of the ratios.",
            f"Ours: recipe `{args.recipe}`, examples sorted by length within groups of batches. TRL's "
            f"defaults: {TRL_BATCH} examples at a time in random order, gradient checkpointing, sdpa.",
            f"Share of the peak: FLOPs of the tokens without padding (6 a parameter, and attention), over "
            f"{best / 1e12:.2f} TFLOP/s, the best of ten products of 2,048 x 2,048 matrices in "
            f"{'bfloat16' if sft.bf16 else 'float32'} on this machine.",
            *(["Not run on a GPU; padding-free attention (recipe `paper`) needs one."] if on_cpu() else []),
        ],
        ["trl", "transformers", "torch", "accelerate"],
        args.save,
    )


if __name__ == "__main__":
    main()
