"""Any of lm-eval's backends (hf, vllm, every OpenAI-compatible server, ...) as the pipeline's engine.

Used by the lm-eval adapter, and by whatever else generates with lm-eval's model registry.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, TemplateLM
from lm_eval.models.utils import postprocess_generated_text

from ske_models.errors import UserError
from ske_models.lm_eval.continuous import Continuous, SharesContexts
from ske_models.method import Message
from ske_models.records import Completion, Done, Request, Settings
from ske_models.reply import split_thought


def _number(least: float, most: float = sys.float_info.max) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _whole(value: Any) -> bool:
    return value is None or type(value) is int


# Which values of the settings that we know can be used; None: as if it were not given.
SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "until": (
        lambda value: all(isinstance(one, str) for one in (value if isinstance(value, list) else [value])),
        "a text or a list of texts is needed",
    ),
    "do_sample": (lambda value: value is None or isinstance(value, bool), "True or False is needed"),
    "temperature": (_number(0), "a number from 0 on is needed"),
    "top_p": (lambda value: value is None or _number(0, 1)(value), "a number from 0 to 1 is needed"),
    "top_k": (_whole, "a whole number is needed"),
    "repetition_penalty": (
        lambda value: value is None or _number(sys.float_info.min)(value),
        "a number above 0 is needed",
    ),
    "num_beams": (lambda value: _whole(value) and value != 0, "a whole number of at least 1 is needed"),
    "num_return_sequences": (lambda value: value in (None, 1), "a question has one answer; leave it out"),
    "max_length": (lambda value: value is None, "prompts count in it; give max_gen_toks instead"),
    **dict.fromkeys(
        ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"),
        (_whole, "a whole number is needed"),
    ),
}


def check_settings(settings: Settings) -> None:
    """Raises UserError for a value that cannot be meant. Other names are the backend's to judge."""
    for name, value in settings.items():
        good, needed = SETTINGS.get(name, (None, ""))
        if good is not None and not good(value):
            where = "--gen_kwargs, or the task's generation_kwargs"
            raise UserError(f"{name}={str(value)[:100]} ({where}): {needed}")


class _StepHook(CacheHook):
    """lm-eval's backends tell their cache of every text the moment it is finished: we listen there."""

    def __init__(self, done: Callable[[Any, str], None]) -> None:
        super().__init__(None)
        self._done = done

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        if attr == "generate_until" and res is not None:
            self._done(req[0], res)


class LMEvalEngine:
    """lm-eval's backend as the pipeline sees it (`ske_models.records.Engine`).

    quiet: without the backend's own progress bar.
    thought_end: the text that ends a thought, where lm-eval's `think_end_token` says so (backend.py). A
        task's stop strings are then looked for behind it only.
    """

    def __init__(self, inner: LM, quiet: bool = False, thought_end: str | None = None) -> None:
        self.inner = inner
        self.quiet = quiet
        self.thought_end = thought_end

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        if not chat:
            return messages[-1]["content"]
        continues = messages[-1]["role"] == "assistant"
        return self.inner.apply_chat_template(list(messages), add_generation_prompt=not continues)

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        if self.thought_end is None:
            return self._generate(requests, done)
        stops: list[Any] = []

        def without_stops(given: Sequence[Request]) -> list[Request]:
            stops.extend(request.settings.get("until") for request in given)
            return [replace(r, settings={**r.settings, "until": []}) for r in given]

        def finished(index: int, text: str) -> Sequence[Request]:
            return without_stops(done(index, self._stopped(text, stops[index])))

        texts = self._generate(without_stops(requests), finished)
        return [self._stopped(text, stop) for text, stop in zip(texts, stops, strict=False)]

    def _stopped(self, text: str, stop: Any) -> str:
        """The whole text, its reply cut at a task's stop strings. What is still a thought has no reply."""
        assert self.thought_end is not None
        thought, mark, reply = text.rpartition(self.thought_end)
        if not mark and not split_thought(text).finished:
            return text
        gap = reply[: len(reply) - len(reply.lstrip())] if mark else ""
        kept = thought + mark + gap + postprocess_generated_text(reply[len(gap) :], stop, None)
        if len(kept) == len(text):
            return text
        cut = Completion(kept)
        if isinstance(text, Completion):
            cut.tokens, cut.prompt_tokens, cut.cached_tokens = (
                text.tokens,
                text.prompt_tokens,
                text.cached_tokens,
            )
            cut.truncated = False
        return cut

    def spoken(self, text: str) -> str:
        """What lm-eval is given of a text: all of it, or what its `think_end_token` leaves."""
        if self.thought_end is None:
            return text
        _, mark, reply = text.rpartition(self.thought_end)
        return reply.lstrip() if mark else split_thought(text).reply

    def _generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        if isinstance(self.inner, Continuous) and self.inner.suits(requests):
            return self.inner.write(requests, done, self.quiet)
        by_prompt: dict[Any, list[int]] = {}
        known: dict[tuple[Any, str], str] = {}
        for index, request in enumerate(requests):
            by_prompt.setdefault(request.prompt, []).append(index)

        def finished(prompt: Any, text: str) -> None:
            if isinstance(self.inner, Continuous):
                known[prompt, text] = self.inner.described(text)
            if len(by_prompt[prompt]) == 1:  # else it cannot be told whose it is; it is stored at the end
                done(by_prompt[prompt][0], known.get((prompt, text), text))

        self.inner.set_cache_hook(_StepHook(finished))
        try:
            texts = self.inner.generate_until(
                [instance(r.origin, "generate_until", (r.prompt, dict(r.settings))) for r in requests],
                **({"disable_tqdm": True} if self.quiet else {}),
            )
        except ValueError as error:
            # transformers, of settings that it does not know, and of top_k=-1, temperature=0 while sampling
            if "model_kwargs" not in str(error) and "has to be a strictly positive" not in str(error):
                raise
            raise UserError(f"--gen_kwargs: {str(error).splitlines()[0]}") from error
        self.inner.set_cache_hook(CacheHook(None))
        return [known.get((r.prompt, text), text) for r, text in zip(requests, texts, strict=True)]

    def score(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """lm-eval's `loglikelihood`, with a context of several options read once where the backend can."""
        if isinstance(self.inner, SharesContexts):
            return self.inner.score(requests)
        return self.inner.loglikelihood(list(requests))

    def count_tokens(self, text: Any) -> int | None:
        if (
            not isinstance(text, str)
            or not isinstance(self.inner, TemplateLM)
            or self.inner.tokenizer is None
        ):
            return None
        return len(self.inner.tok_encode(text, add_special_tokens=False))

    def cut_to(self, request: Request) -> int | None:
        return self.inner.cut_to(request) if isinstance(self.inner, Continuous) else None

    def sampled(self, settings: Settings) -> bool:
        return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0


def instance(origin: Instance, request_type: Any, arguments: tuple) -> Instance:
    """A request of our own on behalf of one of the harness'."""
    return Instance(request_type, origin.doc, arguments, origin.idx, metadata=origin.metadata)
