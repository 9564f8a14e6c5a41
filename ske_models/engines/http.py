"""One queue of prompts over several HTTP servers of the same model. No harness is known here.

    with tqdm(total=len(calls)) as bar:
        asyncio.run(Dispatcher(Servers(["http://a:8000/v1/completions"]), calls, lambda call: [], bar).run())

Each server has `concurrent` calls at a time and takes the next one from the queue when it has room. A server
that cannot be reached, or fails, is tried with one call at a time until it answers again; what it had been
asked goes back into the queue, where the others find it. So a call is answered once, by whichever server.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import tenacity
from tqdm import tqdm

from ske_models.engines.retry_after import retry_after

NOTICE = 3.0  # seconds of silence that are worth a line


@dataclass(frozen=True)
class Servers:
    """Where calls are posted to, and how patiently.

    concurrent: calls that each server has at a time. timeout: seconds of one call.
    max_retries: how often one call may fail before nothing more is asked (time-outs, errors of the server,
    lost connections; not while a server cannot be reached or has no room).
    max_wait: seconds to wait while no server answers.
    headers: of every call; what they hold is never repeated in a message.
    """

    urls: Sequence[str]
    concurrent: int = 64
    timeout: float = 300.0
    max_retries: int = 8
    max_wait: float = 600.0
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | bool = True


@dataclass(eq=False)
class Call:
    """One request. `read` makes the answer of the reply's JSON; it raises RetryableError or StopError.

    later: it comes after others of its conversation, whose prompt the server may still have in its cache, and
    so goes before what was not begun.
    """

    payload: dict[str, Any]
    read: Callable[[Any], Any]
    later: bool = False
    failures: int = 0
    answer: Any = None


class RetryableError(Exception):
    """A call that did not work, and may the next time.

    wait: seconds that the server asks for. counts: the call itself may be the cause.
    """

    def __init__(self, reason: str, wait: float | None = None, counts: bool = True) -> None:
        super().__init__(reason)
        self.wait, self.counts = wait, counts


class StopError(Exception):
    """Nothing more is to be asked; the message is for the user."""


class Dispatcher:
    """Some calls on their way. `answered` hears of each that has its answer, and returns what to ask next."""

    def __init__(
        self,
        servers: Servers,
        calls: Sequence[Call],
        answered: Callable[[Call], Sequence[Call]],
        bar: tqdm,
    ) -> None:
        self.servers = servers
        self.calls = calls
        self.answered = answered
        self.bar = bar
        self.heard = time.monotonic()  # when a server last answered
        self.busy: set[asyncio.Task] = set()  # workers whose call is under way
        self.stopping = False
        self.up = {url: asyncio.Event() for url in servers.urls}
        self.queue: asyncio.PriorityQueue[tuple[int, int, Call]] = asyncio.PriorityQueue()
        self.number = itertools.count()
        self.backoff = tenacity.wait_exponential_jitter(initial=0.5, max=15, jitter=0.5)

    async def run(self) -> None:
        """Returns when every call has its answer. Raises StopError, and whatever `answered` raises.

        Before it does, it waits for the calls that are under way: their answers are heard, too.
        """
        for call in self.calls:
            self._put(call)
        for up in self.up.values():
            up.set()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self.servers.tls),
            timeout=aiohttp.ClientTimeout(total=self.servers.timeout),
            headers=self.servers.headers,
            trust_env=True,
        )
        async with self.session:
            # in turn, so that a few calls are shared out, too
            places = [url for _ in range(self.servers.concurrent) for url in self.up]
            workers = [asyncio.create_task(self._work(url)) for url in places]
            tasks = [asyncio.create_task(self.queue.join()), *workers]  # a worker ends by an error only
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.stopping = True
            for task in {*tasks} - self.busy:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()

    async def _work(self, url: str) -> None:
        """Keeps one place at a server filled. While the server is in trouble, only one worker tries it."""
        while not self.stopping:
            await self.up[url].wait()
            try:
                await self._next(url)
            except RetryableError as trouble:
                if self.up[url].is_set():
                    self.up[url].clear()
                    await self._wait_for(url, trouble)
                    self.up[url].set()

    async def _next(self, url: str) -> None:
        """Asks the server one call; one that did not work goes back into the queue."""
        *_, call = await self.queue.get()
        worker = asyncio.current_task()
        assert worker is not None
        self.busy.add(worker)
        try:
            call.answer = await self._post(url, call)
            self.heard = time.monotonic()
            for new in self.answered(call):
                self._put(new)
                self.bar.total = (self.bar.total or 0) + 1
            self.bar.update()
        except RetryableError as trouble:
            call.failures += trouble.counts
            if self.stopping or call.failures > self.servers.max_retries:
                raise StopError(f"{url}: one prompt failed {call.failures} times ({trouble})") from None
            self._put(call)
            raise
        finally:
            self.busy.discard(worker)
            self.queue.task_done()

    def _put(self, call: Call) -> None:
        """What has failed most goes to the end: if it is the cause of the trouble, the rest is done first."""
        rank = 1 + call.failures if call.failures else 0 if call.later else 1
        self.queue.put_nowait((rank, next(self.number), call))

    async def _wait_for(self, url: str, trouble: RetryableError) -> None:
        """Until the server answers again. Raises StopError after `max_wait` s without any server's answer."""
        began, told, longest = time.monotonic(), False, self.servers.max_wait

        def tell(seconds: float) -> float:
            nonlocal told
            if not told and time.monotonic() - began + seconds > NOTICE:
                told = True
                say(f"{url}: {trouble}; waiting for it, up to {longest:.0f} s")
            return seconds

        def pause(state: tenacity.RetryCallState) -> float:
            nonlocal trouble
            failed = state.outcome.exception() if state.outcome else None
            trouble = failed if isinstance(failed, RetryableError) else trouble
            return tell(min(trouble.wait or self.backoff(state), longest))

        def silent(_: tenacity.RetryCallState) -> bool:
            return time.monotonic() - max(began, self.heard) >= longest

        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(RetryableError), wait=pause, stop=silent, reraise=True
        )
        try:
            await asyncio.sleep(tell(min(trouble.wait or 0, longest)))
            await trying(self._next, url)
        except RetryableError as last:
            raise StopError(f"{url}: no answer for {longest:.0f} s ({last})") from None
        if told:
            say(f"{url}: answers again, after {time.monotonic() - began:.0f} s")

    async def _post(self, url: str, call: Call) -> Any:
        """The answer to one call. Raises RetryableError, StopError."""
        try:
            async with self.session.post(url, json=call.payload) as response:
                body = await response.read()
        except asyncio.TimeoutError:
            raise RetryableError(f"no reply in {self.servers.timeout:g} s") from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise StopError(f"{url}: {error}") from None
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise RetryableError(f"cannot be reached ({error.os_error})", counts=False) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise RetryableError(f"connection lost ({type(error).__name__})") from None
        if response.status >= 400:
            raise self._refusal(url, response, body.decode(errors="replace"))
        try:
            reply = json.loads(body)
        except ValueError:
            raise RetryableError(f"no JSON in the reply: {body[:100]!r}") from None
        return call.read(reply)

    def _refusal(self, url: str, response: aiohttp.ClientResponse, said: str) -> Exception:
        """What a status means (RFC 9110; OpenAI guide "Error codes")."""
        for secret in self.servers.headers.values():
            said = said.replace(secret.removeprefix("Bearer ") or "\n", "<key>")
        status, said = response.status, f"status {response.status}: {' '.join(said.split())[:300]}"
        wait = retry_after(response.headers)
        if status in (502, 503, 504) or (status == 429 and "insufficient_quota" not in said):
            return RetryableError(said, wait, counts=False)
        if status in (408, 409, 425) or (status >= 500):
            return RetryableError(said, wait)
        return StopError(f"{url} refuses, {said}")


def say(line: str) -> None:
    """A line for the user, above the progress bars."""
    tqdm.write(f"ske-learn: {line}", file=sys.stderr)
