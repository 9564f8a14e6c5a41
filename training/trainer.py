"""The stages `sft` and `base` train: M(n) from a checkpoint and round{n}/sft.jsonl, by TRL's SFTTrainer.

    python -m training.stage sft runs/mine 1
    accelerate launch --config_file training/recipes/accelerate/fsdp2.yaml -m training.stage sft runs/paper 1

What is trained (all weights, or the adapters of `training/lora.py`) and Adam's state are float32, forward and
backward run under bfloat16 autocast. The loss of a step is the mean over all completion tokens of its global
batch, however that is split over processes and accumulation steps. A killed run goes on from its last whole
checkpoint (round{n}/sft) and ends with the same weights; the result is moved to RUN/M{n} in one piece, and
the checkpoints are deleted.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from trl import SFTConfig

from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from ske_models.loading import reason, require_whole
from training import card, domains, lora
from training.cpu_loss import trainer_for
from training.data.examples import IGNORED, encode, end_of_turn, load_tokenizer, order, set_template
from training.launch import settings, split
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTTrainer

    from training.settings.sft import Sft

STATE = "trainer_state.json"  # the trainer writes it last into a checkpoint
ADAM = 3  # float32 numbers per trained parameter in a checkpoint: the weight and two moments
LOGGED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy")


def train(folder: RunFolder, n: int) -> dict[str, Any]:
    """Makes RUN/M{n} and returns its counts.

    Raises UserError: no start checkpoint, one without a chat template, no example (short enough), a batch
    that cannot be split over the processes, too little disk space, a loss that is not finite.
    """
    sft, target, rows = (
        settings(folder, n),
        folder.checkpoint(n),
        read_jsonl(folder.round(n) / "sft.jsonl"),
    )
    if (target / card.LINEAGE).is_file() and (target / "config.json").is_file():
        return card.read_lineage(target)["training"]  # killed after it was done
    if sft.threads:
        torch.set_num_threads(sft.threads)
    work = folder.round(n) / "sft"
    config = arguments(sft, work, folder.recipe.seed)
    parent, revision = card.parent(folder, n)
    tokenizer = tokenizer_of(folder, n, parent, revision)
    end = end_of_turn(tokenizer)
    dataset, counts = examples(tokenizer, end, rows, sft, f"{folder.recipe.seed}-sft-{n}")
    model = load_model(parent, revision, sft)
    dtype = AutoConfig.from_pretrained(parent, revision=revision).dtype or torch.float32
    trainer = trainer_for(model, config.use_cpu)(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=lora.configuration(sft.lora, model),
    )
    trained = sum(value.numel() for value in trainer.model.parameters() if value.requires_grad)
    counts["trained_parameters"] = trained
    check_space(folder.path, work, trained, trainer.model.num_parameters(), dtype)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch(f"sft of M{n}", sft))
    trainer.train(resume_from_checkpoint=last_whole(work))

    log = _log(trainer, sft, counts["examples"])
    counts |= {"steps": trainer.state.global_step, "loss": _ends([row["loss"] for row in log])}
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        write_jsonl(work / "log.jsonl", log)
        new = folder.path / f".M{n}.new"
        shutil.rmtree(new, ignore_errors=True)
        inner = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        if sft.lora is not None:
            name = card.hub_name(folder, n) or f"M{folder.start(n)}"
            lora.save_adapter(inner, weights, name, new / lora.ADAPTER)
            inner = lora.merged(parent, revision, new / lora.ADAPTER)
            weights = inner.state_dict()
        save(inner, weights, tokenizer, end, (parent, revision), dtype, new)
        card.write_lineage(folder, n, new, counts)
        card.write(folder, n, new)
        shutil.rmtree(target, ignore_errors=True)
        new.replace(target)
        for old in work.glob("checkpoint-*"):
            shutil.rmtree(old)
        (work / "README.md").unlink(missing_ok=True)  # TRL's card of its checkpoints
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return counts


def arguments(sft: Sft, work: Path, seed: int) -> SFTConfig:
    """The trainer's settings. Joins the other processes, so it comes before the model is loaded.

    Raises UserError if the batch cannot be split over the processes, or a GPU is missing.
    """
    cpu = on_cpu()
    if sft.padding_free and cpu:
        raise UserError("sft.padding_free: needs a GPU; leave it out: padding is then kept small by length")
    per_device, accumulation = split(sft.batch, sft.per_device_batch, int(os.environ.get("WORLD_SIZE", "1")))
    return SFTConfig(
        output_dir=str(work),
        seed=seed,
        num_train_epochs=1,  # the dataset holds all epochs, in the order of training
        train_sampling_strategy="sequential",
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=accumulation,
        learning_rate=sft.learning_rate,
        lr_scheduler_type=sft.schedule,
        warmup_steps=sft.warmup_steps,
        weight_decay=sft.weight_decay,
        bf16=sft.bf16,
        gradient_checkpointing=sft.gradient_checkpointing,
        padding_free=sft.padding_free,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=sft.save_steps,
        save_total_limit=1,
        report_to=[],
    )


def on_cpu() -> bool:
    """Whether there is no GPU, or `accelerate launch` was told to leave it alone."""
    return not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"


def tokenizer_of(folder: RunFolder, n: int, parent: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer that the checkpoint will have. Raises UserError if there is none."""
    tokenizer = load_tokenizer(parent, revision)
    if n == 0:
        assert folder.recipe.model.base is not None
        set_template(tokenizer, folder.recipe.model.base.chat_template)
    return tokenizer


