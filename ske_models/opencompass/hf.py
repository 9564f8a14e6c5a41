"""OpenCompass' two HuggingFace classes, for transformers 5 and for checkpoints that are whole.

    llm = dict(type=HuggingFacewithChatTemplate, path="ORG/NAME")     # in a config, for `SKEExplicit`

OpenCompass 0.5.4 calls a method of tokenizers that transformers 5 has dropped, and takes a checkpoint that
lacks tensors, which are then random numbers.
"""

from __future__ import annotations

from typing import Any

from opencompass.models import HuggingFaceBaseModel, HuggingFacewithChatTemplate
from opencompass.models.huggingface_above_v4_33 import _set_model_kwargs_torch_dtype
from transformers import AutoModelForCausalLM

from ske_models.errors import UserError
from ske_models.loading import require_whole

# The names that OpenCompass knows; any other one would be float16.
DTYPES = ("auto", "float16", "bfloat16", "float32", "float", "None")


class _Whole(HuggingFacewithChatTemplate):
    """What both classes share. Raises UserError for a checkpoint that lacks a tensor, or an unknown dtype."""

    def _load_tokenizer(self, *args: Any, **kwargs: Any) -> None:
        super()._load_tokenizer(*args, **kwargs)
        self.tokenizer.batch_encode_plus = self.tokenizer  # it was the tokenizer's own call

    def _load_model(
        self, path: str, kwargs: dict, peft_path: str | None = None, peft_kwargs: dict | None = None
    ) -> None:
        """As OpenCompass 0.5.4 loads it, and with a look at what was found."""
        settings = {"device_map": "auto", "trust_remote_code": True, **kwargs}
        given = settings.get("torch_dtype")
        if isinstance(given, str) and given.removeprefix("torch.") not in DTYPES:
            raise UserError(f"model_kwargs: torch_dtype={given}: unknown; one of: {', '.join(DTYPES)}")
        settings = _set_model_kwargs_torch_dtype(settings, path)
        self.model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **settings)
        require_whole(info, path)
        if peft_path is not None:
            from peft import PeftModel

            adapter = {**(peft_kwargs or {}), "is_trainable": False}
            self.model = PeftModel.from_pretrained(self.model, peft_path, **adapter)
        self.model.eval()
        self.model.generation_config.do_sample = False


class WholeHFChat(_Whole):
    """`HuggingFacewithChatTemplate`: conversations."""


class WholeHF(_Whole, HuggingFaceBaseModel):
    """`HuggingFaceBaseModel`: plain texts."""
