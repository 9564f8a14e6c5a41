"""OpenCompass' two vLLM classes, with both steps of the method in one run of vLLM's engine.

    llm = dict(type=VLLMwithChatTemplate, path="ORG/NAME")     # in a config, for `SKEExplicit`

Unlike OpenCompass 0.5.4's own they load without ray, which vLLM itself does not need. A prompt that leaves no
room for an answer loses its start, as in OpenCompass' HuggingFace classes; otherwise it would end vLLM's call
with an error. vLLM must be installed; this module is imported when a model of these classes is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opencompass.models import VLLM, VLLMwithChatTemplate
from opencompass.models.huggingface_above_v4_33 import (
    _convert_chat_messages,
    _format_with_fast_chat_template,
)
from tqdm import tqdm
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

from ske_models.engines.vllm import VLLMRun
from ske_models.opencompass.engine import Continuous
from ske_models.records import Done, Request, Settings


class _Continuous(Continuous):
    """What both classes share."""

    model: LLM
    lora_path: str | None
    max_seq_len: int

    def _load_model(self, path: str, model_kwargs: Mapping[str, Any] | None = None, *_: Any) -> None:
        self.model = LLM(path, **{"trust_remote_code": True, **(model_kwargs or {})})
        self.max_seq_len = self.model.model_config.max_model_len

    def tokens(self, prompt: Any) -> list[int]:
        """A prompt as the class' own `generate` sends it."""
        raise NotImplementedError

    def sampling(self, settings: Settings) -> SamplingParams:
        """vLLM's parameters for `max_out_len` and `stopping_criteria`, as the class' `generate` sets them."""
        raise NotImplementedError

    def write(self, requests: Sequence[Request], done: Done) -> list[str]:
        lora = LoRARequest("lora_adapter", 1, self.lora_path) if self.lora_path else None
        with tqdm(desc="Running requests") as bar:
            return VLLMRun(self.model, self._prepared, lambda _, text: text, lora).write(requests, done, bar)

    def _prepared(self, request: Request) -> tuple[list[int], SamplingParams]:
        tokens, sampling = self.tokens(request.prompt), self.sampling(request.settings)
        assert sampling.max_tokens is not None
        room = max(self.max_seq_len - sampling.max_tokens, self.max_seq_len // 2)
        self.overlong += len(tokens) > room
        return self.cut(tokens, room), sampling

    def cut(self, tokens: list[int], room: int) -> list[int]:
        """What is kept of a prompt: at most `room` tokens."""
        return tokens[-room:]


class ContinuousVLLM(_Continuous, VLLM):
    """`VLLM`: plain texts."""

    def tokens(self, prompt: Any) -> list[int]:
        return self.tokenizer.encode(prompt)

    def sampling(self, settings: Settings) -> SamplingParams:
        stop = list({*self.stop_words, *settings["stopping_criteria"]})
        return SamplingParams(
            **{**self.generation_kwargs, "max_tokens": settings["max_out_len"], "stop": stop}
        )

    def cut(self, tokens: list[int], room: int) -> list[int]:
        if self.mode == "mid" and len(tokens) > room:
            return tokens[: room // 2] + tokens[len(tokens) - room // 2 :]
        return super().cut(tokens, room)


class ContinuousVLLMChat(_Continuous, VLLMwithChatTemplate):
    """`VLLMwithChatTemplate`: conversations."""

    def tokens(self, prompt: Any) -> list[int]:
        messages = _convert_chat_messages([prompt])
        if self.fastchat_template:
            return self.tokenizer.encode(_format_with_fast_chat_template(messages, self.fastchat_template)[0])
        text = self.tokenizer.apply_chat_template(
            messages[0], add_generation_prompt=True, tokenize=False, **self.chat_template_kwargs
        )
        return self.tokenizer.encode(text, add_special_tokens=False)

    def sampling(self, settings: Settings) -> SamplingParams:
        stop = list({*self.stop_words, *settings["stopping_criteria"]})
        defaults = {"temperature": 0, "max_tokens": settings["max_out_len"], "stop": stop}
        return SamplingParams(**{**defaults, **self.generation_kwargs})
