"""A chat server over real HTTP that answers as it is told, in the ways in which real servers were seen to.

with OddServer(lambda asked: (200, completion("Paris."))) as server:
    ... base_url=server.base_url ...

Used by tests/lm_eval/test_odd_replies.py and tests/training/test_odd_texts.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


@dataclass(frozen=True)
class Asked:
    """One request. nth: how often this prompt has come, from 1."""

    body: dict[str, Any]
    headers: dict[str, str]
    nth: int

    @property
    def prompt(self) -> str:
        return self.body["messages"][-1]["content"]


def _prompt(body: dict[str, Any]) -> Any:
    """Of a chat, or of a plain completion."""
    return body.get("messages") or body.get("prompt")


def completion(
    content: Any = None, finish: Any = "stop", usage: Any = USAGE, **message: Any
) -> dict[str, Any]:
    """A reply. message: other fields of the message than its content."""
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}


def without(reply: dict[str, Any], *names: str, **others: Any) -> dict[str, Any]:
    """A reply whose choice lacks some fields, or has other ones."""
    choice = {name: value for name, value in reply["choices"][0].items() if name not in names} | others
    return reply | {"choices": [choice]}


Sent = tuple[int, Any]  # status; JSON, or bytes as they are, or pieces of bytes without a length


@dataclass
class OddServer:
    """A server on loopback, in `with`. `behaviour` says what each request gets."""

    behaviour: Callable[[Asked], Sent]
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0  # bytes of a body in pieces
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> OddServer:
        odd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                odd.handle(self)

            def log_request(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def base_url(self) -> str:
        return f"http://{self.address}/v1"

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        with self._lock:
            nth = 1 + sum(_prompt(one.body) == _prompt(body) for one in self.asked)
            asked = Asked(body, dict(http.headers), nth)
            self.asked.append(asked)
        status, reply = self.behaviour(asked)
        try:
            http.send_response(status)
            http.send_header("Content-Type", "application/json")
            if isinstance(reply, Iterable) and not isinstance(reply, bytes | str | dict | list):
                self._pieces(http, reply)
                return
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            http.send_header("Content-Length", str(len(data)))
            http.end_headers()
            http.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            http.close_connection = True  # the client is gone

    def _pieces(self, http: BaseHTTPRequestHandler, pieces: Iterable[bytes]) -> None:
        http.send_header("Connection", "close")
        http.end_headers()
        http.close_connection = True
        for piece in pieces:
            http.wfile.write(piece)
            self.sent += len(piece)
