"""The judge `openai`: any OpenAI-compatible chat endpoint, tried as often as needed and paid for once.

    export OPENAI_API_KEY=...; python -m training.stage judge runs/paper 1

Calls go through the one dispatcher (ske_models/engines/http.py), faults and retries included; ledger.py has
what they cost. The official client is not used: it takes an empty or broken reply for a good one, gives up a
`Retry-After` of more than two minutes, and would be a second retry policy. A server on this machine needs no
key.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tqdm import tqdm

from ske_models.engines import completion
from ske_models.engines.faults import RejectedError, RetryableError, StopError
from ske_models.engines.http import Call, Dispatcher
from ske_models.engines.servers import Servers, checked, split
from ske_models.errors import UserError
from ske_models.store import step_key
from training.judges.ledger import Bill, Ledger
from training.judges.verdict import AGAIN, Verdict, read_verdict
from training.serving.where import JUDGE, urls
from training.settings.judge import OpenAIJudge
from training.settings.secret import revealed

IN_A_ROW = 50  # so many texts failed one after the other: the endpoint does not work
FRAME = 64  # tokens around a prompt, at most: the roles and control tokens of a chat template


def ask(
    judge: OpenAIJudge, prompts: Sequence[str], book: Path, stage: str, label: str
) -> tuple[list[Verdict], dict[str, Any]]:
    """The verdicts, one per prompt, and what they cost.

    The costs are tokens {"input", "output"} and usd of `stage`, over all its starts; usd_unconfirmed, at
    most, for calls whose reply never came or did not say; faults {kind: calls} of this start. A text that
    fails in all retries is unscored. Raises UserError: no key, an endpoint that refuses or does not work at
    all, deadline or spending cap reached; what was answered is in `book`, and the same call goes on.
    """
    servers = Servers(
        [address(revealed(url)) for url in (urls(JUDGE) if judge.serve else [judge.base_url])],
        judge.concurrency,
        judge.timeout_s,
        judge.max_retries,
        headers={"Authorization": f"Bearer {key(judge)}"},
        deadline=judge.deadline_s,
        key=judge.key_env,
    )
    with closing(Ledger(book, judge.usd_per_million or {}, stage)) as ledger:
        verdicts = _Verdicts(judge, prompts, ledger)
        calls = verdicts.needed()
        with tqdm(total=len(prompts), initial=len(prompts) - len(calls), desc=label, unit="text") as bar:
            bill = Bill(ledger, judge.max_usd, verdicts.cost)
            asking = Dispatcher(servers, calls, verdicts.answered, bar, verdicts.failed, bill)
            asking.works = len(calls) < len(prompts)
            verdicts.progress = lambda: bar.set_postfix(
                unscored=verdicts.unscored, faults=asking.faults.total(), refresh=False
            )
            try:
                asyncio.run(asking.run())
                verdicts.check()
            except StopError as stop:
                kept = f"{verdicts.kept} of {len(prompts)} verdicts are kept, the same command continues"
                raise UserError(f"judge {judge.model}: {stop}; {kept}") from None
        return verdicts.whole(), ledger.spent_here() | {"faults": dict(asking.faults)}


def key(judge: OpenAIJudge) -> str:
    """The key, from the environment; "none" for a server on this machine, or one with a password in its URL.

    Raises UserError if it is missing, or cannot be a key.
    """
    if judge.serve:
        return "none"
    value = os.environ.get(judge.key_env, "").strip()
    url = checked("judge.base_url", revealed(judge.base_url))
    if not value and (split(url)[1] or _is_loopback(urlsplit(url).hostname or "")):
        return "none"
    if not value:
        server = split(url)[0].partition("?")[0]  # a query may have a secret
        raise UserError(
            f"judge: no key for {server}: set the environment variable {judge.key_env} "
            "(to `none` if the server needs no key)"
        )
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise UserError(f"judge: {judge.key_env} holds blanks or characters that no key has; set it again")
    return value


def address(base_url: str) -> str:
    """Where to post, as the official client makes it from a base URL; one that is whole stays as it is."""
    parts = urlsplit(checked("judge.base_url", base_url))
    path = parts.path.rstrip("/")
    end = "/chat/completions"
    return parts._replace(path=path if path.endswith(end) else path + end).geturl()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Purpose(NamedTuple):
    """What a call is for: the prompt's place, which attempt it is, and the call's key in the ledger."""

    place: int
    attempt: int
    key: str


class _Verdicts:
    """The verdicts of one start. A verdict without a score is requested again, sampled.

    unscored, kept: how many so far have no score, or were answered. progress: shows them.
    """

    def __init__(self, judge: OpenAIJudge, prompts: Sequence[str], ledger: Ledger) -> None:
        self.judge = judge
        self.prompts = prompts
        self.ledger = ledger
        self.found: dict[int, Verdict] = {}
        self.purposes: dict[Call, _Purpose] = {}
        self.unscored = self.lost = self.lost_in_a_row = 0
        self.last_fault = ""
        self.progress: Callable[[], None] = lambda: None

    @property
    def kept(self) -> int:
        return len(self.found) - self.lost

    def needed(self) -> list[Call]:
        """The calls that the ledger has no answer to."""
        return [call for index in range(len(self.prompts)) for call in self._ask(index, 1)]

    def whole(self) -> list[Verdict]:
        """One verdict per prompt, in order."""
        return [self.found[index] for index in range(len(self.prompts))]

    def check(self) -> None:
        """Raises StopError if nothing at all was judged."""
        if self.prompts and self.lost == len(self.prompts):
            raise StopError(f"not one text was judged; the last fault: {self.last_fault}")

    def cost(self, call: Call) -> tuple[str, tuple[int, int]]:
        """(key of a call, tokens of its input and output at most). A token has at least one byte."""
        purpose = self.purposes[call]
        prompt = self.prompts[purpose.place].encode(errors="replace")
        return purpose.key, (len(prompt) + FRAME, self.judge.max_tokens)

    def answered(self, call: Call) -> Sequence[Call]:
        """A reply has come: perhaps the verdict, else what to ask again."""
        purpose, reply = self.purposes.pop(call), call.answer
        return self._read(purpose.place, purpose.attempt, reply.text, bool(reply.truncated))

    def failed(self, call: Call, error: RetryableError | RejectedError) -> Sequence[Call]:
        """A text stays unscored. Raises StopError if the endpoint does not seem to work at all."""
        purpose = self.purposes.pop(call)
        self.last_fault = str(error)
        if isinstance(error, RejectedError) and error.filtered:
            return self._note(purpose.place, Verdict(None, "", purpose.attempt, f"filtered: {error}"))
        self.lost += 1
        self.lost_in_a_row += 1
        self._note(purpose.place, Verdict(None, "", purpose.attempt, f"failed: {error}"))
        if self.lost_in_a_row == IN_A_ROW:
            raise StopError(f"{IN_A_ROW} texts in a row failed, the last one with: {error}")
        return []

    def _ask(self, index: int, attempt: int) -> list[Call]:
        """The call for a verdict; none if the ledger has it."""
        judge = self.judge
        heat = judge.temperature if attempt == 1 else max(judge.temperature, AGAIN)
        settings = {"model": judge.model, "max_tokens": judge.max_tokens, "temperature": heat}
        purpose = _Purpose(index, attempt, step_key(f"judge {attempt}", self.prompts[index], settings))
        known = self.ledger.reply(purpose.key)
        if known is not None:
            return self._read(index, attempt, *known)
        messages = [{"role": "user", "content": self.prompts[index]}]
        call = Call({"messages": messages, **settings}, _whole, later=attempt > 1)
        self.purposes[call] = purpose
        return [call]

    def _read(self, index: int, attempt: int, text: str, truncated: bool) -> list[Call]:
        verdict = read_verdict(text, truncated, attempt)
        if verdict.score is None and attempt == 1:
            return self._ask(index, 2)
        self.lost_in_a_row = 0
        return self._note(index, verdict)

    def _note(self, index: int, verdict: Verdict) -> list[Call]:
        self.found[index] = verdict
        self.unscored += verdict.score is None
        self.progress()
        return []


def _whole(outputs: Any) -> completion.Reply:
    """A reply with its thought in its text; cut by a filter is cut."""
    reply = completion.read(outputs)
    finish = "length" if reply.filtered else reply.finish
    return completion.Reply(
        completion.with_thought(reply, reply.text),
        "",
        finish,
        reply.prompt_tokens,
        reply.completion_tokens,
    )
