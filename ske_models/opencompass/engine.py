"""Any of OpenCompass' model classes (HuggingFace, vLLM, OpenAI-compatible, ...) as the pipeline's engine.

Used by the OpenCompass adapter (ske_models/opencompass/model.py). Written against OpenCompass 0.5.4, whose
HuggingFace and vLLM classes and `OpenAISDK` are replaced by those of hf.py, vllm.py and api.py beside this
file. Greedy decoding is the default of every class here; what a config says wins.
"""

from __future__ import annotations

import gc
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from opencompass.models import (
    VLLM,
    HuggingFaceBaseModel,
    HuggingFacewithChatTemplate,
    OpenAI,
    OpenAISDK,
    VLLMwithChatTemplate,
)
from opencompass.models.base import BaseModel, LMTemplateParser
from opencompass.registry import MODELS
from opencompass.utils import build_model_from_cfg
from opencompass.utils.prompt import PromptList
from safetensors import SafetensorError

from ske_models.errors import UserError
from ske_models.fingerprint import NOT_IDENTITY, fingerprint
from ske_models.loading import reason
from ske_models.method import Message
from ske_models.records import Completion, Done, Request, Settings

ROLES = {"system": "SYSTEM", "user": "HUMAN", "assistant": "BOT"}  # ours: OpenCompass'
# What is in an OpenCompass model config and has no influence on the text, besides fingerprint.NOT_IDENTITY.
NOT_IDENTITY_HERE = {
    "type", "path", "abbr", "run_cfg", "batch_size", "max_out_len", "min_out_len", "key", "org", "retry",
    "query_per_second", "rpm_verbose", "verbose", "max_workers", "openai_proxy_url", "device_map",
}  # fmt: skip


# What a broken checkpoint, or a setting with a typo, comes to in transformers, vLLM and OpenCompass
_REFUSALS = (OSError, ValueError, RuntimeError, TypeError, KeyError, AssertionError, SafetensorError)


class Continuous(ABC):
    """What takes requests while it runs: an OpenCompass class that is replaced by one of ours.

    overlong: prompts so far that were longer than the model's context, and lost their start.
    """

    overlong = 0

    @abstractmethod
    def write(self, requests: Sequence[Request], done: Done) -> Sequence[str]:
        """As `ske_models.records.Engine.generate`."""


def model_class(llm: Mapping[str, Any]) -> type[BaseModel]:
    """The class that a model config names. Raises UserError if there is none."""
    named = llm.get("type")
    found = MODELS.get(named) if isinstance(named, str) else named
    if not isinstance(found, type):
        raise UserError(f"llm=dict(type={named!r}): no model class of OpenCompass; see opencompass.models")
    return found


def identity(llm: Mapping[str, Any]) -> dict[str, Any]:
    """What the texts of this model config come from; a store belongs to that (ske_models/fingerprint.py).

    Raises UserError if `path` is no checkpoint that can be had.
    """
    found = model_class(llm)
    path = {"model" if found.is_api else "pretrained": str(llm.get("path"))}
    try:
        return fingerprint(found.__name__, _identity(llm) | path, served=found.is_api)
    except RuntimeError as error:  # ~nosuchuser
        raise UserError(f"path={llm.get('path')}: {error}") from error


