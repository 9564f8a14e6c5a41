"""The values that pass between pipeline, engines and harnesses. No harness and no engine is known here.

from ske_models.records import Completion, Request
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from ske_models.method import Message, Question

Settings = Mapping[str, Any]  # sampling settings in the engine's own words


@dataclass(frozen=True)
class Request:
    """One prompt for the engine. `limit`: the most tokens it may write; `origin`: the harness' own item."""

    step: str
    prompt: Any
    settings: Settings
    limit: int
    question: str
    origin: Any


@dataclass(frozen=True, slots=True)
class StepOutput:
    """A text and its source: "generated", "store", "file" (the knowledge file), "edited" (there)
    or "empty" (ske_models/controls.py).

    tokens, truncated: of the whole text; None where the backend cannot tell. reply: what of it is used, which
    is all of it for a model that does not think first. finished: its last thought has ended. looped: it was
    ended because it only repeated itself (`stop_loops`).
    """

    text: str
    source: str
    tokens: int | None = None
    truncated: bool | None = None
    reply: str = ""
    finished: bool = True
    looped: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """How an answer came about.

    run: (method, layout, hash of the prompts). tokens, truncated, looped: of the answer; None where the
    harness scores the options itself.
    """

    run: tuple[str, str, str]
    knowledge: StepOutput | None
    tokens: int | None
    truncated: bool | None
    looped: bool | None = None

    def trace(self) -> dict[str, Any]:
        """As it is written into results."""
        method, layout, prompts = self.run
        known = self.knowledge
        return {
            "method": method,
            "layout": layout,
            "prompts": prompts,
            "knowledge": known.reply if known else None,
            "knowledge_source": known.source if known else None,
            "truncated": {"knowledge": known.truncated if known else None, "answer": self.truncated},
            "looped": {"knowledge": known.looped if known else None, "answer": self.looped},
            "tokens": {"knowledge": known.tokens if known else None, "answer": self.tokens},
        }


class Answer(str):
    """An answer's text, with how it came about in `trace`. Pickles and hashes as a `str` does."""

    __slots__ = ("_how",)
    _how: Trace | dict[str, Any] | None

    def __new__(cls, text: str, how: Trace | dict[str, Any] | None = None) -> Answer:
        answer = super().__new__(cls, text)
        answer._how = how
        return answer

    @property
    def trace(self) -> dict[str, Any]:
        """As `Trace.trace`: made when it is needed, since it is larger than most answers."""
        return self._how.trace() if isinstance(self._how, Trace) else self._how or {}

    @property
    def knowledge(self) -> StepOutput | None:
        """The output of the first step, thought included; None if there was none, or it is not known."""
        return self._how.knowledge if isinstance(self._how, Trace) else None


class Completion(Answer):
    """A text from an engine that says how long it is. None: it does not say, and the text is counted.

    tokens, prompt_tokens: of the text and of its prompt; cached_tokens: of its prompt, those that the engine
    had in its prefix cache. truncated: it reached its token limit. prompt_cut: the prompt had no room in the
    model's length and lost its beginning; prompt_tokens are those that were sent. filtered: a server's
    content filter kept it back; it is empty, and not stored. looped: it was ended because it only repeated
    itself (ske_models/loops.py).
    """

    __slots__ = ("cached_tokens", "filtered", "looped", "prompt_cut", "prompt_tokens", "tokens", "truncated")
    tokens: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    truncated: bool | None
    prompt_cut: bool
    filtered: bool
    looped: bool

    def __new__(cls, text: str) -> Completion:
        reply = cast("Completion", super().__new__(cls, text))
        reply.tokens = reply.prompt_tokens = reply.cached_tokens = reply.truncated = None
        reply.prompt_cut = reply.filtered = reply.looped = False
        return reply

    def answer(self, how: Trace) -> Answer:
        """The answer with this text: this very object, if it is not another item's answer already."""
        if self._how:
            return Answer(self, how)
        self._how = how
        return self


Done = Callable[[int, str], Sequence[Request]]


