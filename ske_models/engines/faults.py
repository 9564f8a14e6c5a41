"""What a failed call means: for the call, for its server, for the run. One table for every HTTP engine.

    raise refusal(Said(503, body, headers))      # a RetryableError

Statuses are those of RFC 9110 and of OpenAI's guide "Error codes"; servers that copy the protocol send the
same ones, some within a reply of status 200. A server may repeat a key: `masked` before a message is shown.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

MASK = "<key>"
SHOWN = 300  # characters of what a server says

NO_ROOM = {429, 502, 503, 504, 529}  # of the server; the call is not the cause
OF_THE_CALL = {408, 409, 425}  # and every status from 500 on
REMEDIES = {
    401: "see that {key} holds a valid key",
    402: "the account has no credit left; top it up",
    403: "see what the key in {key} may do",
    404: "see base_url and model",
    405: "see base_url",
    407: "see the proxy's settings",
}
_FILTERED = re.compile(
    r"""
    content_filter | content_policy               # the code of Azure and OpenAI; an image model's
    | content \s management \s policy             # "... triggering Azure OpenAI's content management policy"
    | ResponsibleAIPolicyViolation                # Azure's inner code
    | requires \s moderation | input \s was \s flagged     # OpenRouter, with status 403
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TOO_LONG = re.compile(r"context[ _]length|context window|too long|longer than the max", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"""
    unsupported                                   # "Unsupported parameter: 'max_tokens' is not supported ..."
    | not \s support                              # "'temperature' does not support 0 with this model"
    | unrecogni[sz]ed | unknown                   # "Unrecognized request argument: seed"
    | not \s permitted                            # "Extra inputs are not permitted"
    """,
    re.VERBOSE | re.IGNORECASE,
)
# What a call can do without, or be given under another name. A text is cut at its stop strings here, too.
OPTIONAL = {"max_tokens": "max_completion_tokens", "temperature": "", "seed": "", "stop": "", "top_p": ""}


class RetryableError(Exception):
    """A call that did not work, and may the next time.

    kind: a word for counts: the status, "timeout", "connection" or "malformed". wait: seconds that the server
    asks for. counts: the call itself may be the cause. charged: a reply may have been written, and paid for.
    """

    def __init__(
        self, kind: str, reason: str, wait: float | None = None, counts: bool = True, charged: bool = False
    ) -> None:
        super().__init__(reason)
        self.kind, self.wait, self.counts, self.charged = kind, wait, counts, charged


class RejectedError(Exception):
    """A call that will not work however often it is sent; others may. filtered: for what its prompt says."""

    charged = False

    def __init__(self, reason: str, filtered: bool = False) -> None:
        super().__init__(reason)
        self.filtered = filtered


class StopError(Exception):
    """No call is to be sent any more; the message is for the user."""

    charged = False


@dataclass(frozen=True)
class Said:
    """A reply that is no completion: its status, headers and text."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def error(self) -> Mapping[str, Any]:
        """The `error` of OpenAI's protocol; empty if the body holds none."""
        with contextlib.suppress(ValueError, RecursionError):
            body = json.loads(self.body)
            error = body.get("error") if isinstance(body, dict) else None
            if isinstance(error, dict):
                return error
        return {}

    @property
    def line(self) -> str:
        """One line for the user."""
        message = self.error.get("message")
        text = message if isinstance(message, str) and message.strip() else self.body
        return f"status {self.status}: {' '.join(text[:2_000].split())[:SHOWN]}"


def refusal(said: Said, key: str = "OPENAI_API_KEY") -> RetryableError | RejectedError | StopError:
    """What a status from 400 on means. key: the environment variable that the API key is read from."""
    status, line = said.status, said.line
    if status in (400, 403, 422, 451) and _FILTERED.search(said.body):
        return RejectedError(line, filtered=True)
    if status == 429 and "insufficient_quota" in said.body:
        return StopError(f"refuses, {line}; the account has no credit left; top it up")
    if status in REMEDIES:
        return StopError(f"refuses, {line}; {REMEDIES[status].format(key=key)}")
    if status in NO_ROOM:
        return RetryableError(str(status), line, retry_after(said.headers), counts=False)
    if status in OF_THE_CALL or status >= 500:
        return RetryableError(str(status), line, retry_after(said.headers))
    if _TOO_LONG.search(said.body):
        line += "; lower the token limits, or serve the model with a longer context"
    return RejectedError(line)


def unsupported(said: Said, payload: Mapping[str, Any]) -> str | None:
    """The name in OPTIONAL that a server refuses in `payload`: models of the o-series take no temperature."""
    if said.status not in (400, 422) or not _UNSUPPORTED.search(said.body):
        return None
    text = f"{said.error.get('param')} {said.error.get('message', said.body)}"
    return next((name for name in OPTIONAL if name in payload and re.search(rf"\b{name}\b", text)), None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None if it does not say, or nothing that can be waited for.

    RFC 9110, section 10.2.3: `Retry-After` has seconds or a date. OpenAI sends `retry-after-ms`, too.
    """
    with contextlib.suppress(ValueError, OverflowError, InvalidHeader):
        if headers.get("retry-after-ms", "").isdecimal():
            return int(headers["retry-after-ms"]) / 1000 or None
        return Retry().parse_retry_after(headers.get("retry-after", "")) or None
    return None


def masked(text: str, secrets: Iterable[str]) -> str:
    """A text without a secret, nor four characters in a row of one, nor what stands before @ in an address.

    Servers repeat keys in part: "Incorrect API key provided: sk-abc***wxyz".
    """
    parts = {secret[at : at + 4] for secret in secrets for at in range(len(secret) - 3)}
    hidden = [False] * len(text)
    for at in range(len(text) - 3):
        if text[at : at + 4] in parts:
            hidden[at : at + 4] = [True] * 4
    runs = groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    shown = "".join(MASK if is_hidden else "".join(c for c, _ in run) for is_hidden, run in runs)
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", MASK, shown)
