"""Runs questions through the steps of a method over any batch `generate`. No harness is known here.

Each distinct prompt is generated once; what the store has is not generated again; what is generated is
stored the moment it is finished. There is no barrier between the steps: a question's answer can be asked for
the moment its knowledge is there. An engine that takes requests while it runs has both steps in one call, and
is full until the end; for any other, call i carries step 1 of window i + 1 and step 2 of window i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

from ske_models.flow import Flow
from ske_models.knowledge import KnowledgeFile, Store, step_key
from ske_models.method import METHODS, Layout, Message, Question, answer_messages, knowledge_messages
from ske_models.prompts import PromptSet

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
class Written:
    """A text and its source: "generated", "store", "file" (the knowledge file) or "edited" (there)."""

    text: str
    source: str
    tokens: int | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How an answer came about.

    run: (method, layout, hash of the prompts). tokens, truncated: of the answer; None where the harness
    scores the options itself.
    """

    run: tuple[str, str, str]
    knowledge: Written | None
    tokens: int | None
    truncated: bool | None

    def trace(self) -> dict[str, Any]:
        """As it stands in results."""
        method, layout, prompts = self.run
        known = self.knowledge
        return {
            "method": method,
            "layout": layout,
            "prompts": prompts,
            "knowledge": known.text if known else None,
            "knowledge_source": known.source if known else None,
            "truncated": {"knowledge": known.truncated if known else None, "answer": self.truncated},
            "tokens": {"knowledge": known.tokens if known else None, "answer": self.tokens},
        }


class Answer(str):
    """An answer's text, with how it came about in `trace`. Pickles and hashes as a `str` does."""

    __slots__ = ("_how",)
    _how: Course | dict[str, Any]

    def __new__(cls, text: str, how: Course | dict[str, Any] | None = None) -> Answer:
        answer = super().__new__(cls, text)
        answer._how = how or {}
        return answer

    @property
    def trace(self) -> dict[str, Any]:
        """As `Course.trace`: made when it is asked for, since it is larger than most answers."""
        return self._how.trace() if isinstance(self._how, Course) else self._how


class Reply(Answer):
    """A text from an engine that says how long it is. None: it does not say, and the text is counted.

    tokens, prompt_tokens: of the text and of its prompt; cached_tokens: of its prompt, those that the engine
    had in its prefix cache. truncated: it reached its token limit.
    """

    __slots__ = ("cached_tokens", "prompt_tokens", "tokens", "truncated")
    tokens: int | None
    prompt_tokens: int | None
    cached_tokens: int | None
    truncated: bool | None

    def __new__(cls, text: str) -> Reply:
        reply = cast("Reply", super().__new__(cls, text))
        reply.tokens = reply.prompt_tokens = reply.cached_tokens = reply.truncated = None
        return reply

    def answer(self, how: Course) -> Answer:
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
        """The texts, in order; plain ones or `Reply`.

        May call `done(index, text)` as early as one is there. What that returns can be asked from then on: an
        engine that takes new requests while it runs appends them to the others (so their indices follow) and
        returns their texts, too; it should ask a second step while its cache still has the prompt of the
        first. Any other engine is given them in the next call.
        """

    def count_tokens(self, text: Any) -> int | None:
        """Tokens of a prompt or a text; None where the backend cannot tell."""

    def sampled(self, settings: Settings) -> bool:
        """Whether two generations with these settings may differ: those are neither shared nor stored."""


def measured(engine: Engine, request: Request, text: str) -> tuple[int | None, bool | None]:
    """(tokens of a text, whether it reached its limit): as the engine said, else counted, else None."""
    tokens, truncated = (text.tokens, text.truncated) if isinstance(text, Reply) else (None, None)
    if tokens is None:
        tokens = engine.count_tokens(text)
    if truncated is None and tokens is not None:
        truncated = tokens >= request.limit
    return tokens, truncated


def prompt_tokens(engine: Engine, request: Request, text: str) -> int:
    """Tokens of the prompt of a text: as the engine said, else counted, else 0."""
    said = text.prompt_tokens if isinstance(text, Reply) else None
    return (engine.count_tokens(request.prompt) or 0) if said is None else said


@dataclass
class StepCounts:
    """What a step cost, over all calls of a run.

    truncated, unknown_length: of all texts that were not taken from a knowledge file.
    prompt_tokens, cached_tokens, output_tokens, seconds: of what was generated in this run. Seconds are the
    wall time of the engine's calls; a call that carried both steps is shared out by their tokens.
    """

    asked: int = 0  # texts of this step that were needed
    generated: int = 0  # prompts that the engine was given
    shared: int = 0  # the same prompt as another one's that was generated in the same run
    reused: int = 0  # found in the store
    from_file: int = 0  # taken from the knowledge file, as the model had written it
    edited: int = 0  # taken from the knowledge file, edited
    truncated: int = 0  # reached the token limit
    unknown_length: int = 0  # the backend cannot tell whether the limit was reached
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompts' tokens, as far as the engine tells
    output_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: StepCounts) -> StepCounts:
        return StepCounts(*(x + y for x, y in zip(_values(self), _values(other), strict=True)))


