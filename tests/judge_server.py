"""A judge over real HTTP that speaks OpenAI's chat-completions protocol, and misbehaves as it is told.

    python tests/judge_server.py --port 8008 --faults 0.3      # then base_url: http://127.0.0.1:8008/v1

It says "Score: N", N being the same for the same prompt. Used by the tests of judge and servers.
"""

from __future__ import annotations

import argparse
import email.utils
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW = 1.0  # seconds that a reply takes which the client shall not wait for
FAULTS = (
    "429", "429 seconds", "429 milliseconds", "429 date", "500", "503", "timeout", "drip", "closed", "cut",
    "no choices", "no json", "web page", "empty text", "garbage text",
)  # fmt: skip
RETRY_AFTER = {
    "429 seconds": lambda: ("Retry-After", "1"),
    "429 minutes": lambda: ("Retry-After", "600"),
    "429 milliseconds": lambda: ("retry-after-ms", "120"),
    "429 date": lambda: ("Retry-After", email.utils.formatdate(time.time() + 1.5, usegmt=True)),
}


@dataclass(frozen=True)
class Call:
    """One request. `nth`: how often this prompt has come, from 1."""

    prompt: str
    nth: int
    authorization: str | None
    temperature: float
    at: float


def no_faults(call: Call) -> str:
    return "ok"


@dataclass
class JudgeServer:
    """A server on loopback, in `with`. `behaviour` says: "ok", a fault, "status CODE", "say TEXT"."""

    behaviour: Callable[[Call], str] = no_faults
    port: int = 0
    usage: bool = True
    delay: float = 0.0
    calls: list[Call] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)  # prompt -> replies that cost something
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> JudgeServer:
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                judge.handle(self)

            def log_request(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def handle(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["Content-Length"])))
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            prompt = body["messages"][-1]["content"]
            nth = 1 + sum(call.prompt == prompt for call in self.calls)
            call = Call(prompt, nth, http.headers["Authorization"], body["temperature"], time.monotonic())
            self.calls.append(call)
        try:
            time.sleep(self.delay)
            known = http.path == "/v1/chat/completions" and body["model"] != "unknown"
            self._reply(http, call, self.behaviour(call) if known else "status 404")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client is gone
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, http: BaseHTTPRequestHandler, call: Call, what: str) -> None:
        text = what.removeprefix("say ") if what.startswith("say ") else verdict(call.prompt)
        text = {"empty text": "", "garbage text": "~~ 8 8 8 ~~"}.get(what, text)
        if what in ("timeout", "closed"):
            time.sleep(SLOW if what == "timeout" else 0)
            http.close_connection = True
        elif what.startswith(("status", "429", "500", "503")):
            code = int(what.removeprefix("status ").split()[0])
            # OpenAI's own message repeats (most of) the key
            said = f"no, not for {call.authorization}"
            error = {"message": said, "code": "insufficient_quota" if what.endswith("quota") else None}
            self._send(http, code, json.dumps({"error": error}), *RETRY_AFTER.get(what, lambda: ())())
        elif what == "no json":
            self._send(http, 200, '{"choices": [{"mess')
        elif what == "web page":
            self._send(http, 200, "<html>Welcome</html>", "Content-Type", "text/html")
        elif what == "no choices":
            self._send(http, 200, json.dumps({"choices": []}))
        else:
            with self._lock:
                self.answered[call.prompt] += 1
            length = text.endswith("(cut)")
            reply: dict[str, Any] = {
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": text.removesuffix("(cut)")},
                        "finish_reason": "length" if length else "stop",
                    }
                ]
            }
            if self.usage:
                reply["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            self._send(http, 200, json.dumps(reply), what=what)

    def _send(
        self,
        http: BaseHTTPRequestHandler,
        code: int,
        body: str,
        name: str = "",
        value: str = "",
        what: str = "",
    ) -> None:
        data = body.encode()
        http.send_response(code)
        http.send_header("Content-Length", str(len(data)))
        http.send_header("Content-Type", value if name == "Content-Type" else "application/json")
        if name and name != "Content-Type":
            http.send_header(name, value)
        http.end_headers()
        if what == "cut":
            data, http.close_connection = data[: len(data) // 2], True
        if what == "drip":  # never silent for long, and yet too slow
            for byte in data[:-1]:
                http.wfile.write(bytes([byte]))
                time.sleep(SLOW / 20)
        http.wfile.write(data)


def verdict(prompt: str) -> str:
    """A critique and a score."""
    return f"It has three facts.\nScore: {score(prompt)}"


def score(prompt: str) -> int:
    """1 to 10, the same for the same prompt."""
    return 1 + hashlib.sha256(prompt.encode()).digest()[0] % 10


def random_faults(share: float, seed: int = 0) -> Callable[[Call], str]:
    """A behaviour: each of FAULTS in turn, for a share of the calls."""
    rng, turn, lock = random.Random(seed), iter(FAULTS * 1_000), threading.Lock()

    def behaviour(call: Call) -> str:
        with lock:
            return next(turn) if rng.random() < share else "ok"

    return behaviour


def main() -> None:
    parser = argparse.ArgumentParser(description="A judge that misbehaves.")
    parser.add_argument("--port", type=int, default=8008)
    parser.add_argument("--faults", type=float, default=0.0, help="share of the calls")
    args = parser.parse_args()
    with JudgeServer(random_faults(args.faults), port=args.port) as server:
        print(server.base_url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
