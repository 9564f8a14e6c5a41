"""LoRA: adapters of low rank are trained, and then merged into the checkpoint that they were trained on.

    sft: {lora: {r: 16, alpha: 32}}      # in a recipe; then, as without it,
    python -m training.stage sft runs/mine 1

The adapter is peft's. M(n) is a normal checkpoint in its parent's type. The adapter is in M(n)/adapter, to be
used on the parent, which M(n)/adapter/adapter_config.json names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ske_models.errors import UserError
from ske_models.files import read_json, write_json
from training.memory import require_4bit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.settings.sft import Lora

ADAPTER = "adapter"  # the folder in a checkpoint
CONFIG = "adapter_config.json"


def quantization(lora: Lora | None) -> BitsAndBytesConfig | None:
    """How the frozen weights are loaded: as QLoRA does it (arXiv 2305.14314), or None: as they are.

    Raises UserError as `require_4bit` does.
    """
    if lora is None or not lora.load_in_4bit:
        return None
    require_4bit(lora)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def configuration(lora: Lora | None, model: PreTrainedModel) -> LoraConfig | None:
    """What peft is told. Raises UserError for a target that is no linear layer of the model."""
    if lora is None:
        return None
    if isinstance(lora.targets, list):
        head = model.get_output_embeddings()
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }
        if unknown := sorted(set(lora.targets) - linear):
            raise UserError(
                f"sft.lora.targets: {', '.join(unknown)}: no linear layer that an adapter can be on; "
                f"this model has {', '.join(sorted(linear))} (all of them: all-linear)"
            )
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )


def save_adapter(model: PeftModel, weights: dict[str, torch.Tensor], parent: str, folder: Path) -> None:
    """Writes the adapter. weights: of the whole model, by name. parent: what its config shall name."""
    model.peft_config[model.active_adapter].base_model_name_or_path = parent
    # without a look at the parent, on the hub perhaps, for a changed vocabulary: embeddings are never trained
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's form of a card, not filled in
    config = read_json(folder / CONFIG)  # peft writes a set, in another order each time
    write_json(folder / CONFIG, config | {"target_modules": sorted(config["target_modules"])})


def merged(parent: str, revision: str | None, adapter: Path) -> PreTrainedModel:
    """The parent in its own type with the adapter in its weights, each rounded once; in the CPU's memory.

    Where the training had the parent in 4 bits, the adapter is merged into the parent as it is on disk.
    """
    base = AutoModelForCausalLM.from_pretrained(parent, revision=revision, dtype="auto")
    model: Any = PeftModel.from_pretrained(base, adapter)  # the adapter in float32, and so is the sum
    return model.merge_and_unload()
