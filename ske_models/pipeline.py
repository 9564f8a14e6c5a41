"""Runs questions through the steps of a method over any batch `generate`. No harness is known here.

Each distinct prompt is generated once; what the store has is not generated again; what is generated is
stored the moment it is finished. There is no barrier between the steps: call i carries step 1 of window
i + 1 together with step 2 of window i, so an engine with continuous batching stays full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

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


class Engine(Protocol):
    """What an adapter brings: the harness' backend, seen from here."""

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        """The prompt of a conversation (`chat`) or of one plain text; JSON can hold it."""

    def generate(self, requests: Sequence[Request], done: Callable[[int, str], None]) -> list[str]:
        """The texts, in order. May call `done(index, text)` for each as early as it is finished."""

    def count_tokens(self, text: Any) -> int | None:
        """Tokens of a prompt or a text; None where the backend cannot tell."""

    def sampled(self, settings: Settings) -> bool:
        """Whether two generations with these settings may differ: those are neither shared nor stored."""


@dataclass
class StepCounts:
    """What a step cost, over all calls of a run.

    truncated, unknown_length: of all texts that were not taken from a knowledge file.
    prompt_tokens, output_tokens, seconds: of what was generated in this run. Seconds are the wall time
    of the engine's calls; a call that carried both steps is shared out by their tokens.
    """

    asked: int = 0  # texts of this step that were needed
    generated: int = 0  # prompts that the engine was given
    shared: int = 0  # the same prompt as another one's in the same call
    reused: int = 0  # found in the store
    from_file: int = 0  # taken from the knowledge file, as the model had written it
    edited: int = 0  # taken from the knowledge file, edited
    truncated: int = 0  # reached the token limit
    unknown_length: int = 0  # the backend cannot tell whether the limit was reached
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: StepCounts) -> StepCounts:
        return StepCounts(*(x + y for x, y in zip(_values(self), _values(other), strict=True)))


def _values(counts: StepCounts) -> Iterable[Any]:
    return asdict(counts).values()


@dataclass(frozen=True)
class Item:
    """One question of a run. `settings` and `limit` are those of its answer; `origin` as in Request."""

    question: Question
    settings: Settings
    limit: int
    origin: Any = None


@dataclass(frozen=True)
class Written:
    """A text and its source: "generated", "store", "file" (the knowledge file) or "edited" (there)."""

    text: str
    source: str
    tokens: int | None = None
    truncated: bool | None = None


class Answer(str):
    """An answer's text, with how it came about in `trace`. Pickles and hashes as a `str` does."""

    trace: dict[str, Any]

    def __new__(cls, text: str, trace: dict[str, Any] | None = None) -> Answer:
        answer = super().__new__(cls, text)
        answer.trace = trace or {}
        return answer


