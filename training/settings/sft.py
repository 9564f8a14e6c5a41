"""The section `sft` of a recipe: how a round trains.

sft: {epochs: 2, batch: 32, learning_rate: 2.0e-4, lora: {r: 16, alpha: 32}}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from training.settings.strict import AtLeastOne, Count, Positive, Strict, Text


class Lora(Strict):
    """Adapters of low rank on frozen weights (peft). M(n) is the parent with its adapter merged into it."""

    r: AtLeastOne = 16  # rank
    alpha: Positive = 32.0  # an adapter's product counts alpha / r times
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = (
        "all-linear"  # or [q_proj, ...]
    )
    load_in_4bit: bool = False  # QLoRA: the frozen weights in NF4 meanwhile; needs a CUDA GPU


class Sft(Strict):
    """SFT, of all parameters or by LoRA. `batch` is in examples, over all processes; no packing."""

    epochs: AtLeastOne = 2
    batch: AtLeastOne = 32
    per_device_batch: AtLeastOne | None = (
        None  # without it: `batch` over the processes; the rest is accumulated
    )
    learning_rate: Positive = 2e-5
    warmup_steps: Count = 100
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_length: AtLeastOne = 4_096  # tokens; longer examples are dropped and counted
    bf16: bool = True  # autocast; what is trained is float32
    lora: Lora | None = None  # without it all parameters are trained
    save_steps: AtLeastOne = 200
    gradient_checkpointing: bool = False
    attention: Text | None = None  # transformers' attn_implementation; padding-free needs a flash one
    padding_free: bool = False
    accelerate: Text | None = None  # a config file for `accelerate launch`, or its name in recipes/accelerate
    threads: AtLeastOne | None = None  # of a CPU

    @model_validator(mode="after")
    def _flash(self) -> Sft:
        if self.padding_free and "flash" not in (self.attention or ""):
            raise ValueError(
                "padding_free needs flash attention; write `attention: flash_attention_2`, or leave it out: "
                "padding is then kept small by length"
            )
        return self

    @model_validator(mode="after")
    def _one_gpu(self) -> Sft:
        if self.lora is not None and self.lora.load_in_4bit and self.accelerate is not None:
            raise ValueError("lora.load_in_4bit is for one GPU; leave out `accelerate`, or load_in_4bit")
        return self
