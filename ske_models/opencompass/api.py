"""OpenCompass' `OpenAISDK`, with both steps of the method in one queue of calls to the server.

    llm = dict(type=OpenAISDK, path="NAME", max_workers=64)     # in a config, for `SKEExplicit`

Unlike OpenCompass 0.5.4's own, a text is stored the moment it is written, a reply that holds none is a failed
call and no empty text, one that the content filter stops does not end the run, and it is known whether a text
reached its limit (ske_models/engines). What is sent stays OpenCompass'. `query_per_second` is not needed:
what the server has no room for is sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opencompass.models import OpenAISDK
from opencompass.models.openai_api import OAI_REASONING_MODEL_LIST

from ske_models.engines.completion import read, with_thought
from ske_models.engines.faults import RejectedError
from ske_models.engines.generations import generate
from ske_models.engines.http import Call
from ske_models.engines.servers import Servers, checked
from ske_models.errors import UserError
from ske_models.opencompass.engine import Continuous
from ske_models.records import Completion, Done, Request

# What only OpenCompass' own way to a server has; with one of them, its class stays.
OWN_WAY = ("openai_proxy_url", "http_client_cfg", "status_code_mappings")


class ContinuousOpenAI(OpenAISDK, Continuous):
    """`OpenAISDK` over the project's one dispatcher. Raises UserError for an address that cannot be one."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        base = checked("openai_api_base", self.openai_api_base).rstrip("/")
        self.servers = Servers(
            [base if base.endswith("/chat/completions") else f"{base}/chat/completions"],
            concurrent=self.max_workers,
            timeout=self.timeout,
            max_retries=self.retry,
            headers={"Authorization": f"Bearer {self._next_valid_key()}"},
        )

    def write(self, requests: Sequence[Request], done: Done) -> Sequence[str]:
        return generate(self.servers, requests, self._calls, done)

    def _calls(self, requests: Sequence[Request]) -> list[Call]:
        return [
            Call(self._payload(request), self._completion, later=request.step == "answer")
            for request in requests
        ]

    def _payload(self, request: Request) -> dict[str, Any]:
        """As `OpenAISDK._generate` makes it. Raises UserError if the prompt is longer than `max_seq_len`."""
        try:
            messages, limit = self._preprocess_messages(
                request.prompt, request.limit, self.max_seq_len, self.mode, self.get_token_len
            )
        except ValueError as error:
            raise UserError(f"{self.path}: {error}") from error
        reasons = any(name in self.path for name in OAI_REASONING_MODEL_LIST)
        sampling = (
            {"max_completion_tokens": limit}
            if reasons
            else {"max_tokens": limit, "temperature": self.temperature}
        )
        return {
            "model": self.path,
            "messages": self._messages_to_chat_completions(messages),
            **sampling,
            **(self.extra_body or {}),
            **(self.openai_extra_kwargs or {}),
        }

    def _completion(self, outputs: Any) -> Completion:
        reply = read(outputs)
        if reply.filtered:
            raise RejectedError("finish_reason content_filter", filtered=True)
        completion = Completion(with_thought(reply, reply.text))
        completion.prompt_tokens, completion.tokens = reply.prompt_tokens, reply.completion_tokens
        completion.cached_tokens, completion.truncated = reply.cached_tokens, reply.truncated
        return completion