class Engine(Protocol):
    """What an adapter brings: the harness' backend, seen from here."""

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        """The prompt of a conversation (`chat`) or of one plain text; JSON can hold it."""

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        """The texts, in order; plain ones or `Completion`.

        May call `done(index, text)` as soon as one is finished. What that returns can be requested from
        then on: an engine that takes new requests while it runs appends them to the others (so their indices
        follow) and returns their texts, too; it should begin a second step while its cache still has the
        prompt of the first. Any other engine is given them in the next call.
        """

    def count_tokens(self, text: Any) -> int | None:
        """Tokens of a prompt or a text; None where the backend cannot tell."""

    def cut_to(self, request: Request) -> int | None:
        """How many tokens of a prompt are sent that is longer; None: it is whole, or that is not known."""

    def sampled(self, settings: Settings) -> bool:
        """Whether two generations with these settings may differ: those are neither shared nor stored."""


def measured(engine: Engine, request: Request, text: str) -> tuple[int | None, bool | None]:
    """(tokens of a text, whether it reached its limit): as the engine said, else counted, else None."""
    tokens, truncated = (text.tokens, text.truncated) if isinstance(text, Completion) else (None, None)
    if tokens is None:
        tokens = engine.count_tokens(text)
    if truncated is None and tokens is not None:
        truncated = tokens >= request.limit
    return tokens, truncated


def prompt_tokens(engine: Engine, request: Request, text: str) -> int:
    """Tokens of the prompt of a text, as sent: as the engine said, else counted, else 0."""
    said = text.prompt_tokens if isinstance(text, Completion) else None
    if said is not None:
        return said
    tokens, room = engine.count_tokens(request.prompt) or 0, engine.cut_to(request)
    return tokens if room is None else min(tokens, room)


@dataclass
class StepCounts:
    """What a step cost, over all calls of a run.

    truncated, looped, unknown_length, empty, unfinished_thought, prompts_cut: of all texts that are not from
    a knowledge file. prompt_tokens, cached_tokens, output_tokens, seconds: of what was generated in this run.
    Seconds are the wall time of the engine's calls; a call that carried both steps is shared out by their
    tokens.
    """

    asked: int = 0  # texts of this step that were needed
    generated: int = 0  # prompts that the engine was given
    shared: int = 0  # the same prompt as another one's that was generated in the same run
    reused: int = 0  # found in the store
    from_file: int = 0  # taken from the knowledge file, as the model had written it
    edited: int = 0  # taken from the knowledge file, edited
    truncated: int = 0  # reached the token limit
    looped: int = 0  # ended before it, because it only repeated itself (`stop_loops`)
    unknown_length: int = 0  # the backend cannot tell whether the limit was reached
    empty: int = 0  # without a reply: nothing was written, or nothing after the thought
    unfinished_thought: int = 0  # of these, those whose thought did not end
    filtered: int = 0  # of these, those kept back by a server's content filter; sent again by the next run
    without_stem: int = 0  # questions whose options the prompt set leaves out in step 1, and the task cannot
    prompts_cut: int = 0  # prompts without room in the model's length, whose beginning was cut off
    prompt_tokens: int = 0  # as sent
    cached_tokens: int = 0  # of the prompts' tokens, as far as the engine tells
    output_tokens: int = 0
    seconds: float = 0.0

    def note(self, text: StepOutput) -> None:
        """Counts what is to be known of every text, new or not."""
        self.truncated += text.truncated is True
        self.looped += text.looped
        self.unknown_length += text.truncated is None
        self.empty += not text.reply.strip()
        self.unfinished_thought += not text.finished

    def __add__(self, other: StepCounts) -> StepCounts:
        return StepCounts(*(x + y for x, y in zip(_values(self), _values(other), strict=True)))


def _values(counts: StepCounts) -> Iterable[Any]:
    return asdict(counts).values()


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a run. `settings` and `limit` are those of its answer; `origin` as in Request.

    group: (task, subset), as far as they are known. donor: the question whose knowledge this one is given, in
    a control (ske_models/controls.py); None: its own.
    """

    question: Question
    settings: Settings
    limit: int
    origin: Any = None
    group: tuple[str, str] = ("", "")
    donor: Question | None = None
