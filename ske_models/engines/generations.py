"""Generations over HTTP servers: both steps of the method in one queue, whatever harness makes the calls.

    completions = generate(servers, requests, calls_of, done)     # as the pipeline's Engine.generate

A prompt that a content filter stops has an empty text, which is counted and not stored; what else a server
refuses, or does not answer, ends the run with one line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tqdm import tqdm

from ske_models.engines.faults import RejectedError, RetryableError, StopError
from ske_models.engines.http import Call, Dispatcher, give_up, say
from ske_models.engines.servers import Servers
from ske_models.errors import UserError
from ske_models.records import Completion, Done, Request


def generate(
    servers: Servers,
    requests: Sequence[Request],
    calls_of: Callable[[Sequence[Request]], list[Call]],
    done: Done,
    quiet: bool = False,
) -> list[Completion]:
    """A completion for each request and for each that `done` returned, in order.

    calls_of: one call per request; its `read` gives a Completion.
    Raises UserError if the servers do not answer, or refuse.
    """
    calls = calls_of(requests)
    questions = [request.question for request in requests]
    place = {call: index for index, call in enumerate(calls)}
    filtered: list[str] = []

    def answered(call: Call) -> list[Call]:
        following = done(place[call], call.answer)
        questions.extend(request.question for request in following)
        new = calls_of(following)
        place.update(zip(new, range(len(calls), len(calls) + len(new)), strict=True))
        calls.extend(new)
        return new

    def failed(call: Call, error: RetryableError | RejectedError) -> list[Call]:
        if not (isinstance(error, RejectedError) and error.filtered):
            give_up(call, error)
        filtered.append(" ".join(questions[place[call]].split())[:80])
        call.answer = Completion("")
        call.answer.filtered = True
        call.answer.tokens, call.answer.truncated = 0, False
        return answered(call)

    async def ask() -> None:
        with tqdm(total=len(calls), desc="Requesting servers", disable=quiet) as bar:
            await Dispatcher(servers, calls[:], answered, bar, failed).run()

    run(ask())
    if filtered:
        say(
            f"{len(filtered)} of {len(calls)} prompts were stopped by the server's content filter; their "
            f"texts are empty. The first is of the question: {filtered[0]}"
        )
    return [call.answer for call in calls]


def run(asking: Coroutine[Any, Any, None]) -> None:
    """Raises UserError where the servers do not answer, and within a notebook's event loop."""
    try:
        asyncio.run(asking)
    except StopError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{error}; what was written is kept: the same command goes on") from None
    except RuntimeError as error:
        if "running event loop" not in str(error):
            raise
        asking.close()
        raise UserError("in a notebook, first: import nest_asyncio; nest_asyncio.apply()") from None
