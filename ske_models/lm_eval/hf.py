"""lm-eval's `hf` backend, without waiting for the longest text of a batch, nor reading a context twice.

    lm_eval --model ske_explicit --model_args backend=hf,pretrained=ORG/NAME,dtype=float32 --tasks ske_mmlu

lm-eval (0.4.13) generates in static batches, each of which lasts as long as its longest text.
transformers has continuous batching: a finished text makes room for the next one, and a question's
second step begins when its first is there. It is used where it writes the same tokens and texts can be
long; elsewhere lm-eval's static batches, sorted by length. What is sent, and how it is read, stays
lm-eval's (`models/huggingface.py`, `generate_until`).
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from tqdm import tqdm
from transformers import LogitsProcessorList, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type

from ske_models.errors import UserError
from ske_models.lm_eval.continuous import Continuous, SharesContexts, surely_fits
from ske_models.lm_eval.paged import PAGE, paged, trial
from ske_models.lm_eval.shared_prefix import can_share, score
from ske_models.lm_eval.static import EndLoops, Row, rows
from ske_models.loading import Whole
from ske_models.loops import first_loop
from ske_models.records import Completion, Done, Request

log = logging.getLogger(__name__)

LONG = 256  # a limit from which on continuous batching is used: short texts end at about the same time anyway
SEQUENCES = 16  # at a time, if the batch size is lm-eval's default of 1, or `auto`
CHUNK = 512  # tokens of a forward pass, at most


@dataclass(frozen=True)
class _Settings:
    """How a text ends, as lm-eval reads a task's settings.

    until: what the text is cut at. stops: of that, what has to be looked for, since it is not the end token's
    text. look_back: the most tokens that one of them can have. others: what is not about the end.
    """

    limit: int
    until: list[str]
    stops: list[str]
    look_back: int
    others: dict[str, Any]


class ContinuousHF(HFLM, Continuous, SharesContexts):
    """The backend, with lm-eval's arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._shown: int | None = None
        self._rows: deque[Row] = deque()  # the texts of the static batch that is being read
        super().__init__(*args, **kwargs)
        self._why_static = self._find_why_static()
        self._tried = False  # whether continuous batching runs with this model
        self._said: str | None = None
        self._known_settings: dict[str, _Settings] = {}  # by their JSON

    @cached_property
    def max_length(self) -> int:
        """As lm-eval's, which looks it up in the model's configuration for every prompt."""
        return super().max_length

    def _create_model(self, pretrained: str, *args: Any, **kwargs: Any) -> None:
        """As lm-eval's. Raises UserError if the checkpoint lacks a tensor, for which there would be noise."""
        auto_class: Any = self.AUTO_MODEL_CLASS  # type: ignore[has-type]
        self.AUTO_MODEL_CLASS = Whole(auto_class)
        try:
            super()._create_model(pretrained, *args, **kwargs)
        finally:
            self.AUTO_MODEL_CLASS = auto_class

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **settings: Any
    ) -> torch.Tensor:
        start = context.shape[1]
        if self.backend != "causal":
            return super()._model_generate(context, max_length, stop, **settings)
        end_loops = EndLoops(start, self.eot_token_id)
        if self.stop_loops:
            settings["logits_processor"] = LogitsProcessorList([end_loops])
        found = super()._model_generate(context, max_length, stop, **settings)
        ends = {*self._ends(), self.tokenizer.pad_token_id}
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = [text for text in stop if text not in ("", eos)]

        def stopped(tokens: Sequence[int]) -> bool:
            return bool(stops) and any(text in self.tok_decode(tokens) for text in stops)

        prompts = settings["attention_mask"].sum(dim=1).tolist()
        self._rows = deque(
            rows(found[:, start:].tolist(), prompts, ends, max_length - start, stopped, end_loops.looped)
        )
        return found

    def described(self, text: str) -> str:
        return self._rows.popleft().completion(text) if self._rows else text

    def show(self, token: int) -> str:
        """A special token, which decoding leaves out, as its text: it ends a thought."""
        self._shown = token
        return self.tokenizer.decode([token])

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """As lm-eval's, but for the last of the tokens that `show` has named."""
        if self._shown is None or not skip_special_tokens or self._shown not in tokens:
            return super().tok_decode(tokens, skip_special_tokens)
        tokens = list(tokens)
        at = len(tokens) - 1 - tokens[::-1].index(self._shown)
        return "".join(
            [
                super().tok_decode(tokens[:at]),
                self.tokenizer.decode([self._shown]),
                super().tok_decode(tokens[at + 1 :]),
            ]
        )

    def suits(self, requests: Sequence[Request]) -> bool:
        """Whether continuous batching writes the same tokens, and is worth it."""
        why = self._why_static
        if why is None and not all(self._is_greedy(request) for request in requests):
            why = "settings that are not plainly greedy"
        if why is None and max(request.limit for request in requests) < LONG:
            why = f"no text can have {LONG} tokens"
        if why is None and not self._tried:
            self._tried = True
            why = self._why_static = trial(self.model, self.tok_encode("The answer is"))
        used = (
            f"static, sorted by length: {why}" if why else f"continuous, {self._at_a_time()} texts at a time"
        )
        if used != self._said:
            self._said = used
            log.info("backend=hf: batching is %s", used)
        return why is None

    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        prompts = [self._encode(request) for request in requests]
        longest = max(len(prompt) + request.limit for prompt, request in zip(prompts, requests, strict=True))
        # a later step's prompt has an earlier step's text in it
        pages = self._at_a_time() * -(-min(2 * longest, self.max_length) // PAGE)
        manager = paged(self.model, pages, CHUNK, self._at_a_time())
        manager.start()
        try:
            with tqdm(total=len(requests), desc="Running requests", disable=quiet or self.rank != 0) as bar:
                return _Run(self, manager, pages * PAGE, done, bar).write(requests, prompts)
        finally:
            manager.stop(hard_stop=True)
            manager.destroy()

    def score(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """As `loglikelihood`, up to rounding, with a question's context read once for all of its options."""
        return score(self, requests) if can_share(self) else self.loglikelihood(list(requests))

    def cut_to(self, request: Request) -> int | None:
        room = self._room(request)
        if self.backend != "causal" or surely_fits(request.prompt, room):
            return None
        return room if len(self.tok_encode(request.prompt)) > room else None

    def _at_a_time(self) -> int:
        return SEQUENCES if self.batch_size in ("auto", 1) else int(self.batch_size)

    def _find_why_static(self) -> str | None:
        """Why continuous batching is not available, or might write other tokens; None if neither is so."""
        model = self.model
        if self.backend != "causal" or not isinstance(model, PreTrainedModel):
            return "the model is no plain decoder"
        if model.dtype != torch.float32 or self.mixed_precision_dtype is not None:
            return "dtype is not float32, so the rounding depends on the batch"
        if len({parameter.device for parameter in model.parameters()}) > 1:
            return "the model is on several devices"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about prompts; here is none
            changes_logits = bool(model._get_logits_processor(copy.deepcopy(model.generation_config)))
        if changes_logits:
            return "the model's generation_config changes the logits"
        if model.config._attn_implementation not in ("eager", "sdpa"):
            return f"attn_implementation is {model.config._attn_implementation}"
        try:
            group_layers_by_attn_type(model.config.get_text_config())
        except ValueError as error:
            return str(error)
        return None

    def _settings(self, request: Request) -> _Settings:
        key = json.dumps(request.settings, sort_keys=True)
        if key not in self._known_settings:
            found = normalize_gen_kwargs(dict(request.settings), self.max_gen_toks)
            eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
            until = handle_stop_sequences(found.pop("until", None), eos=eos)
            stops = [text for text in until if text not in ("", eos)]
            # it may be written in other tokens than it is encoded in (lm-eval's `MultiTokenEOSCriteria`)
            lengths = [len(self.tok_encode(text, add_special_tokens=False)) + 2 for text in stops]
            self._known_settings[key] = _Settings(
                found.pop("max_gen_toks"), until, stops, max(lengths, default=0), dict(found)
            )
        return self._known_settings[key]

    def _is_greedy(self, request: Request) -> bool:
        return self._settings(request).others == {"do_sample": False, "temperature": 0.0}

    def _encode(self, request: Request) -> list[int]:
        """The prompt's tokens, cut from the left if the text would have no room after them."""
        room = self._room(request)
        tokens, _ = self.tok_batch_encode(
            [request.prompt], left_truncate_len=room, truncation=self.truncation
        )
        return tokens[0].tolist()

    def _room(self, request: Request) -> int:
        """Tokens that a prompt may have. Raises UserError if there is no room for any."""
        room = self.max_length - request.limit
        if room < 1 and self.backend == "causal":
            raise UserError(
                f"{request.limit} tokens may be written, but the model has room for {self.max_length}, "
                f"prompt included (step {request.step}); lower the limit"
            )
        return room

    def _ends(self) -> list[int]:
        """The tokens that end a text."""
        ends = self.model.generation_config.eos_token_id
        return sorted({self.eot_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})


class _Run:
    """One call of the backend. tokens: what the KV cache can hold."""

    def __init__(
        self, backend: ContinuousHF, manager: ContinuousBatchingManager, tokens: int, done: Done, bar: tqdm
    ) -> None:
        self.backend = backend
        self.manager = manager
        self.tokens = tokens
        self.done = done
        self.bar = bar
        self.ends = backend._ends()
        self.asked = 0  # requests, so far
        self.waiting: dict[int, tuple[_Settings, list[int]]] = {}  # by index: settings, prompt
        # by transformers' name of the request: its index, its settings, tokens of its prompt
        self.sent: dict[str, tuple[int, _Settings, int]] = {}
        self.texts: dict[int, Completion] = {}
        self.seen: dict[int, int] = {}  # by index: tokens that were looked at for loops

    def write(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> list[str]:
        """As `Continuous.write`."""
        fresh, following = deque[int](), deque[int]()
        for request, prompt in zip(requests, prompts, strict=True):
            fresh.append(self._take(request, prompt))
        takes_more = True
        while self.waiting or self.sent:
            # as many wait as run, so that none is waited for; what follows a text goes before what is new
            while self.waiting and len(self.sent) < 2 * self.backend._at_a_time():
                self._send((following or fresh).popleft())
            finished = self._next()
            if finished is None:
                continue
            for request in self.done(finished, self.texts[finished]):
                prompt = self.backend._encode(request)
                takes_more = takes_more and self._can_take(request, prompt)
                if takes_more:  # else the pipeline asks it, and what comes after it, in the next call
                    index = self._take(request, prompt)
                    (following if request.step == "answer" else fresh).append(index)
            self.bar.total = self.asked
            self.bar.update()
        return [self.texts[index] for index in range(self.asked)]

    def _can_take(self, request: Request, prompt: list[int]) -> bool:
        return self.backend._is_greedy(request) and len(prompt) + request.limit <= self.tokens

    def _take(self, request: Request, prompt: list[int]) -> int:
        self.waiting[self.asked] = self.backend._settings(request), prompt
        self.asked += 1
        return self.asked - 1

    def _send(self, index: int) -> None:
        settings, prompt = self.waiting.pop(index)
        name = self.manager.add_request(
            prompt,
            max_new_tokens=settings.limit,
            eos_token_id=self.ends,
            streaming=bool(settings.stops) or self.backend.stop_loops,
        )
        if name is None:
            raise RuntimeError("transformers' continuous batching has stopped")
        self.sent[name] = index, settings, len(prompt)

    def _next(self) -> int | None:
        """The next text that is finished, or None if there is none yet."""
        result = self.manager.get_result(timeout=1)
        if result is None:
            if not self.manager.is_running():
                raise RuntimeError("transformers' continuous batching has stopped")
            return None
        if result.error is not None:
            raise RuntimeError(f"transformers' continuous batching: {result.error}")
        if result.request_id not in self.sent:
            return None  # it was cancelled
        index, settings, prompt_tokens = self.sent[result.request_id]
        tokens = list(result.generated_tokens)
        looped = self._looped(index, settings, tokens)
        tokens, stopped = tokens[:looped], looped is not None
        if settings.stops:
            latest = self.backend.tok_decode(tokens[-settings.look_back :], skip_special_tokens=False)
            stopped = stopped or any(text in latest for text in settings.stops)
        if not (stopped or result.is_finished()):
            return None
        if not result.is_finished():
            self.manager.cancel_request(result.request_id)
        del self.sent[result.request_id]
        reply = Completion(postprocess_generated_text(self.backend.tok_decode(tokens), settings.until, None))
        reply.tokens, reply.prompt_tokens = len(tokens), prompt_tokens
        reply.truncated = not stopped and tokens[-1] not in self.ends
        reply.looped = looped is not None
        self.texts[index] = reply
        return index

    def _looped(self, index: int, settings: _Settings, tokens: list[int]) -> int | None:
        """After how many of a text's tokens it looped, before it came to its limit; None: it does not."""
        if not self.backend.stop_loops:
            return None
        looped = first_loop(tokens, self.seen.get(index, 0))
        self.seen[index] = len(tokens)
        return None if looped is None or looped >= settings.limit else looped
