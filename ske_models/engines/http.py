"""One queue of calls over several HTTP servers of the same model: evaluation's, synthesis' and the judge's.

    with tqdm(total=len(calls)) as bar:
        asyncio.run(Dispatcher(Servers(["http://a:8000/v1/completions"]), calls, lambda call: [], bar).run())

Each server has `concurrent` calls at a time and takes the next one from the queue when it has room. A server
that cannot be reached, or fails, is tried with one call at a time until it answers again; what it had been
given goes back into the queue, where the others find it. So a call is answered once, by whichever server.
What counts as a fault, and whose, is in `faults.py`. No harness is known here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import aiohttp
import tenacity
from tqdm import tqdm

from ske_models.engines.faults import (
    RejectedError,
    RetryableError,
    Said,
    StopError,
    masked,
    refusal,
    unsupported,
)
from ske_models.engines.servers import Servers, split
from ske_models.errors import UserError

NOTICE = 3.0  # seconds of silence that are worth a line
LARGEST = 64 * 2**20  # bytes of a reply; larger than any that holds texts or log-likelihoods


@dataclass(eq=False)
class Call:
    """One request. `read` makes the answer of the reply's JSON; it may raise the three errors of faults.py.

    later: it comes after others of its conversation, whose prompt the server may still have in its cache, and
    so goes before what was not begun.
    """

    payload: dict[str, Any]
    read: Callable[[Any], Any]
    later: bool = False
    failures: int = 0
    answer: Any = None


class Meter(Protocol):
    """Whoever pays for calls. Each method may raise StopError."""

    async def book(self, call: Call) -> None:
        """Before a call is sent; returns when there is room for its cost."""

    def settle(self, call: Call) -> None:
        """A call has its answer."""

    def fail(self, call: Call, charged: bool) -> None:
        """A call has failed. charged: it may have cost something."""


def give_up(call: Call, error: RetryableError | RejectedError) -> NoReturn:
    """Ends everything at a call that cannot be answered."""
    if isinstance(error, RejectedError):
        raise StopError(f"refuses, {error}")
    raise StopError(f"one prompt failed {call.failures} times ({error})")


class Dispatcher:
    """Some calls on their way.

    answered: hears of each call that has its answer, and returns what to ask next.
    failed: hears of each that was given up or rejected; returns the same, or raises StopError.
    faults: how often which kind of fault was met.
    """

    def __init__(
        self,
        servers: Servers,
        calls: Sequence[Call],
        answered: Callable[[Call], Sequence[Call]],
        bar: tqdm,
        failed: Callable[[Call, RetryableError | RejectedError], Sequence[Call]] = give_up,
        meter: Meter | None = None,
    ) -> None:
        self.servers = servers
        self.calls = calls
        self.answered = answered
        self.bar = bar
        self.failed = failed
        self.meter = meter
        self.faults: Counter[str] = Counter()
        self.ends = time.monotonic() + (servers.deadline or float("inf"))
        self.heard = time.monotonic()  # when a server last answered
        self.works = False  # whether a server has answered, now or in an earlier start
        self.busy: set[asyncio.Task] = set()  # workers whose call is under way
        self.stopping = False
        # by address without user and password: the headers that the address itself asks for
        self.places = dict(split(url) for url in servers.urls)
        self.up = {url: asyncio.Event() for url in self.places}
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
            headers=self.servers.headers,
            trust_env=True,
        )
        async with self.session:
            # in turn, so that a few calls are shared out, too
            places = [url for _ in range(self.servers.concurrent) for url in self.up]
            workers = [asyncio.create_task(self._work(url)) for url in places]
            tasks = [asyncio.create_task(self.queue.join()), *workers]  # a worker ends by an error only
            done, _ = await asyncio.wait(
                tasks, timeout=self.servers.deadline, return_when=asyncio.FIRST_COMPLETED
            )
            self.stopping = True
            for task in {*tasks} - self.busy:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in done:
                task.result()
            if not done:
                raise StopError(f"the deadline of {self.servers.deadline} s has passed")

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

    async def _next(self, url: str, probing: bool = False) -> None:
        """Sends the server one call; one that did not work goes back into the queue.

        probing: although the server is in trouble. Raises RetryableError if it (still) is, and StopError.
        """
        rank, number, call = await self.queue.get()
        if not (probing or self.up[url].is_set()):  # it failed while this worker waited
            self.queue.put_nowait((rank, number, call))
            self.queue.task_done()
            return
        try:
            new = await self._outcome(url, call)
        except RetryableError:
            self._put(call)
            raise
        except UserError as mistake:  # which asyncio would take for the end of the process
            raise StopError from mistake
        else:
            for following in new:
                self._put(following)
            self.bar.total = (self.bar.total or 0) + len(new)
            self.bar.update()
        finally:
            self.queue.task_done()

    async def _outcome(self, url: str, call: Call) -> Sequence[Call]:
        """What to ask after a call that was answered or given up. Raises as `_next`."""
        error: RetryableError | RejectedError
        try:
            await self._send(url, call)
            self.heard, self.works = time.monotonic(), True
            return self.answered(call)
        except RetryableError as trouble:
            self._count(url, call, trouble)
            if call.failures <= self.servers.max_retries:
                raise
            error = trouble
        except RejectedError as rejected:
            self.faults["rejected"] += 1
            self.heard = time.monotonic()
            error = rejected
        try:
            return self.failed(call, error)
        except StopError as stop:
            raise StopError(f"{url}: {stop}") from None

    def _count(self, url: str, call: Call, trouble: RetryableError) -> None:
        """Notes a fault. Raises StopError if no more is to be sent."""
        self.faults[trouble.kind] += 1
        call.failures += trouble.counts
        if self.stopping:
            raise StopError(f"{url}: {trouble}")

    def _put(self, call: Call) -> None:
        """What has failed most goes to the end: if it is the cause of the trouble, the rest is done first."""
        rank = 1 + call.failures if call.failures else 0 if call.later else 1
        self.queue.put_nowait((rank, next(self.number), call))

    async def _wait_for(self, url: str, trouble: RetryableError) -> None:
        """Until the server answers again.

        Raises StopError after `max_wait` s without any server's answer, or where replies come, but never one
        that can be read: something else than a model answers there.
        """
        began, told, longest = time.monotonic(), False, self.servers.max_wait

        def tell(seconds: float) -> float:
            nonlocal told
            if not told and time.monotonic() - began + seconds > NOTICE:
                told = True
                say(f"{url}: {trouble}; waiting for it, up to {longest:.0f} s")
            return seconds

        def pause(state: tenacity.RetryCallState) -> float:
            nonlocal trouble
            trouble = _fault(state)
            return tell(min(trouble.wait or self.backoff(state), longest))

        def silent(state: tenacity.RetryCallState) -> bool:
            tries, useless = state.attempt_number, not self.works and _fault(state).kind == "malformed"
            if useless and tries > self.servers.max_retries:
                raise StopError(f"{url}: {tries} replies, none of which can be read ({_fault(state)})")
            return time.monotonic() - max(began, self.heard) >= longest

        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(RetryableError), wait=pause, stop=silent, reraise=True
        )
        try:
            # what may be the call's own fault is worth trying another call at once
            await asyncio.sleep(tell(min(trouble.wait or (0 if trouble.counts else 0.5), longest)))
            await trying(self._next, url, probing=True)
        except RetryableError as last:
            raise StopError(f"{url}: no answer for {longest:.0f} s ({last})") from None
        if told:
            say(f"{url}: answers again, after {time.monotonic() - began:.0f} s")

    async def _send(self, url: str, call: Call) -> None:
        """Has one call answered, and its cost counted."""
        if self.meter:
            await self.meter.book(call)
        worker = asyncio.current_task()
        assert worker is not None
        self.busy.add(worker)
        try:
            call.answer = await self._post(url, call)
            if self.meter:
                self.meter.settle(call)
        except (RetryableError, RejectedError, StopError) as error:
            if self.meter:
                self.meter.fail(call, error.charged)
            error.args = (masked(str(error), self.servers.secrets),)
            raise
        finally:
            self.busy.discard(worker)

    async def _post(self, url: str, call: Call) -> Any:
        """The answer to one call. Raises RetryableError, RejectedError, StopError."""
        try:
            while True:
                payload = self.servers.fitted(call.payload)
                status, headers, body = await self._exchange(url, payload)
                if status < 400:
                    break
                said = Said(status, body.decode(errors="replace"), headers)
                name = unsupported(said, payload)
                if name is None:
                    raise refusal(said, self.servers.key)
                if self.servers.leave_out(name):
                    say(f"{url}: does not take {name}={payload[name]}; {self.servers.instead(name)}")
            try:
                reply = json.loads(body)
            except (ValueError, RecursionError):
                reason = f"no JSON in the reply: {body[:100]!r}"
                raise RetryableError("malformed", reason, charged=True) from None
            return call.read(reply)
        except StopError as stop:
            raise StopError(f"{url}: {stop}") from None

    async def _exchange(self, url: str, payload: Any) -> tuple[int, Mapping[str, str], bytes]:
        """(status, headers, body) of a request. Raises RetryableError if it fails, StopError if all will."""
        seconds = min(self.servers.timeout, max(self.ends - time.monotonic(), 0.01))
        limit, own = aiohttp.ClientTimeout(total=seconds), self.places[url]
        try:
            async with self.session.post(url, json=payload, headers=own, timeout=limit) as response:
                return response.status, response.headers, await _body(response)
        except asyncio.TimeoutError:
            raise RetryableError("timeout", f"no reply in {seconds:.3g} s", charged=True) from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise StopError(str(error)) from None
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            reason = f"cannot be reached ({error.os_error})"
            raise RetryableError("connection", reason, counts=False) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = f"connection lost ({type(error).__name__})"
            raise RetryableError("connection", reason, charged=True) from None


def _fault(state: tenacity.RetryCallState) -> RetryableError:
    """Why another try is needed; nothing else has one."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, RetryableError)
    return error


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Raises RetryableError, without having read it, for a body that is too large for memory."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST:
            response.close()
            reason = f"a reply of more than {LARGEST >> 20} MB"
            raise RetryableError("malformed", reason, charged=True)
    return b"".join(chunks)


def say(line: str) -> None:
    """A line for the user, above the progress bars."""
    tqdm.write(f"ske-learn: {line}", file=sys.stderr)
