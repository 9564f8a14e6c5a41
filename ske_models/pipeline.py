"""Runs questions through the steps of a method over any batch `generate`. No harness is known here.

Each distinct prompt is generated once; what the store has is not generated again; what is generated is
stored the moment it is finished. There is no barrier between the steps: a question's answer can be asked for
the moment its knowledge is there. An engine that takes requests while it runs has both steps in one call, and
is full until the end; for any other, call i carries step 1 of window i + 1 and step 2 of window i.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from ske_models.knowledge import KnowledgeFile
from ske_models.method import METHODS, Layout, answer_messages, knowledge_messages
from ske_models.prompts import PromptSet
from ske_models.records import (
    Answer,
    Completion,
    Engine,
    Item,
    Request,
    Settings,
    StepCounts,
    StepOutput,
    Trace,
    measured,
    prompt_tokens,
)
from ske_models.store import Store, step_key

Result = TypeVar("Result")
MAX_IN_FLIGHT = 4096  # questions


@dataclass
class Pipeline:
    """A method with its prompts over one engine and one store. Counts add up over all calls of `run`.

    max_in_flight: how many questions are in their first step at a time, at most; twice as many are in any.
    """

    engine: Engine
    method: str
    layout: Layout
    prompts: PromptSet
    store: Store
    knowledge_settings: Settings
    knowledge_limit: int
    knowledge_file: KnowledgeFile | None = None
    max_in_flight: int = MAX_IN_FLIGHT
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
        return Scheduler(self, items, steps, self._answer).run()

    def write_knowledge(self, items: Sequence[Item]) -> list[StepOutput]:
        """Step 1 alone, for answers that the harness gets by other means (log-likelihood)."""
        self._check_file(items)
        return Scheduler(self, items, ("knowledge",), lambda _, written: written).run()

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

    def course(self, known: StepOutput | None, answer: StepOutput | None) -> Trace:
        """How an answer of this run came about."""
        tokens, truncated = (answer.tokens, answer.truncated) if answer else (None, None)
        return Trace(self._labels, known, tokens, truncated)

    @cached_property
    def _labels(self) -> tuple[str, str, str]:
        return self.method, self.layout, self.prompts.hash

    def _check_file(self, items: Sequence[Item]) -> None:
        if self.knowledge_file is not None and items:
            self.knowledge_file.check_used(item.question.text for item in items)

    def _answer(self, known: StepOutput | None, written: StepOutput) -> Answer:
        text, course = written.text, self.course(known, written)
        return text.answer(course) if isinstance(text, Completion) else Answer(text, course)

    def request(self, step: str, item: Item, known: StepOutput | None) -> Request:
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

    def look_up(self, request: Request, key: str | None) -> StepOutput | None:
        """A text that need not be generated: from the knowledge file, or from the store."""
        count = self.counts[request.step]
        if self.knowledge_file is not None and request.step == "knowledge":
            given = self.knowledge_file.get(request.question)
            if given is not None:
                count.edited += given.edited
                count.from_file += not given.edited
                return StepOutput(given.text, "edited" if given.edited else "file")
        text = None if key is None else self.store.get(key)
        if text is None:
            return None
        count.reused += 1
        return self._measured(request, text, "store")

    def take(self, request: Request, key: str | None, text: str) -> tuple[StepOutput, int]:
        """Stores and counts a new text; also its cost: tokens of prompt and text, at least 1."""
        if key is not None:
            self.store.put(key, request.step, self.prompts.hash, request.question, text)
        written, count = self._measured(request, text, "generated"), self.counts[request.step]
        sent, wrote = prompt_tokens(self.engine, request, text), written.tokens or 0
        count.generated += 1
        count.prompt_tokens += sent
        count.cached_tokens += (text.cached_tokens or 0) if isinstance(text, Completion) else 0
        count.output_tokens += wrote
        return written, max(sent + wrote, 1)

    def _measured(self, request: Request, text: str, source: str) -> StepOutput:
        return StepOutput(text, source, *measured(self.engine, request, text))


@dataclass(frozen=True)
class _Asked:
    """What the engine is asked for an item. `key`: as the store's."""

    index: int
    request: Request
    key: str | None


