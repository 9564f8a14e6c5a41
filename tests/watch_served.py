"""Middleware of `vllm serve` that notes which request was answered when: is a text generated twice?

    WATCH_SERVED=answered.jsonl PYTHONPATH=tests vllm serve ... --middleware watch_served.Watch

One JSON object per line: `at` (seconds since 1970) and `body`, the request as it came.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


class Watch:
    """ASGI middleware. It changes nothing."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

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
        body = bytearray()

        async def received() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.app(scope, received, send)
        line = json.dumps({"at": time.time(), "body": json.loads(body)}) + "\n"
        log = os.open(os.environ["WATCH_SERVED"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(log, line.encode())  # several servers write there
        os.close(log)