def _identity(args: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in args.items() if name not in NOT_IDENTITY | NOT_IDENTITY_HERE}
    return {name: _identity(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


class OpenCompassEngine:
    """OpenCompass' model as the pipeline sees it (`ske_models.records.Engine`).

    llm: an OpenCompass model config. `batch_size`: how many prompts its class is given at once; without
    it, all (vLLM and the API classes do their own batching).
    """

    def __init__(self, llm: Mapping[str, Any]) -> None:
        self.llm = dict(llm)
        self.batch_size = llm.get("batch_size")
        self.model: Any = _build(self.llm)
        # Chat classes take turns, the others one text.
        self.chat = not isinstance(self.model.template_parser, LMTemplateParser)
        self.overlong = 0  # prompts longer than the model's context: their start is cut off
        self._accepted = inspect.signature(self.model.generate).parameters

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        if not chat:
            return messages[-1]["content"]
        return PromptList([{"role": ROLES[m["role"]], "prompt": m["content"]} for m in messages])

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        if isinstance(self.model, Continuous):
            texts = list(self.model.write(requests, done))
            self.overlong += self.model.overlong
            self.model.overlong = 0
            return texts
        # One call has one limit and one set of stop strings, and the two steps have their own.
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.settings.items())), []).append(index)
        written: dict[int, str] = {}
        for indices in groups.values():
            size = self.batch_size or len(indices)
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                prompts = [requests[index].prompt for index in batch]
                arguments = self._arguments(requests[batch[0]])
                lengths = [self.count_tokens(prompt) for prompt in prompts]  # None from an API class
                self.overlong += sum(n is not None and n > self.model.max_seq_len for n in lengths)
                with torch.no_grad():
                    texts = self.model.generate(prompts, **arguments)
                for index, text, length in zip(batch, texts, lengths, strict=True):
                    written[index] = reply = Completion(text)
                    reply.prompt_tokens = length  # else the conversation would be rendered again to count it
                    done(index, reply)
        return [written[index] for index in range(len(requests))]

    def _arguments(self, request: Request) -> dict[str, Any]:
        return {name: value for name, value in request.settings.items() if name in self._accepted}

    def count_tokens(self, text: Any) -> int | None:
        if self.model.is_api:
            return None
        if isinstance(text, str):
            return len(self.model.tokenizer.encode(text, add_special_tokens=False))
        return self.model.get_token_len(text)

    def cut_to(self, request: Request) -> int | None:
        return None  # `overlong` counts them, and the length is part of the identity

    def sampled(self, settings: Settings) -> bool:
        generation = self.llm.get("generation_kwargs") or {}
        temperature = self.llm.get("temperature") or generation.get("temperature") or 0
        return bool(generation.get("do_sample", temperature > 0))

    def unload(self) -> None:
        """Frees the model's memory, so that the next checkpoint has room."""
        self.model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


_loaded: OpenCompassEngine | None = None


def engine_for(llm: Mapping[str, Any]) -> OpenCompassEngine:
    """The engine of a model config. It stays loaded until another config is asked for in this process."""
    global _loaded  # noqa: PLW0603  (OpenCompass builds a model per entry, and has no place for what they share)
    if _loaded is None or _loaded.llm != dict(llm):
        if _loaded is not None:
            _loaded.unload()
            _loaded = None
        _loaded = OpenCompassEngine(llm)
    return _loaded


def _build(llm: dict[str, Any]) -> Any:
    """The inner model, loaded. Raises UserError if it cannot be loaded, or its backend is not installed."""
    found = model_class(llm)
    config = {name: value for name, value in llm.items() if name != "type"}
    if issubclass(found, VLLM):
        config["generation_kwargs"] = {"temperature": 0, **(config.get("generation_kwargs") or {})}
    if issubclass(found, OpenAI):
        config.setdefault("temperature", 0)
    if (config.get("generation_kwargs") or {}).get("num_return_sequences", 1) != 1:
        raise UserError("llm: num_return_sequences must be 1: the steps of a method need one text each")
    try:
        return build_model_from_cfg(config | {"type": _replaced(found, llm)})
    except UserError:
        raise
    except _REFUSALS as error:
        raise UserError(f"{found.__name__}: cannot load {llm.get('path')}: {reason(error)}") from error


def _replaced(found: type[BaseModel], llm: Mapping[str, Any]) -> type[BaseModel]:
    """Our class for one of OpenCompass'; most stay. Raises UserError if vLLM is needed and not installed."""
    if found is OpenAISDK:
        from ske_models.opencompass.api import OWN_WAY, ContinuousOpenAI

        return found if any(llm.get(name) for name in OWN_WAY) else ContinuousOpenAI
    if found in (HuggingFacewithChatTemplate, HuggingFaceBaseModel):
        from ske_models.opencompass.hf import WholeHF, WholeHFChat

        return WholeHF if found is HuggingFaceBaseModel else WholeHFChat
    if found in (VLLM, VLLMwithChatTemplate):
        require_vllm()
        from ske_models.opencompass.vllm import ContinuousVLLM, ContinuousVLLMChat

        return ContinuousVLLM if found is VLLM else ContinuousVLLMChat
    return found


def require_vllm() -> None:
    """Raises UserError if vLLM cannot be imported."""
    try:
        import vllm  # noqa: F401
    except ImportError as error:
        raise UserError(f"vLLM cannot be imported ({error}); pip install 'ske-learn[vllm]'") from error
