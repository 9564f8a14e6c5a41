"""lm-eval's `vllm` backend, with both steps of the method in one run of its engine (engines/vllm.py).

    lm_eval --model ske_explicit --model_args backend=vllm,pretrained=ORG/NAME --tasks ske_mmlu

What is sent, and how it is read, stays lm-eval's (0.4.13, `models/vllm_causallms.py`, `generate_until`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lm_eval.models.utils import maybe_truncate, postprocess_generated_text
from lm_eval.models.vllm_causallms import VLLM
from pydantic import ValidationError
from tqdm import tqdm
from vllm import SamplingParams

from ske_models.engines.vllm import VLLMRun
from ske_models.errors import UserError
from ske_models.lm_eval.continuous import Continuous, surely_fits
from ske_models.loops import DETECTION
from ske_models.records import Done, Request


def refusal(error: Exception, cause: str | None) -> str | None:
    """One line of why vLLM has not loaded a model, where its own first line does not say it; else None.

    cause: the last error in the log of its processes. "See root cause above" does not help in one line.
    """
    if isinstance(error, ValidationError):  # whose own first line does not say why
        return str(error.errors()[0]["msg"]).splitlines()[0]
    return cause if "Engine core initialization failed" in str(error) else None


class ContinuousVLLM(VLLM, Continuous):
    """The backend, with lm-eval's arguments but `data_parallel_size`, whose engines live for one call."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known_settings: dict[str, tuple[dict[str, Any], list[str], int, str]] = {}  # by their JSON

    def end_loops(self) -> None:
        try:
            from vllm.sampling_params import RepetitionDetectionParams
        except ImportError as error:
            raise UserError(f"stop_loops=True: this vLLM has no repetition detection ({error})") from error
        self.detection, self.stop_loops = RepetitionDetectionParams(**DETECTION), True

    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        run = VLLMRun(self.model, self._prepared, self._cut, self.lora_request)
        with tqdm(desc="Running requests", disable=quiet or self.rank != 0) as bar:
            return run.write(requests, done, bar)

    def cut_to(self, request: Request) -> int | None:
        room = self.max_length - self._settings(request)[2]
        if room < 1:
            raise UserError(
                f"{request.limit} tokens may be written, but the model has room for {self.max_length}, "
                f"prompt included (step {request.step}); lower the limit, or raise max_model_len"
            )
        if surely_fits(request.prompt, room):
            return None
        return room if len(self.tok_encode(request.prompt)) > room else None

    def _settings(self, request: Request) -> tuple[dict[str, Any], list[str], int, str]:
        """(vLLM's settings, stop strings, token limit, end of text), as lm-eval reads a task's."""
        key = json.dumps(request.settings, sort_keys=True)
        if key not in self._known_settings:
            self._known_settings[key] = self._read_settings(request)
        return self._known_settings[key]

    def _read_settings(self, request: Request) -> tuple[dict[str, Any], list[str], int, str]:
        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        settings, until, limit = self.modify_gen_kwargs(
            dict(request.settings), eos=eos, default_max_gen_toks=self.max_gen_toks
        )
        if not request.settings.get("do_sample"):
            # who says nothing of sampling means greedy, as in lm-eval's other backends; vLLM's default is 1
            settings.setdefault("temperature", 0.0)
        return settings, until, limit, eos

    def _prepared(self, request: Request) -> tuple[list[int], SamplingParams]:
        settings, until, limit, eos = self._settings(request)
        tokens, limit = maybe_truncate(
            self.tok_encode(request.prompt), limit, self.max_length, side=self.truncation_side
        )
        # a stop string may stand in a text's thinking, which `_cut` takes away first
        stop = [text for text in until if text == eos] if self.think_end_token else until
        if self.stop_loops:
            settings = {**settings, "repetition_detection": self.detection}
        return tokens, SamplingParams(max_tokens=limit, stop=stop, **settings)

    def _cut(self, request: Request, text: str) -> str:
        return postprocess_generated_text(text, self._settings(request)[1], self.think_end_token)
