"""The runs that benchmarks/sft.py and sft_lora.py measure: some steps of SFT, by ours, a loop, or TRL.

from benchmarks.sft_runs import Work, ours
ours(Work("runs/world/M1", rows, sft, steps=10, turn=0, folder=Path("work")))
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from peft import get_peft_model
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers import ProgressCallback as Bar
from transformers.trainer_utils import SaveStrategy
from trl import SFTConfig, SFTTrainer

from benchmarks import sft_loop
from ske_models import prompts
from training import lora, recipe
from training.cpu_loss import trainer_for
from training.data import sources
from training.data.examples import encode, end_of_turn
from training.settings.sft import Lora, Sft
from training.tinyworld import chats
from training.trainer import arguments, examples, load_model, on_cpu

TRL_BATCH = SFTConfig.__dataclass_fields__["per_device_train_batch_size"].default
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Work:
    """`steps` steps with a checkpoint on `rows`, in an order by `turn`. folder: for the trainer's files."""

    model: str
    rows: Rows
    sft: Sft
    steps: int
    turn: int
    folder: Path

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's."""
        return AutoTokenizer.from_pretrained(self.model)

    def dataset(self) -> tuple[Dataset, float]:
        """(whole batches of an epoch as `training.trainer.train` orders them, seconds per example)."""
        began = time.perf_counter()
        dataset, _ = examples(
            self.tokenizer, end_of_turn(self.tokenizer), self.rows, self.sft, str(self.turn)
        )
        prepared = (time.perf_counter() - began) / len(self.rows)
        batch = self.sft.batch
        chosen = random.Random(self.turn).sample(range(len(dataset) // batch), self.steps)
        return dataset.select([i for one in chosen for i in range(one * batch, (one + 1) * batch)]), prepared


@dataclass(frozen=True)
class Trained:
    """What one run trained. `positions`: tokens and padding; `prepared`: s per example; `seconds`: all.

    processor: seconds of all threads. losses: of each step. parameters: those that a token is multiplied
    with; `trained`: how many of them are; width: layers x hidden size.
    """

    tokens: int
    positions: int
    prepared: float
    seconds: float
    processor: float
    losses: list[float]
    parameters: int
    trained: int
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


def quiet() -> None:
    """No progress bars and warnings of the libraries between the figures."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()


def read(
    data: str | None, column: str, limit: int, prompt_set: str, model: str, longest: int
) -> tuple[Rows, list[int]]:
    """(examples that are at most `longest` tokens, their lengths): of a dataset of chats, or TinyWorld's."""
    if data:
        found, _ = sources.chats(data, None, "train", column, limit)
        rows: Rows = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in found]
    else:
        rows = [
            {"prompt": chat.messages, "completion": [{"role": "assistant", "content": chat.answer}]}
            for chat in chats.make(prompts.load(prompt_set), limit, "sft")
        ]
    tokenizer = AutoTokenizer.from_pretrained(model)
    lengths = [len(ids) for ids, _ in encode(tokenizer, end_of_turn(tokenizer), rows)]
    kept = [i for i, length in enumerate(lengths) if length <= longest]
    return [rows[i] for i in kept], [lengths[i] for i in kept]


def settings(name: str, rank: int | None) -> Sft:
    """A recipe's `sft`, one epoch of it; rank: of LoRA on all linear layers, 0 to train all parameters."""
    sft = recipe.load(name).sft.model_copy(update={"epochs": 1})
    if rank is None:
        return sft
    return sft.model_copy(update={"lora": Lora(r=rank, alpha=2 * rank) if rank else None})


def ours(work: Work, trls_loss: bool = False) -> Trained:
    """As `training.trainer.train` trains; trls_loss: with TRL's loss on a CPU, too."""
    config, network = arguments(work.sft, work.folder, work.turn), load_model(work.model, None, work.sft)
    dataset, prepared = work.dataset()
    kind = SFTTrainer if trls_loss else trainer_for(network, config.use_cpu)
    trainer = kind(
        network,
        args=config,
        train_dataset=dataset,
        processing_class=work.tokenizer,
        peft_config=lora.configuration(work.sft.lora, network),
    )
    return _train(trainer, prepared)


def loop(work: Work) -> Trained:
    """The same in a plain PyTorch loop."""
    config, network = arguments(work.sft, work.folder, work.turn), load_model(work.model, None, work.sft)
    dataset, prepared = work.dataset()
    adapters = lora.configuration(work.sft.lora, network)
    set_seed(config.seed)  # as TRL does before it makes the adapters, which begin at random
    trained: Any = network if adapters is None else get_peft_model(network, adapters)
    began, processor = time.perf_counter(), time.process_time()
    done = sft_loop.train(trained, dataset, config, work.tokenizer.pad_token_id)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return Trained(done.tokens, done.positions, prepared, seconds, processor, done.losses, *_shape(trained))


def trl(work: Work) -> Trained:
    """As many steps with TRL's own defaults, its preparation of the examples included."""
    config = SFTConfig(
        output_dir=str(work.folder),
        seed=work.turn,
        gradient_accumulation_steps=work.sft.batch // TRL_BATCH,
        num_train_epochs=1,
        learning_rate=work.sft.learning_rate,
        max_length=work.sft.max_length,
        use_cpu=on_cpu(),
        report_to=[],
    )
    network = load_model(work.model, None, work.sft.model_copy(update={"attention": None}))
    rows = random.Random(work.turn).sample(work.rows, work.steps * work.sft.batch)
    dataset = Dataset.from_list(rows)
    began = time.perf_counter()
    trainer = SFTTrainer(
        network,
        args=config,
        train_dataset=dataset,
        processing_class=work.tokenizer,
        peft_config=lora.configuration(work.sft.lora, network),
    )
    return _train(trainer, (time.perf_counter() - began) / len(dataset))


def _train(trainer: SFTTrainer, prepared: float) -> Trained:
    """Trains. prepared: seconds that it took to prepare an example."""
    trainer.args.save_strategy = SaveStrategy.NO
    counting = trainer.data_collator = Counting(trainer.data_collator)
    trainer.remove_callback(Bar)
    trainer.remove_callback(PrinterCallback)
    began, processor = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return Trained(
        counting.tokens,
        counting.positions,
        prepared,
        seconds,
        processor,
        losses,
        *_shape(trainer.model),
    )


def _shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """(parameters that a token is multiplied with, those that are trained, layers x hidden size)."""
    config = model.config
    looked_up = 0 if config.tie_word_embeddings else model.get_input_embeddings().weight.numel()
    every = [value.numel() for value in model.parameters()]
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return sum(every) - looked_up, trained, config.num_hidden_layers * config.hidden_size
