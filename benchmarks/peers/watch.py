"""Middleware of `vllm serve` that notes every completion: when it came and went, what was asked and said.

    PEERS_LOG=requests.jsonl PYTHONPATH=benchmarks/peers vllm serve ... --middleware watch.Watch

One JSON object a line: `came`, `went` (seconds of the machine's monotonic clock), `body`, `status`, `reply`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]


class Watch:
    """ASGI middleware. It reads no reply but of completions, and adds no header."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.log = Path(os.environ["PEERS_LOG"])

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """One request."""
        if scope["type"] != "http" or not scope["path"].endswith("/completions"):
            await self.app(scope, receive, send)
            return
        came = time.monotonic()
        status = 0
        body, reply = bytearray(), bytearray()

        async def received() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            reply.extend(message.get("body", b""))
            await send(message)

        await self.app(scope, received, sent)
        went = time.monotonic()
        line = {"came": came, "went": went, "status": status, "body": body.decode(), "reply": reply.decode()}
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