def _values(counts: StepCounts) -> Iterable[Any]:
    return asdict(counts).values()


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a run. `settings` and `limit` are those of its answer; `origin` as in Request."""

    question: Question
    settings: Settings
    limit: int
    origin: Any = None


@dataclass
class Pipeline:
    """A method with its prompts over one engine and one store. Counts add up over all calls of `run`.

    window: how many questions are in their first step at a time, at most; twice as many are in any.
    """

    engine: Engine
    method: str
    layout: Layout
    prompts: PromptSet
    store: Store
    knowledge_settings: Settings
    knowledge_limit: int
    knowledge_file: KnowledgeFile | None = None
    window: int = 4096
    counts: dict[str, StepCounts] = field(
        default_factory=lambda: {"knowledge": StepCounts(), "answer": StepCounts()}
    )

    @property
    def writes_knowledge(self) -> bool:
        return METHODS[self.method][0].name == "knowledge"

    def run(self, items: Sequence[Item]) -> list[Answer]:
        """The answers, in the order of `items`. Raises UserError if the knowledge file fits no question."""
        self._check_file(items)
        steps = ("knowledge", "answer") if self.writes_knowledge else ("answer",)
        return Flow(self, items, steps, self._answer).run()

    def write_knowledge(self, items: Sequence[Item]) -> list[Written]:
        """Step 1 alone, for answers that the harness gets by other means (log-likelihood)."""
        self._check_file(items)
        return Flow(self, items, ("knowledge",), lambda _, written: written).run()

    def report(self) -> dict[str, Any]:
        """What goes into a result: method, layout, prompts, counts of the steps."""
        return {
            "method": self.method,
            "layout": self.layout,
            "prompts": self.prompts.name,
            "prompts_hash": self.prompts.hash,
            "knowledge_limit": self.knowledge_limit,
            "store": str(self.store.path) if self.store.path else None,
            "knowledge_file": str(self.knowledge_file.path) if self.knowledge_file else None,
            "steps": {name: asdict(count) for name, count in self.counts.items() if count.asked},
        }

    def course(self, known: Written | None, answer: Written | None) -> Course:
        """How an answer of this run came about."""
        tokens, truncated = (answer.tokens, answer.truncated) if answer else (None, None)
        return Course(self._labels, known, tokens, truncated)

    @cached_property
    def _labels(self) -> tuple[str, str, str]:
        return self.method, self.layout, self.prompts.hash

    def _check_file(self, items: Sequence[Item]) -> None:
        if self.knowledge_file is not None and items:
            self.knowledge_file.check_used(item.question.text for item in items)

    def _answer(self, known: Written | None, written: Written) -> Answer:
        text, course = written.text, self.course(known, written)
        return text.answer(course) if isinstance(text, Reply) else Answer(text, course)

    def request(self, step: str, item: Item, known: Written | None) -> Request:
        """What the engine is asked in a step of an item, `known` being its knowledge."""
        question, settings, limit = item.question, item.settings, item.limit
        if step == "knowledge":
            messages = knowledge_messages(question, self.prompts)
            settings, limit = self.knowledge_settings, self.knowledge_limit
        else:
            knowledge = known.text if known else None
            messages = answer_messages(question, self.prompts, self.method, self.layout, knowledge)
        prompt = self.engine.render(messages, question.chat)
        return Request(step, prompt, settings, limit, question.text, item.origin)

    def key(self, request: Request) -> str | None:
        """The store's; None for a text that is neither shared nor stored."""
        if self.engine.sampled(request.settings):
            return None
        return step_key(request.step, request.prompt, request.settings)

    def look_up(self, request: Request, key: str | None) -> Written | None:
        """A text that need not be generated: from the knowledge file, or from the store."""
        count = self.counts[request.step]
        if self.knowledge_file is not None and request.step == "knowledge":
            given = self.knowledge_file.get(request.question)
            if given is not None:
                count.edited += given.edited
                count.from_file += not given.edited
                return Written(given.text, "edited" if given.edited else "file")
        text = None if key is None else self.store.get(key)
        if text is None:
            return None
        count.reused += 1
        return self._measured(request, text, "store")

    def take(self, request: Request, key: str | None, text: str) -> tuple[Written, int]:
        """Stores and counts a new text; also its cost: tokens of prompt and text, at least 1."""
        if key is not None:
            self.store.put(key, request.step, self.prompts.hash, request.question, text)
        written, count = self._measured(request, text, "generated"), self.counts[request.step]
        sent, wrote = prompt_tokens(self.engine, request, text), written.tokens or 0
        count.generated += 1
        count.prompt_tokens += sent
        count.cached_tokens += (text.cached_tokens or 0) if isinstance(text, Reply) else 0
        count.output_tokens += wrote
        return written, max(sent + wrote, 1)

    def _measured(self, request: Request, text: str, source: str) -> Written:
        return Written(text, source, *measured(self.engine, request, text))
