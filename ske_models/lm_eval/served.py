"""OpenAI-compatible servers as a backend: lm-eval's API models, with what a long run needs of them.

    lm_eval --model ske_explicit --tasks ske_mmlu --apply_chat_template \\
            --model_args 'backend=local-chat-completions,model=M1,base_url=http://a:8000/v1;http://b:8000/v1'

lm-eval (0.4.13) sends one server one prompt at a time, gives up after three attempts, takes a reply that it
cannot read for an empty text, and does not say whether a text reached its limit. How several servers are kept
busy, and what is done when one fails, is in `ske_models/engines/http.py`; how a reply is read, in
`engines/completion.py`. What is sent stays lm-eval's.
"""

from __future__ import annotations

import inspect
import re
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.api_models import TemplateAPI
from lm_eval.models.openai_completions import LocalChatCompletion
from lm_eval.models.utils import (
    chunks,
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from tqdm import tqdm

from ske_models.engines.completion import choices, malformed, read, with_thought
from ske_models.engines.faults import RejectedError, StopError
from ske_models.engines.generations import generate
from ske_models.engines.http import Call, Dispatcher, say
from ske_models.engines.servers import Servers, checked, split
from ske_models.errors import UserError, at_least_one
from ske_models.lm_eval.continuous import Continuous, surely_fits
from ske_models.loops import DETECTION, surely_loops
from ske_models.records import Completion, Done, Request
from ske_models.reply import reply_of

IGNORED = {"device", "max_batch_size", "dtype"}  # every backend is given these; a server has its own


class Served(TemplateAPI, Continuous):
    """What `served` mixes into one of lm-eval's API models.

    base_url: the servers, separated by ";": what ends in /v1, or whole addresses.
    num_concurrent, max_retries, max_wait, timeout: as in `Servers`; of these max_wait is ours.
    Other arguments: lm-eval's. Raises UserError or TypeError for what a user can get wrong in them.
    """

    def __init__(
        self,
        base_url: str | None = None,
        num_concurrent: int = Servers.concurrent,
        max_retries: int = Servers.max_retries,
        max_wait: float = Servers.max_wait,
        **args: Any,
    ) -> None:
        classes = [cls for cls in type(self).__mro__ if "__init__" in vars(cls)]
        known = IGNORED.union(*(inspect.signature(cls).parameters for cls in classes))
        for name in args.keys() - known:  # lm-eval's would ignore it
            raise TypeError(f"got an unexpected keyword argument '{name}'")
        at_least_one("num_concurrent", num_concurrent)
        numbers = {"max_retries": max_retries, "max_wait": max_wait, "timeout": args.get("timeout", 1)}
        for name, value in numbers.items():
            _check_number(name, value, above=0 if name == "timeout" else -1)
        self.chat = isinstance(self, LocalChatCompletion)
        urls = [address(url, self.chat) for url in str(base_url or "").split(";") if url.strip()]
        # 2: with 1, log-likelihoods would not come through `get_batched_requests`. lm-eval logs its address
        bare = {"base_url": split(urls[0])[0]} if urls else {}
        super().__init__(**bare, num_concurrent=2, **args)
        if not self.base_url:
            raise UserError(
                "base_url: the server's address is needed, as in base_url=http://localhost:8000/v1"
            )
        certificate = ssl.create_default_context(cafile=self.ca_cert_path) if self.ca_cert_path else None
        self.servers = Servers(
            urls or [self.base_url],
            num_concurrent,
            self.timeout,
            max_retries,
            max_wait,
            _headers(self),
            certificate or self.verify_certificate,
        )

    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        """A `Completion` for each request, in order. Raises UserError if the servers do not answer."""
        answers = generate(self.servers, requests, self._generations, done, quiet)
        if cut := sum(answer.prompt_cut for answer in answers):
            say(
                f"{cut} of {len(answers)} prompts had no room in max_length={self.max_length + 1} and "
                "were cut at their beginning; set max_length to the model's"
            )
        return list(answers)

    def cut_to(self, request: Request) -> int | None:
        """A chat server cuts nothing, and refuses what is too long."""
        if self.chat or not self.tokenized_requests:
            return None
        room = self.max_length - normalize_gen_kwargs(request.settings, self._max_gen_toks)["max_gen_toks"]
        if surely_fits(request.prompt, room):
            return None
        tokens = self.tok_encode(request.prompt, add_special_tokens=self.add_bos_token)
        return room if len(tokens) > room else None

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """For lm-eval's own use."""
        asked = [Request("answer", r.args[0], r.args[1], self._max_gen_toks, "", r) for r in requests]
        return self.write(asked, lambda *_: (), disable_tqdm)

    def _generations(self, requests: Sequence[Request]) -> list[Call]:
        if self.chat and any(isinstance(request.prompt, str) for request in requests):
            raise UserError(f"{self.base_url} takes conversations; add --apply_chat_template")
        settings = [dict(normalize_gen_kwargs(r.settings, self._max_gen_toks)) for r in requests]
        prompts = [request.prompt for request in requests]
        whole: list[tuple[Any, bool]] = [(prompt, False) for prompt in prompts]
        messages = self._encoded(prompts, settings) if self.tokenized_requests and prompts else whole
        calls = []
        for request, (message, is_cut), how in zip(requests, messages, settings, strict=True):
            stop = handle_stop_sequences(list(how["until"]), self._eos_string)
            calls.append(self._call([message], partial(self._reply, stop, is_cut), how))
            calls[-1].later = request.step == "answer"
        return calls

    async def get_batched_requests(
        self, requests: list, cache_keys: list, *, ctxlens: list[int], **_: Any
    ) -> list[list[tuple[float, bool]]]:
        """lm-eval's own way to the server, which its log-likelihoods take."""
        calls = [
            self._call(tokens, partial(self._scores, tokens, lengths))
            for tokens, lengths in zip(
                chunks(requests, n=self._batch_size), chunks(ctxlens, n=self._batch_size), strict=True
            )
        ]
        with tqdm(total=len(calls), desc="Requesting servers") as bar:
            await Dispatcher(self.servers, calls, lambda _: [], bar).run()
        return [call.answer for call in calls]

    def _loglikelihood_tokens(self, requests: list, **options: Any) -> list[tuple[float, bool]]:
        try:
            return super()._loglikelihood_tokens(requests, **options)
        except StopError as error:
            raise UserError(f"{error}; the knowledge is kept, the same command scores again") from None

    def loglikelihood(self, requests: list[Instance], **options: Any) -> list[tuple[float, bool]]:
        """As lm-eval's. Raises UserError for a backend that has no log-likelihoods."""
        try:
            return super().loglikelihood(requests, **options)
        except NotImplementedError as error:
            raise UserError(f"task {requests[0].task_name}: {error}") from None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> Any:
        """The turns for a chat server; for others the text, also where lm-eval would hand on the turns."""
        if self.chat or self.tokenizer is None:
            return super().apply_chat_template(chat_history, add_generation_prompt)
        # lm-eval's stand-in for a tokenizer that is on the server knows no such arguments
        local = {"tokenize": False, "continue_final_message": not add_generation_prompt}
        return self.tokenizer.apply_chat_template(
            chat_history,
            add_generation_prompt=add_generation_prompt,
            **(local if self.tokenizer_backend == "huggingface" else {}),
        )

    def _encoded(
        self, prompts: Sequence[str], settings: Sequence[dict[str, Any]]
    ) -> list[tuple[list[int], bool]]:
        """The prompts' tokens, cut on the left to what `max_length` leaves room for, and whether they are.

        So does lm-eval cut them. Raises UserError if there is no room at all.
        """
        longest = max(how["max_gen_toks"] for how in settings)
        if longest >= self.max_length:
            raise UserError(
                f"max_length={self.max_length + 1}: no room for a prompt and {longest} new tokens; "
                "set max_length to the model's"
            )
        tokens = self.tok_encode(list(prompts), add_special_tokens=self.add_bos_token)
        rooms = [self.max_length - how["max_gen_toks"] for how in settings]
        return [(ids[-room:], len(ids) > room) for ids, room in zip(tokens, rooms, strict=True)]

    def _call(
        self,
        messages: Sequence[Any],
        read: Callable[[dict[str, Any]], Any],
        settings: dict[str, Any] | None = None,
    ) -> Call:
        """A generation with `settings`, else a scoring of `messages` (token ids); lm-eval's payload."""
        payload = self._create_payload(
            self.create_message(messages),
            generate=settings is not None,
            gen_kwargs=settings,
            seed=self._seed,
            eos=self._eos_string,
        )
        if not payload.get("stop", True):
            del payload["stop"]  # some servers refuse an empty list
        if self.stop_loops and settings is not None:
            payload["repetition_detection"] = DETECTION  # vLLM's server has it
        return Call(payload, read)

    def _reply(self, stop: list[str], prompt_cut: bool, outputs: Any) -> Completion:
        """The text of a completion, cut at the first of the strings in `stop`, with its thought before it."""
        reply = read(outputs)
        if reply.filtered:
            raise RejectedError("finish_reason content_filter", filtered=True)
        if self.stop_loops and reply.truncated and surely_loops(reply.text):
            raise StopError(
                "does not end texts that only repeat themselves, as vLLM does; leave stop_loops out"
            )
        # transformers' server leaves the stop string in, and a chat server is sent four of them at most
        whole = postprocess_generated_text(reply.text, None, self.think_end_token if self.chat else None)
        text = _cut(whole, stop)
        completion = Completion(with_thought(reply, text))
        completion.prompt_tokens, completion.tokens = reply.prompt_tokens, reply.completion_tokens
        completion.cached_tokens, completion.prompt_cut = reply.cached_tokens, prompt_cut
        completion.truncated = reply.truncated if len(text) == len(whole) else False
        completion.looped = reply.finish == "repetition"
        return completion

    def _scores(self, tokens: list[list[int]], ctxlens: list[int], outputs: Any) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is what the model would have written) of each of `tokens`."""
        if any(not choice.get("logprobs") for choice in choices(outputs)):
            raise StopError("scores no prompts: there are no log-likelihoods in its reply; use vLLM's server")
        try:
            scores = self.parse_logprobs(outputs=outputs, tokens=tokens, ctxlens=ctxlens)
        except (AssertionError, KeyError, TypeError, ValueError):  # lm-eval expects whole replies
            raise malformed("no log-probabilities that can be read", outputs) from None
        if len(scores) != len(tokens):
            raise malformed(f"log-probabilities of {len(scores)} prompts, not of {len(tokens)},", outputs)
        return scores


def served(model_class: type[TemplateAPI]) -> type[Served]:
    """One of lm-eval's API models with `Served` in it."""
    return type(f"Served{model_class.__name__}", (Served, model_class), {})


