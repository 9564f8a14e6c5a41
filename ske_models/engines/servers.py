"""Which servers get the calls, how patiently, and what they have been found not to take.

Servers(["http://a:8000/v1/chat/completions"], concurrent=16, headers={"Authorization": "Bearer ..."})
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from ske_models.engines.faults import OPTIONAL, masked
from ske_models.errors import UserError
from ske_models.secrets import is_secret

NO_KEYS = {"", "none", "empty", "dummy"}  # what is set where a server needs no key: words of any message


@dataclass(frozen=True)
class Servers:
    """Where calls are posted to.

    urls: whole addresses; user:password@ in one becomes basic authentication. concurrent: calls that each
    server has at a time. timeout: seconds of one call.
    max_retries: how often one call may fail before it is given up (time-outs, errors of the server, lost
    connections, replies that hold nothing; not while a server cannot be reached or has no room).
    max_wait: seconds to wait while no server answers. deadline: seconds for all calls, or None.
    headers: of every call. key: the environment variable with the API key, for messages.
    left_out: what a server has refused in a payload, and what it is sent instead ("": nothing); learned.
    Raises UserError if the environment names a proxy for one of them that is none.
    """

    urls: Sequence[str]
    concurrent: int = 64
    timeout: float = 300.0
    max_retries: int = 8
    max_wait: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | bool = True
    deadline: float | None = None
    key: str = "OPENAI_API_KEY"
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for parts in map(urlsplit, self.urls):
            proxy = getproxies().get(parts.scheme)
            if proxy and not proxy_bypass(parts.hostname or ""):  # as aiohttp looks it up
                checked(f"{parts.scheme}_proxy", proxy, "http://HOST:3128, or unset it")

    @cached_property
    def secrets(self) -> list[str]:
        """What no message may repeat."""
        own = [urlsplit(url).netloc.rpartition("@")[0] for url in self.urls]
        sent = [*self.headers.values(), *(value for url in self.urls for value in split(url)[1].values())]
        asked = [(name, value) for url in self.urls for name, value in parse_qsl(urlsplit(url).query)]
        keys = [value for name, value in asked if is_secret(name)]  # ?access_token=
        secrets = own + [unquote(user) for user in own] + [value.split(" ")[-1] for value in sent] + keys
        return [secret for secret in secrets if secret.lower() not in NO_KEYS]

    def fitted(self, payload: dict[str, Any]) -> dict[str, Any]:
        """What is sent for a payload: without what a server has refused to take."""
        if not self.left_out:
            return payload
        names = ((self.left_out.get(name, name), value) for name, value in payload.items())
        return {name: value for name, value in names if name}

    def leave_out(self, name: str) -> bool:
        """Learns what models of the o-series, say, do not take. Returns whether it is new."""
        new = name not in self.left_out
        self.left_out[name] = OPTIONAL[name]
        return new

    def instead(self, name: str) -> str:
        """What is done about it, in words."""
        return f"it is sent as {OPTIONAL[name]}" if OPTIONAL[name] else "it is left out from now on"


def checked(name: str, url: str, example: str = "http://localhost:8000/v1") -> str:
    """A server's address. Raises UserError, calling the setting `name`, if nothing can be posted to it."""
    try:
        parts = urlsplit(url.strip())
        # IDNA as when the name is looked up: it has no empty label ("a..b"), and none over 63 characters
        good = parts.scheme in ("http", "https") and (parts.hostname or "").encode("idna") and parts.port != 0
    except ValueError:  # UnicodeError is one
        good = False
    if not good or " " in url.strip() or not url.isprintable():
        shown = masked(url, ())[:200]
        raise UserError(f"{name}: {shown!r} is no address; write one as in {example}")
    return url.strip()


def split(url: str) -> tuple[str, dict[str, str]]:
    """An address without user:password@, and the header that says these."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    code = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {code}"}
