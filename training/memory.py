"""What the training of a checkpoint needs of memory, computed from the shapes of its tensors alone.

    python training/round.py --recipe laptop --dry-run      # states it, in full, for LoRA and for QLoRA

A run whose training cannot fit is refused before anything is generated for it.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.yaml_data import load_yaml
from training.launch import accelerate_config
from training.settings.sft import Lora, Sft

TRAINED = 16  # bytes per trained parameter, all float32: weight, gradient, Adam's two moments
CAST = 2  # bytes per trained parameter: autocast's copy in bfloat16, which a sharded training does not keep
NF4 = 0.516  # bytes per parameter in NF4 with double quantization: 4.127 bits (arXiv 2305.14314, section 3)
KEPT, KEPT_BELOW_DROPOUT = 3, 5  # bytes per token, and per input and output of a linear layer (`activations`)
ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1}
_BLOCK = re.compile(r"\.(\d+)\.")  # model.layers.7.mlp.up_proj.weight


@dataclass(frozen=True)
class Shapes:
    """A checkpoint's tensors: name -> (type as safetensors calls it, shape)."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    @property
    def bytes(self) -> int:
        """Its size on disk, and in memory as it is."""
        return sum(math.prod(shape) * ITEM.get(kind, 4) for kind, shape in self.tensors.values())

    def linear(self, targets: str | list[str] = "all-linear") -> dict[str, tuple[int, ...]]:
        """The matrices of the blocks that an adapter would be on: name -> (outputs, inputs)."""
        found: dict[str, tuple[int, ...]] = {}
        for name, (_, shape) in self.tensors.items():
            layer = name.removesuffix(".weight").rpartition(".")[2]
            if len(shape) == 2 and _BLOCK.search(name) and (targets == "all-linear" or layer in targets):
                found[name] = shape
        return found

    @property
    def blocks(self) -> int:
        """How many blocks (transformer layers) its linear layers are in."""
        return len({match[1] for name in self.linear() if (match := _BLOCK.search(name))}) or 1


def of_folder(folder: Path) -> Shapes | None:
    """From the headers of a model's safetensors files; None if it has none that can be read.

    Those that its index names, as transformers loads it: a repository may have the same weights once more.
    """
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    index = folder / "model.safetensors.index.json"
    try:
        names = json.loads(index.read_bytes())["weight_map"].values() if index.is_file() else ()
        for path in sorted({folder / name for name in names}) or sorted(folder.glob("model*.safetensors")):
            with path.open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            header.pop("__metadata__", None)
            tensors |= {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError):
        return None  # what is broken is reported when the model is loaded
    return Shapes(tensors) if tensors else None


def fixed(shapes: Shapes, sft: Sft, shared: bool = False) -> float:
    """Bytes for weights, gradients and Adam's state, over all processes.

    shared: among processes, which then keep no CAST.

    full:  P x (TRAINED + CAST)
    LoRA:  P x (bytes on disk, or 4 without bf16) + A x (TRAINED + CAST)
    QLoRA: L x NF4 + (P - L) x (bytes on disk) + A x (TRAINED + CAST)

    P: parameters. L: those of the linear layers in the blocks. A: those of the adapters, which is the sum of
    r x (inputs + outputs) over the layers that have one.
    """
    cast = CAST if sft.bf16 and not shared else 0
    if sft.lora is None:
        return shapes.parameters * (TRAINED + cast)
    adapters = sum(sft.lora.r * sum(shape) for shape in shapes.linear(sft.lora.targets).values())
    each = shapes.bytes / shapes.parameters if sft.bf16 or sft.lora.load_in_4bit else 4
    quantized = sum(map(math.prod, shapes.linear().values())) if sft.lora.load_in_4bit else 0
    return quantized * NF4 + (shapes.parameters - quantized) * each + adapters * (TRAINED + cast)


def activations(shapes: Shapes, sft: Sft, tokens: int) -> float:
    """Bytes that the forward pass keeps for the backward pass, for the `tokens` of a process and step.

    KEPT x tokens x S, where S is the sum of inputs and outputs of all linear layers in the blocks; 5 instead
    of 3 below an adapter with dropout. With checkpointing 4 x tokens x width x (blocks + 2), and one block's
    KEPT. Measured with bfloat16 autocast and sdpa attention on SmolLM2-135M: 3.0 in full, 2.7 with LoRA, 4.6
    with dropout. The logits are computed in pieces. Eager attention keeps its scores besides: not counted.
    """
    layers = shapes.linear().values()
    kept = KEPT_BELOW_DROPOUT if sft.lora is not None and sft.lora.dropout else KEPT
    whole = kept * tokens * sum(map(sum, layers)) * (1 if sft.bf16 else 2)
    if not sft.gradient_checkpointing:
        return whole
    outside = [s for name, (_, s) in shapes.tensors.items() if len(s) == 2 and not _BLOCK.search(name)]
    width = min(map(min, outside), default=0)  # embeddings are (vocabulary, width)
    return whole / shapes.blocks + 4 * tokens * width * (shapes.blocks + 2)  # 2: the last norm


@dataclass(frozen=True)
class Split:
    """How a training is split: processes in all and per machine, and whether they share weights and state.

    cpu: the config says so. offloads: to memory that is not looked at here.
    """

    processes: int = 1
    per_machine: int = 1
    shares: bool = False
    cpu: bool = False
    offloads: bool = False