def address(url: str, chat: bool) -> str:
    """Where to post, from a server's base URL (".../v1"); another one is taken for the whole address."""
    url = checked("base_url", url).rstrip("/")
    return f"{url}/{'chat/completions' if chat else 'completions'}" if url.endswith("/v1") else url


def _headers(lm: Served) -> dict[str, str]:
    """Raises UserError if there is no key, or one that cannot be sent."""
    try:
        header = lm.header
    except ValueError as error:
        raise UserError(str(error)) from error
    if not isinstance(header, dict):
        raise UserError('header: a mapping is needed, as in --model_args \'{"header": {"X-Key": "..."}}\'')
    headers = {str(name): str(value) for name, value in header.items()}
    if not all(text.isascii() and text.isprintable() for pair in headers.items() for text in pair):
        where = "header" if lm._header else "OPENAI_API_KEY"
        raise UserError(f"{where}: has characters that no key has (a line break?); set it again")
    return headers


def _check_number(name: str, value: Any, above: float) -> None:
    """Raises UserError if the argument `name` is no finite number above a limit."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < float("inf"):
        least = "above 0" if above == 0 else "from 0 on"
        raise UserError(f"{name}={value}: a number {least} is needed")


def _cut(text: str, stop: list[str]) -> str:
    """A text up to the first of the strings in `stop` in its reply; what is thought may hold them."""
    written = reply_of(text)
    kept = postprocess_generated_text(written, stop, None)
    if kept == written:
        return text
    if text.endswith(written):
        return text.removesuffix(written) + kept
    # a thought, or a mark of the model's, stands within the reply
    places = sorted(found.start() for term in stop if term for found in re.finditer(re.escape(term), text))
    return next((text[:place] for place in places if reply_of(text[:place]) == kept), text)