@dataclass
class Pipeline:
    """A method with its prompts over one engine and one store. Counts add up over all calls of `run`.

    window: how many questions a call of the engine carries of each step.
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
        windows = [items[start : start + self.window] for start in range(0, len(items), self.window)]
        answers: list[Answer] = []
        ready: list[tuple[Item, Written | None]] = []  # questions whose answer is next
        if not self.writes_knowledge:
            for window in windows:
                answers += self._call([], [(item, None) for item in window])[1]
            return answers
        for window in [*windows, []]:
            knowledge, written = self._call(window, ready)
            answers += written
            ready = list(zip(window, knowledge, strict=True))
        return answers

    def write_knowledge(self, items: Sequence[Item]) -> list[Written]:
        """Step 1 alone, for answers that the harness gets by other means (log-likelihood)."""
        self._check_file(items)
        knowledge: list[Written] = []
        for start in range(0, len(items), self.window):
            knowledge += self._call(items[start : start + self.window], [])[0]
        return knowledge

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

    def trace(self, known: Written | None, answer: Written | None) -> dict[str, Any]:
        """How one answer came about. `answer` is None where the harness scores the options itself."""
        return {
            "method": self.method,
            "layout": self.layout,
            "prompts": self.prompts.hash,
            "knowledge": known.text if known else None,
            "knowledge_source": known.source if known else None,
            "truncated": {
                "knowledge": known.truncated if known else None,
                "answer": answer.truncated if answer else None,
            },
            "tokens": {
                "knowledge": known.tokens if known else None,
                "answer": answer.tokens if answer else None,
            },
        }

    def _check_file(self, items: Sequence[Item]) -> None:
        if self.knowledge_file is not None and items:
            self.knowledge_file.check_used(item.question.text for item in items)

    def _call(
        self, fresh: Sequence[Item], ready: Sequence[tuple[Item, Written | None]]
    ) -> tuple[list[Written], list[Answer]]:
        """One call of the engine: knowledge for the `fresh` questions, answers for the `ready` ones."""
        requests = [self._knowledge_request(item) for item in fresh]
        requests += [self._answer_request(item, known) for item, known in ready]
        written = self._write(requests)
        answers = zip(ready, written[len(fresh) :], strict=True)
        return written[: len(fresh)], [
            Answer(answer.text, self.trace(known, answer)) for (_, known), answer in answers
        ]

    def _knowledge_request(self, item: Item) -> Request:
        messages = knowledge_messages(item.question, self.prompts)
        prompt = self.engine.render(messages, item.question.chat)
        limit, question = self.knowledge_limit, item.question.text
        return Request("knowledge", prompt, self.knowledge_settings, limit, question, item.origin)

    def _answer_request(self, item: Item, known: Written | None) -> Request:
        knowledge = known.text if known else None
        messages = answer_messages(item.question, self.prompts, self.method, self.layout, knowledge)
        prompt = self.engine.render(messages, item.question.chat)
        return Request("answer", prompt, item.settings, item.limit, item.question.text, item.origin)

    def _write(self, requests: Sequence[Request]) -> list[Written]:
        """The texts of one call: from the knowledge file, the store, an equal request, or the engine."""
        keys = [self._key(request) for request in requests]
        found = [self._look_up(request, key) for request, key in zip(requests, keys, strict=True)]
        first: dict[str, int] = {}  # key -> the request that is generated for all of that key
        missing = [
            index
            for index, key in enumerate(keys)
            if found[index] is None and (key is None or first.setdefault(key, index) == index)
        ]
        for index, new in zip(missing, self._generate(requests, keys, missing), strict=True):
            found[index] = new
        written: list[Written] = []
        for request, key, own in zip(requests, keys, found, strict=True):
            count = self.counts[request.step]
            count.asked += 1
            text = own
            if text is None:
                assert key is not None
                text = written[first[key]]
                count.shared += 1
            if text.source not in ("file", "edited"):
                count.truncated += text.truncated is True
                count.unknown_length += text.truncated is None
            written.append(text)
        return written

    def _key(self, request: Request) -> str | None:
        if self.engine.sampled(request.settings):
            return None
        return step_key(request.step, request.prompt, request.settings)

    def _look_up(self, request: Request, key: str | None) -> Written | None:
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

    def _generate(
        self, requests: Sequence[Request], keys: Sequence[str | None], missing: Sequence[int]
    ) -> list[Written]:
        """Has the engine write the missing texts; each is stored when it is done, and counted."""
        if not missing:
            return []
        asked = [requests[index] for index in missing]
        stored: set[int] = set()

        def done(position: int, text: str) -> None:
            key, request = keys[missing[position]], asked[position]
            if key is not None and position not in stored:
                stored.add(position)
                self.store.put(key, request.step, self.prompts.hash, request.question, text)

        started = time.monotonic()
        texts = self.engine.generate(asked, done)
        seconds = time.monotonic() - started
        written: list[Written] = []
        work = dict.fromkeys(self.counts, 0)  # tokens of each step, to share out the seconds
        for position, (request, text) in enumerate(zip(asked, texts, strict=True)):
            done(position, text)
            written.append(self._measured(request, text, "generated"))
            count = self.counts[request.step]
            sent, wrote = self.engine.count_tokens(request.prompt) or 0, written[-1].tokens or 0
            count.generated += 1
            count.prompt_tokens += sent
            count.output_tokens += wrote
            work[request.step] += max(sent + wrote, 1)
        for step, tokens in work.items():
            self.counts[step].seconds += seconds * tokens / sum(work.values())
        return written

    def _measured(self, request: Request, text: str, source: str) -> Written:
        tokens = self.engine.count_tokens(text)
        return Written(text, source, tokens, None if tokens is None else tokens >= request.limit)