def load_model(parent: str, revision: str | None, sft: Sft) -> PreTrainedModel:
    """In float32; frozen weights below adapters in their own type, where autocast computes in bfloat16.

    Raises UserError if it cannot be loaded, or lacks a tensor, or cannot be loaded in 4 bits here.
    """
    # cuDNN's attention, which sdpa prefers on an H100, has NaN gradients where a padded batch is 64 tokens
    # longer than a multiple of 128 (pytorch/pytorch#196678, torch 2.11 to 2.13). With sdpa, Qwen2.5 ended in
    # NaN on just such batches, and trains since this line (benchmarks/results/laptop_gpu.md).
    torch.backends.cuda.enable_cudnn_sdp(False)
    quantization = lora.quantization(sft.lora)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            parent,
            revision=revision,
            dtype="auto" if sft.lora is not None and sft.bf16 else torch.float32,
            attn_implementation=sft.attention,
            quantization_config=quantization,
            output_loading_info=True,
        )
    except Exception as error:
        # whatever a checkpoint's files can raise, in any of the libraries that read them
        raise UserError(f"{parent}: cannot be loaded: {reason(error)}") from error
    require_whole(info, parent)
    return model


def examples(
    tokenizer: PreTrainedTokenizerBase, end: str, rows: list[dict[str, Any]], sft: Sft, seed: str
) -> tuple[Dataset, dict[str, Any]]:
    """(the examples of all epochs in the order of training, counts). Those that are too long are left out."""
    encoded = [pair for pair in encode(tokenizer, end, rows) if len(pair[0]) <= sft.max_length]
    if not encoded:
        raise UserError(
            f"sft: none of the {len(rows)} examples has at most sft.max_length = {sft.max_length} tokens; "
            "raise it, or look into sft.jsonl"
        )
    lengths = [len(ids) for ids, _ in encoded]
    indices = order(lengths, sft.batch, sft.epochs, seed, grouped=not sft.padding_free)
    counts = {
        "examples": len(encoded),
        "too_long": len(rows) - len(encoded),
        "epochs": sft.epochs,
        "seen": len(indices),
        "tokens": sum(lengths),
        "completion_tokens": sum(int((labels != IGNORED).sum()) for _, labels in encoded),
    }
    columns = {"input_ids": [ids for ids, _ in encoded], "labels": [labels for _, labels in encoded]}
    return Dataset.from_dict(columns).select(indices), counts


def check_space(folder: Path, work: Path, trained: int, parameters: int, dtype: torch.dtype) -> None:
    """Raises UserError if two of the trainer's checkpoints (a new one before the old one goes) and the result
    do not fit; checkpoints that are there already count as free.

    trained: how many of the model's `parameters` (adapters included) are trained and so in a checkpoint.
    """
    needed = trained * 2 * ADAM * 4 + parameters * dtype.itemsize
    there = sum(file.stat().st_size for file in work.rglob("*") if file.is_file()) if work.is_dir() else 0
    free = shutil.disk_usage(folder).free + there
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e9:,.1f} GB are free, {needed / 1e9:,.1f} GB are needed for two checkpoints "
            "of the training and the result; make room or give another --run"
        )


def last_whole(work: Path) -> str | None:
    """The newest checkpoint that was written to its end; what a killed run left of others is deleted."""
    whole: Path | None = None
    for folder in sorted(work.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(folder, ignore_errors=True)  # several processes may do it
            continue
        whole = whole or folder
    return str(whole) if whole else None


def save(
    model: PreTrainedModel,
    weights: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    end: str,
    start: tuple[str, str | None],
    dtype: torch.dtype,
    folder: Path,
) -> None:
    """A checkpoint like the one that it started from, in the type that has on disk, generating greedily.

    start: (checkpoint, revision) that it started from. end: the end of a turn, where it stops.
    """
    parent, revision = start
    tied = model.all_tied_weights_keys  # written once, as what they are tied to
    model.save_pretrained(
        folder, state_dict={name: value.to(dtype) for name, value in weights.items() if name not in tied}
    )
    # The trainer has changed the model's own (no cache, for one).
    config = AutoConfig.from_pretrained(parent, revision=revision, dtype=dtype)
    config.architectures = model.config.architectures
    config.pad_token_id = tokenizer.pad_token_id
    config.save_pretrained(folder)
    stops = model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    stops = [tokenizer(end, add_special_tokens=False)["input_ids"][-1], *stops, tokenizer.eos_token_id]
    stops = [stop for stop in dict.fromkeys(stops) if stop is not None]
    GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=stops if len(stops) > 1 else stops[0],
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in domains.inherited():
        if (Path(parent) / name).is_file():
            shutil.copy2(Path(parent) / name, folder / name)


class Watch(TrainerCallback):
    """A progress bar with the loss; stops the training if that is not finite."""

    def __init__(self, label: str, sft: Sft) -> None:
        self.label, self.sft = label, sft
        self.bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"{self.label}: the loss of step {state.global_step} is {logs['loss']}; lower "
                f"sft.learning_rate (now {self.sft.learning_rate:g}) or raise sft.warmup_steps "
                f"({self.sft.warmup_steps})"
            )
        if self.bar is not None:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def _ends(losses: Sequence[float]) -> dict[str, float]:
    """Means of the first and the last quarter of the steps; one step says little but its examples."""
    some = max(1, len(losses) // 4)
    return {"first": fmean(losses[:some]), "last": fmean(losses[-some:])}


def _log(trainer: SFTTrainer, sft: Sft, n_examples: int) -> list[dict[str, Any]]:
    """A row per step; `epoch` counts passes over the examples."""
    return [
        {"step": row["step"], "epoch": round(row["step"] * sft.batch / n_examples, 3)}
        | {name: row[name] for name in LOGGED}
        for row in trainer.state.log_history
        if "loss" in row
    ]