def split_of(sft: Sft) -> Split:
    """As the accelerate config says. Raises UserError if the config is missing."""
    if sft.accelerate is None:
        return Split()
    config: dict[str, Any] = load_yaml(accelerate_config(sft.accelerate), "sft.accelerate")
    inner = {**(config.get("fsdp_config") or {}), **(config.get("deepspeed_config") or {})}
    processes = int(config.get("num_processes") or 1)
    return Split(
        processes,
        max(processes // int(config.get("num_machines") or 1), 1),
        config.get("distributed_type") in ("FSDP", "DEEPSPEED"),
        bool(config.get("use_cpu")),
        bool(inner.get("fsdp_offload_params"))
        or any(inner.get(f"offload_{what}_device") not in (None, "none") for what in ("optimizer", "param")),
    )


@dataclass(frozen=True)
class Memory:
    """What this machine has: bytes per device. kind: "GPU", or "RAM" where there is none to be used."""

    kind: str
    devices: int
    each: float


def visible(cpu: bool = False) -> Memory:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves, by nvidia-smi (torch takes seconds); else the RAM."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cpu and chosen != "" and shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]  # in MiB
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        sizes = [float(line) * 2**20 for line in done.stdout.splitlines() if line.strip().isdecimal()]
        if sizes:
            return Memory("GPU", len(chosen.split(",")) if chosen else len(sizes), min(sizes))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    text = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return Memory("RAM", 1, min(total, int(text)) if text.isdecimal() else total)


@dataclass(frozen=True)
class Need:
    """Of one process, in bytes: `fixed`, and at most `activations` for `examples` of `tokens` each."""

    fixed: float
    activations: float
    examples: int
    tokens: int
    available: float
    kind: str
    offloads: bool

    @property
    def fits(self) -> bool:
        """Whether it can fit: without its activations, which are known only when the examples are."""
        return self.offloads or self.fixed <= self.available

    @property
    def may_not_fit(self) -> bool:
        """Whether it does not, if the longest examples are as long as they may be."""
        return not self.offloads and self.fixed + self.activations > self.available


def need(shapes: Shapes, sft: Sft) -> Need:
    """What one process of a training needs, and what there is here. Raises UserError as `split_of` does."""
    split = split_of(sft)
    memory = visible(split.cpu)
    examples = sft.per_device_batch or max(sft.batch // split.processes, 1)
    whole = fixed(shapes, sft, split.shares)
    share = split.processes if split.shares else 1
    there = memory.each if memory.kind == "GPU" else memory.each / split.per_machine
    kept = activations(shapes, sft, examples * sft.max_length)
    return Need(
        whole / share, kept, examples, sft.max_length, there, f"{memory.kind} per process", split.offloads
    )


def variants(sft: Sft) -> Iterable[tuple[str, Sft]]:
    """(name, settings): the training with all parameters, by LoRA and by QLoRA, else as the recipe says."""
    lora = sft.lora or Lora()
    yield "full", sft.model_copy(update={"lora": None})
    for name, four in (("LoRA", False), ("QLoRA", True)):
        yield name, sft.model_copy(update={"lora": lora.model_copy(update={"load_in_4bit": four})})


def say(shapes: Shapes, sft: Sft) -> list[str]:
    """Lines: what the training needs, in full, by LoRA and by QLoRA, and whether the recipe's fits here."""
    needs = {name: need(shapes, settings) for name, settings in variants(sft)}
    own = need(shapes, sft)
    each = ", ".join(f"{name} {found.fixed / 1e9:,.1f} GB" for name, found in needs.items())
    way = "full" if sft.lora is None else "QLoRA" if sft.lora.load_in_4bit else "LoRA"
    lines = [
        f"memory of training {_count(shapes.parameters)} parameters, per process:",
        f"  {each}",
        f"  besides at most {own.activations / 1e9:,.1f} GB for {own.examples} x {own.tokens:,} tokens; "
        f"here: {own.available / 1e9:,.1f} GB of {own.kind}",
    ]
    if not own.fits:
        lines.append(f"warning: {way} training, as the recipe says, does not fit here: a run is refused")
    elif own.may_not_fit:
        lines.append(
            f"warning: {way} training may not fit with the longest examples: lower sft.per_device_batch or "
            "sft.max_length, or set sft.gradient_checkpointing"
        )
    return lines


def _count(parameters: int) -> str:
    """8.03 billion, or 1.6 million."""
    return f"{parameters / 1e9:,.2f} billion" if parameters >= 1e8 else f"{parameters / 1e6:,.1f} million"


def require_4bit(lora: Lora | None) -> None:
    """Raises UserError if 4 bits are asked for, and there is no CUDA GPU, or no bitsandbytes."""
    if lora is None or not lora.load_in_4bit:
        return
    if visible().kind != "GPU":
        raise UserError("sft.lora.load_in_4bit: needs a CUDA GPU, and there is none here; leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("sft.lora.load_in_4bit: needs bitsandbytes; pip install bitsandbytes")


def check(shapes: Shapes | None, sft: Sft) -> None:
    """Raises UserError, saying what would fit, if a training cannot fit on the machine as it is."""
    if shapes is None:
        return
    require_4bit(sft.lora)
    found = need(shapes, sft)
    if found.fits:
        return
    others = [
        f"{name} {other.fixed / 1e9:,.1f} GB"
        for name, settings in variants(sft)
        if (other := need(shapes, settings)).fits and (name != "QLoRA" or "GPU" in other.kind)
    ]
    raise UserError(
        f"sft: training {shapes.parameters / 1e9:,.2f} billion parameters needs {found.fixed / 1e9:,.1f} GB "
        f"per process before any example, and there are {found.available / 1e9:,.1f} GB of {found.kind}; "
        + (f"what fits (sft.lora): {', '.join(others)}" if others else "take a smaller model, or more GPUs")
    )
