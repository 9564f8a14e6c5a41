"""The judge `openai`: any OpenAI-compatible chat endpoint, asked as often as it takes and paid for once.

    export OPENAI_API_KEY=...; python -m training.stages.judge runs/paper 1

Every call is booked in RUN/judge.sqlite before it is sent, at the most that it can cost, and settled by the
usage that its reply reports. So no reply is paid twice, however a run ends, and the spending cap holds over
all stages of a run. A server on this machine needs no key.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import tenacity
from tqdm import tqdm

from ske_models.errors import UserError
from ske_models.store import step_key
from training.judges.endpoint import Endpoint, FaultError, RefusedError
from training.judges.ledger import Ledger
from training.judges.verdict import AGAIN, Verdict, read_verdict
from training.recipe import OpenAIJudge

IN_A_ROW = 50  # so many texts failed one after the other: the endpoint does not work
FRAME = 64  # tokens around a prompt, at most: the roles and control tokens of a chat template


class StopError(Exception):
    """Nothing more is to be asked."""


def ask(
    judge: OpenAIJudge, prompts: Sequence[str], book: Path, stage: str, label: str
) -> tuple[list[Verdict], dict[str, Any]]:
    """The verdicts, one a prompt, and what they cost.

    The costs are tokens {"input", "output"} and usd of `stage`, over all its starts; usd_unconfirmed, at
    most, for calls whose reply never came or did not say; faults {what: calls} of this start. A text that
    fails in all retries is unscored. Raises UserError: no key, an endpoint that refuses or does not work at
    all, deadline or spending cap reached; what was answered is in `book`, and the same call goes on.
    """
    endpoint = Endpoint(judge)
    with closing(Ledger(book, judge.usd_per_million or {}, stage)) as calls:
        asking = Dispatcher(judge, endpoint, calls, label)
        verdicts = asyncio.run(asking.run(prompts))
        if isinstance(verdicts, str):
            raise UserError(f"judge {judge.model}: {verdicts}")
        return verdicts, calls.spent_here() | {"faults": dict(asking.faults)}


class Dispatcher:
    """One start of a stage. `faults`: how often what went wrong."""

    def __init__(self, judge: OpenAIJudge, endpoint: Endpoint, book: Ledger, label: str) -> None:
        self.judge = judge
        self.endpoint = endpoint
        self.book = book
        self.label = label
        self.faults: Counter[str] = Counter()
        self._ends = time.monotonic() + (judge.deadline_s or float("inf"))
        self._backoff = tenacity.wait_exponential_jitter(initial=0.5, max=60, jitter=0.5)
        self._verdicts: dict[int, Verdict] = {}
        self._unscored = self._failed = self._failed_in_a_row = self._in_flight = 0
        self._last_fault = ""
        self._stopped: str | None = None  # why

    async def run(self, prompts: Sequence[str]) -> list[Verdict] | str:
        """The verdicts, or why there is not one for every prompt. Calls under way are waited for."""
        self._stopping, self._settled = asyncio.Event(), asyncio.Condition()
        work = iter(enumerate(prompts))
        with tqdm(total=len(prompts), desc=self.label, unit="text") as self._bar:
            async with self.endpoint:
                crew = min(self.judge.concurrency, len(prompts))
                await asyncio.gather(*(self._worker(work) for _ in range(crew)))
        if self._stopped is None and prompts and self._failed == len(prompts):
            self._stopped = f"not one text was judged; the last fault: {self._last_fault}"
        if self._stopped is not None:
            kept = len(self._verdicts) - self._failed
            return f"{self._stopped}; {kept} of {len(prompts)} verdicts are kept, the same command continues"
        return [self._verdicts[index] for index in range(len(prompts))]

    async def _worker(self, work: Iterator[tuple[int, str]]) -> None:
        for index, prompt in work:
            try:
                self._note(index, await self._verdict(prompt))
            except StopError:
                return
            except sqlite3.Error as error:
                self._stop(f"{self.book.path}: cannot be written: {error}; make room")
            if self._stopping.is_set():
                return

    def _note(self, index: int, verdict: Verdict) -> None:
        failed = (verdict.why or "").startswith("failed")
        self._verdicts[index] = verdict
        self._unscored += verdict.score is None
        self._failed += failed
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        if self._failed_in_a_row == IN_A_ROW:
            self._stop(f"{IN_A_ROW} texts in a row failed, the last one with: {self._last_fault}")
        self._bar.update()
        self._bar.set_postfix(unscored=self._unscored, faults=sum(self.faults.values()), refresh=False)

    def _stop(self, why: str) -> StopError:
        """Has everybody stop after the call that is under way; the first reason is the one that is told."""
        self._stopped = self._stopped or why
        self._stopping.set()
        return StopError(why)

    async def _verdict(self, prompt: str) -> Verdict:
        """Asks a second time for a verdict without a score; a fault that lasts leaves the text unscored."""
        verdict = Verdict(None, "")
        for attempt, temperature in ((1, self.judge.temperature), (2, max(self.judge.temperature, AGAIN))):
            try:
                text, truncated = await self._reply(prompt, attempt, temperature)
            except FaultError as fault:
                return Verdict(None, verdict.text, attempt, f"failed: {fault}")
            verdict = read_verdict(text, truncated, attempt)
            if verdict.score is not None:
                break
        return verdict

    async def _reply(self, prompt: str, attempt: int, temperature: float) -> tuple[str, bool]:
        """(text, truncated): from the book, or from the endpoint. Raises FaultError, StopError."""
        judge = self.judge
        settings = {"model": judge.model, "max_tokens": judge.max_tokens, "temperature": temperature}
        call = step_key(f"judge {attempt}", prompt, settings)
        known = self.book.reply(call)
        if known is not None:
            return known
        retrying = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(judge.max_retries + 1),
            wait=self._wait,
            sleep=self._sleep,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FaultError) and error.again),
            reraise=True,
        )
        return await retrying(self._call, call, prompt, settings)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked_for = fault.wait if isinstance(fault, FaultError) else None
        return asked_for + random.uniform(0, 0.25) if asked_for else self._backoff(state)

    async def _sleep(self, seconds: float) -> None:
        """Waits before a retry. Raises StopError if everybody stops, or the deadline passes, meanwhile."""
        if seconds > 60:
            self._bar.write(f"judge {self.judge.model}: waits {seconds:.0f} s, as the server asks")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), min(seconds, self._left()))
        if self._stopping.is_set():
            raise StopError
        self._check_deadline()

    def _left(self) -> float:
        return max(self._ends - time.monotonic(), 0.0)

    def _check_deadline(self) -> None:
        if self._left() == 0:
            raise self._stop(f"the deadline of {self.judge.deadline_s} s has passed")

    async def _call(self, call: str, prompt: str, settings: dict[str, Any]) -> tuple[str, bool]:
        """One call of the endpoint. Raises FaultError, StopError."""
        self._check_deadline()
        # a token has at least one byte; so no prompt has more tokens than this
        number = await self._book(call, (len(prompt.encode()) + FRAME, self.judge.max_tokens))
        try:
            seconds = min(self.judge.timeout_s, self._left())
            reply = await self.endpoint.post(prompt, settings, seconds)
        except FaultError as fault:
            self.faults[fault.kind] += 1
            self._last_fault = str(fault)
            if not fault.charged:
                self.book.cancel(number)
            self._check_deadline()
            raise
        except RefusedError as refused:
            self.book.cancel(number)
            raise self._stop(str(refused)) from None
        finally:
            async with self._settled:
                self._in_flight -= 1
                self._settled.notify_all()
        self.book.settle(number, reply.text, reply.truncated, reply.tokens)
        return reply.text, reply.truncated

    async def _book(self, call: str, most: tuple[int, int]) -> int:
        """Books a call, once the spending cap has room for it whatever the calls under way cost."""
        cap, price = self.judge.max_usd, self.book.usd(most)
        async with self._settled:
            if cap is not None:
                await self._settled.wait_for(lambda: self.book.total + price <= cap or self._in_flight == 0)
                if self.book.total + price > cap:
                    spent = f"${self.book.total:.4f} are spent and one more call may cost ${price:.4f}"
                    raise self._stop(f"max_usd is {cap:g}: {spent}; raise judge.max_usd")
            if self._stopping.is_set():
                raise StopError
            number = self.book.book(call, most)
            self._in_flight += 1
            return number