class Scheduler(Generic[Result]):
    """Some items on their way through the `steps` of a pipeline; `finish(knowledge, text)` makes a result.

    At most `max_in_flight` items are in their first step, and twice as many in any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        items: Sequence[Item],
        steps: Sequence[str],
        finish: Callable[[StepOutput | None, StepOutput], Result],
    ) -> None:
        self.pipeline = pipeline
        self.items = items
        self.steps = steps
        self.finish = finish
        self.next = 0  # the first item that nothing was asked for
        self.fresh = 0  # items in their first step
        self.open = 0  # items in any step
        self.known: dict[int, StepOutput] = {}  # of the open items
        self.results: list[Result | None] = [None] * len(items)
        # by key: who waits for a text that is being generated, or the text
        self.texts: dict[str, list[int] | StepOutput] = {}
        self.call: list[_Asked | None] = []  # what the engine is asked; None: done
        self.work: dict[str, int] = {}  # tokens of each step in this call, to share out its seconds

    def run(self) -> list[Result]:
        """The results, in the items' order."""
        counts, engine = self.pipeline.counts, self.pipeline.engine
        self.call = [*self._more()]
        while self.call:
            self.work = dict.fromkeys(counts, 0)
            asked = [asked.request for asked in self.call if asked]
            started = time.monotonic()
            texts = engine.generate(asked, self._done)
            seconds = time.monotonic() - started
            assert len(texts) >= len(asked)
            for position, text in enumerate(texts):
                self._done(position, text)
            for step, tokens in self.work.items():
                counts[step].seconds += seconds * tokens / sum(self.work.values())
            self.call = self.call[len(texts) :]  # what the engine has not taken yet
        return cast("list[Result]", self.results)  # every item has come to its last step

    def _done(self, position: int, text: str) -> list[Request]:
        """A text is there: passes it on, and returns what can be asked now."""
        asked = self.call[position]
        if asked is None:
            return []
        self.call[position] = None
        step = asked.request.step
        written, tokens = self.pipeline.take(asked.request, asked.key, text)
        self.work[step] += tokens
        items = [asked.index]
        if asked.key is not None:
            waiting, self.texts[asked.key] = self.texts[asked.key], written
            assert isinstance(waiting, list)
            items += waiting
        new = [follow for index in items for follow in self._pass_on(step, index, written)]
        new += self._more()
        self.call += new
        return [follow.request for follow in new]

    def _more(self) -> list[_Asked]:
        """The first step of so many further items that the windows are full."""
        new: list[_Asked] = []
        window = self.pipeline.max_in_flight
        while self.next < len(self.items) and self.fresh < window and self.open < 2 * window:
            self.next += 1
            self.fresh += 1
            self.open += 1
            new += self._ask(self.steps[0], self.next - 1)
        return new

    def _ask(self, step: str, index: int) -> list[_Asked]:
        """The text of a step of an item is needed: what to ask the engine, also for what comes of it."""
        pipeline = self.pipeline
        count = pipeline.counts[step]
        count.asked += 1
        request = pipeline.request(step, self.items[index], self.known.get(index))
        key = pipeline.key(request)
        same = None if key is None else self.texts.get(key)
        if same is not None:
            count.shared += 1
            if not isinstance(same, list):
                return self._pass_on(step, index, same)
            same.append(index)
            return []
        found = pipeline.look_up(request, key)
        if found is not None:
            return self._pass_on(step, index, found)
        if key is not None:
            self.texts[key] = []
        return [_Asked(index, request, key)]

    def _pass_on(self, step: str, index: int, written: StepOutput) -> list[_Asked]:
        """An item has the text of a step: its next step, or its result."""
        if written.source not in ("file", "edited"):
            count = self.pipeline.counts[step]
            count.truncated += written.truncated is True
            count.unknown_length += written.truncated is None
        self.fresh -= step == self.steps[0]
        if step != self.steps[-1]:
            self.known[index] = written
            return self._ask(self.steps[-1], index)
        self.open -= 1
        self.results[index] = self.finish(self.known.pop(index, None), written)
        return []
