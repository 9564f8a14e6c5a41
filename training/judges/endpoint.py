"""One call of an OpenAI-compatible chat endpoint, and what its faults mean. Retries are the caller's.

The official client does the call. Its own retries are off: they give up a `Retry-After` of more than two
minutes, and take an empty or broken reply for a good one.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import openai
import pydantic

from ske_models.engines.retry_after import retry_after
from ske_models.errors import UserError
from training.recipe import OpenAIJudge


class Completion(pydantic.BaseModel):
    """What is needed of a chat completion (OpenAI API reference, "The chat completion object")."""

    class Choice(pydantic.BaseModel):
        """One completion."""

        class Message(pydantic.BaseModel):
            """Its text; none if the model refused."""

            content: str | None = None

        message: Message
        finish_reason: str | None = None

    class Usage(pydantic.BaseModel):
        """Tokens."""

        prompt_tokens: int
        completion_tokens: int

    choices: list[Choice] = pydantic.Field(min_length=1)
    usage: Usage | None = None

    @property
    def text(self) -> str:
        """What the model wrote."""
        return self.choices[0].message.content or ""

    @property
    def truncated(self) -> bool:
        """Whether it reached its token limit."""
        return self.choices[0].finish_reason == "length"

    @property
    def tokens(self) -> tuple[int, int] | None:
        """(input, output), if the endpoint says so."""
        return None if self.usage is None else (self.usage.prompt_tokens, self.usage.completion_tokens)


class FaultError(Exception):
    """A call that did not work.

    wait: seconds that the server asks for. again: another try may help. charged: the server may charge it.
    """

    def __init__(
        self, kind: str, said: str, wait: float | None = None, again: bool = True, charged: bool = True
    ) -> None:
        super().__init__(f"{kind}: {said}")
        self.kind, self.wait, self.again, self.charged = kind, wait, again, charged


class RefusedError(Exception):
    """The endpoint will refuse every call; the message says why and what to do."""


def key(judge: OpenAIJudge) -> str:
    """The key, from the environment; "none" for a server on this machine when there is no key.

    Raises UserError if it is missing, or cannot be a key.
    """
    value = os.environ.get(judge.key_env, "").strip()
    if not value and _is_loopback(urlsplit(judge.base_url).hostname or ""):
        return "none"
    if not value:
        raise UserError(
            f"judge: no key for {judge.base_url}: set the environment variable {judge.key_env} "
            "(to `none` if the server needs no key)"
        )
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(f"judge: {judge.key_env} holds blanks or characters that no key has; set it anew")
    return value


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Endpoint:
    """The recipe's endpoint, to be used in `async with`."""

    def __init__(self, judge: OpenAIJudge) -> None:
        self.judge = judge
        self._secret = key(judge)

    async def __aenter__(self) -> Endpoint:
        self._client = openai.AsyncOpenAI(
            api_key=self._secret,
            base_url=self.judge.base_url,
            max_retries=0,
            timeout=self.judge.timeout_s,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def post(self, prompt: str, settings: Mapping[str, Any], seconds: float) -> Completion:
        """The reply, within `seconds`. Raises FaultError, RefusedError."""
        create = self._client.chat.completions.with_raw_response.create
        messages: Any = [{"role": "user", "content": prompt}]
        try:
            # the SDK's own time-out is one between two packets
            response = await asyncio.wait_for(create(messages=messages, **settings), seconds)
            return Completion.model_validate_json(response.text)
        except (asyncio.TimeoutError, openai.APITimeoutError):
            raise FaultError("timeout", f"no reply in {seconds:.3g} s") from None
        except openai.APIStatusError as error:
            raise self._refused(error) from None
        except openai.APIConnectionError as error:
            cause = type(error.__cause__).__name__  # of httpx or httpx2, whichever the SDK is built on
            raise FaultError("connection", cause, charged=cause != "ConnectError") from None
        except pydantic.ValidationError as error:
            raise FaultError("garbage", f"no chat completion: {error.errors()[0]['msg']}") from None

    def _refused(self, error: openai.APIStatusError) -> Exception:
        """What a status other than 200 means (OpenAI guide "Error codes")."""
        code = error.status_code
        said = " ".join(str(error.message).replace(self._secret, "<key>").split())[:200]
        remedy = {
            401: f"see that {self.judge.key_env} holds a valid key",
            403: f"see what the key in {self.judge.key_env} may do",
            404: "see judge.base_url and judge.model in the recipe",
        }.get(code)
        if error.code == "insufficient_quota":
            remedy = "the account has no credit left; top it up"
        if remedy:
            return RefusedError(f"{self.judge.base_url} refuses: {said}; {remedy}")
        again = code in (408, 409, 425, 429) or code >= 500
        return FaultError(
            str(code), said, wait=retry_after(error.response.headers), again=again, charged=False
        )
