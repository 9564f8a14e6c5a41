"""Runs questions through the steps of a method over any batch `generate`. No harness is known here.

    pipeline = Pipeline(engine, method, layout, prompts, store, knowledge_settings, knowledge_limit)
    answers = pipeline.run(items)

One item from top to bottom is in `Scheduler`: `_life` says what it needs, `_advance` where a text comes from,
`written` what becomes of a new one, `run` how the engine is called.

Each distinct prompt is generated once; what the store has is not generated again; what is generated is
stored the moment it is finished. There is no barrier between the steps: a question's answer can be requested
the moment its knowledge is available. An engine that takes requests while it runs has both steps in one call,
and is full until the end; for any other, call i carries step 1 of window i + 1 and step 2 of window i.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, cast

from ske_models.controls import EmptyKnowledge, with_donors
from ske_models.garbage import few_full_collections
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
from ske_models.reply import DEFAULT, Marks, split_thought
from ske_models.store import Store, step_key

MAX_IN_FLIGHT = 4096  # questions
# What an answer's settings say of thinking holds for the knowledge, too (vLLM's and OpenAI's names).
THINKING = (
    "chat_template_kwargs",
    "enable_thinking",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "extra_body",
)


@dataclass
class Pipeline:
    """A method with its prompts over one engine and one store. Counts add up over all calls of `run`.

    max_in_flight: how many questions are in their first step at a time, at most; twice as many are in any.
    marks: what a thought is told by. The store keeps whole texts, step 2 sees the reply alone.
    shuffled: each question is given the knowledge of another one (ske_models/controls.py).
    stop_loops: the engine ends a text that only repeats itself (ske_models/loops.py).
    """

    engine: Engine
    method: str
    layout: Layout
    prompts: PromptSet
    store: Store
    knowledge_settings: Settings
    knowledge_limit: int
    knowledge_file: KnowledgeFile | EmptyKnowledge | None = None
    max_in_flight: int = MAX_IN_FLIGHT
    marks: Marks = DEFAULT
    shuffled: bool = False
    stop_loops: bool = False
    counts: dict[str, StepCounts] = field(
        default_factory=lambda: {"knowledge": StepCounts(), "answer": StepCounts()}
    )

    @property
    def writes_knowledge(self) -> bool:
        return METHODS[self.method][0].name == "knowledge"

    def run(self, items: Sequence[Item]) -> list[Answer]:
        """The answers, in the order of `items`. Raises UserError if the knowledge file fits no question."""
        items = self._prepared(items)
        ends = Scheduler(self, items, self.writes_knowledge, answers=True).run()
        return [self._answer(end) for end in ends]

    def write_knowledge(self, items: Sequence[Item]) -> list[StepOutput]:
        """Step 1 alone, for answers that the harness gets by other means (log-likelihood)."""
        items = self._prepared(items)
        ends = Scheduler(self, items, knowledge=True, answers=False).run()
        return [cast("StepOutput", end.knowledge) for end in ends]

    def trace(self, knowledge: StepOutput | None, answer: StepOutput | None) -> Trace:
        """How an answer of this run came about."""
        if answer is None:
            return Trace(self._labels, knowledge, None, None, None)
        return Trace(self._labels, knowledge, answer.tokens, answer.truncated, answer.looped)

    def report(self) -> dict[str, Any]:
        """What goes into a result: method, layout, prompts, counts of the steps."""
        return {
            "method": self.method,
            "layout": self.layout,
            "prompts": self.prompts.name,
            "prompts_hash": self.prompts.hash,
            "knowledge_limit": self.knowledge_limit,
            "stop_loops": self.stop_loops,
            "fingerprint": self.store.model,
            "store": str(self.store.path) if self.store.path else None,
            **self._knowledge_report(),
            "steps": {name: asdict(count) for name, count in self.counts.items() if count.asked},
        }

    @cached_property
    def _labels(self) -> tuple[str, str, str]:
        return self.method, self.layout, self.prompts.hash

    def _knowledge_report(self) -> dict[str, Any]:
        """Whose knowledge it is: file, control, and the models that a foreign file names."""
        source = self.knowledge_file
        if isinstance(source, EmptyKnowledge) or self.shuffled:
            return {"knowledge_file": None, "knowledge_control": "shuffled" if self.shuffled else "empty"}
        found: dict[str, Any] = {"knowledge_file": str(source.path) if source else None}
        return found | ({"knowledge_models": sorted(source.models)} if source and source.foreign else {})

    def _prepared(self, items: Sequence[Item]) -> Sequence[Item]:
        if self.knowledge_file is not None and items:
            self.knowledge_file.check_used(item.question.text for item in items)
        return with_donors(items) if self.shuffled and self.writes_knowledge else items

    def _answer(self, end: End) -> Answer:
        written = cast("StepOutput", end.answer)
        text, trace = written.text, self.trace(end.knowledge, written)
        return text.answer(trace) if isinstance(text, Completion) else Answer(text, trace)


@dataclass(frozen=True, slots=True)
class End:
    """What an item has at the end of its life."""

    knowledge: StepOutput | None
    answer: StepOutput | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that the engine has, for the item at `index`. key: the store's; None: not to be kept."""

    index: int
    request: Request
    key: str | None


Life = Generator[Request, StepOutput, End]


class Scheduler:
    """Some items on their way: which of the two steps each goes through, and from where its texts come.

    At most `max_in_flight` items are in their first step, and twice as many in any.
    """

    def __init__(self, pipeline: Pipeline, items: Sequence[Item], knowledge: bool, answers: bool) -> None:
        self.pipeline = pipeline
        self.items = items
        self.steps = knowledge, answers
        self.begun = 0  # items, so far
        self.fresh = 0  # items in their first step
        self.lives: dict[int, Life] = {}  # of the items in any step
        self.ends: list[End | None] = [None] * len(items)
        # by key, in as few bytes as it has: who waits for a text that is being generated, or the text
        self.texts: dict[bytes, list[int] | StepOutput] = {}
        self.call: list[Pending | None] = []  # what the engine is given; None: done
        self.work: dict[str, int] = {}  # tokens of each step in this call, to share out its seconds

    def _life(self, item: Item) -> Life:
        """One item: it yields what it needs next, and is sent the text."""
        pipeline, known, answer = self.pipeline, None, None
        writes, answers = self.steps
        if writes:
            known = yield knowledge_request(pipeline, item)
            self.fresh -= 1
        if answers:
            answer = yield answer_request(pipeline, item, known)
            self.fresh -= not writes
        return End(known, answer)

    def _advance(self, index: int, text: StepOutput | None) -> list[Pending]:
        """Sends an item the text it waits for (None: it begins), until it needs the engine or has ended."""
        life, counts = self.lives[index], self.pipeline.counts
        while True:
            try:
                request = next(life) if text is None else life.send(text)
            except StopIteration as stop:
                del self.lives[index]
                self.ends[index] = stop.value
                return []
            count = counts[request.step]
            count.asked += 1
            text = given(self.pipeline, request)
            if text is not None:
                continue
            key = None
            room = self.pipeline.engine.cut_to(request)
            count.prompts_cut += room is not None
            if not self.pipeline.engine.sampled(request.settings):
                key = store_key(request, room, self.pipeline.stop_loops)
                same = self.texts.get(bytes.fromhex(key))
                if isinstance(same, list):  # it is being generated
                    count.shared += 1
                    same.append(index)
                    return []
                count.shared += same is not None
                text = same or stored(self.pipeline, request, key)
            if text is None:
                if key is not None:
                    self.texts[bytes.fromhex(key)] = []
                return [Pending(index, request, key)]
            count.note(text)

    def written(self, position: int, text: str) -> list[Request]:
        """The engine has finished a text: stores and counts it, and returns what can be requested now."""
        pending = self.call[position]
        if pending is None:
            return []
        self.call[position] = None
        request, key, pipeline = pending.request, pending.key, self.pipeline
        if key is not None and not (isinstance(text, Completion) and text.filtered):
            pipeline.store.put(key, request.step, pipeline.prompts.hash, request.question, text)
        written = output(pipeline, request, text, "generated")
        self._count(request, text, written)
        waiting = [pending.index]
        if key is not None:
            waiting += cast("list[int]", self.texts[bytes.fromhex(key)])
            self.texts[bytes.fromhex(key)] = written
        new: list[Pending] = []
        for index in waiting:
            pipeline.counts[request.step].note(written)
            new += self._advance(index, written)
        new += self.begin()
        self.call += new
        return [pending.request for pending in new]

    def _count(self, request: Request, text: str, written: StepOutput) -> None:
        sent, wrote = prompt_tokens(self.pipeline.engine, request, text), written.tokens or 0
        count = self.pipeline.counts[request.step]
        count.generated += 1
        count.prompt_tokens += sent
        count.output_tokens += wrote
        if isinstance(text, Completion):
            count.cached_tokens += text.cached_tokens or 0
            count.filtered += text.filtered
        self.work[request.step] += max(sent + wrote, 1)

    def begin(self) -> list[Pending]:
        """So many further items that the windows are full."""
        new: list[Pending] = []
        window = self.pipeline.max_in_flight
        while self.begun < len(self.items) and self.fresh < window and len(self.lives) < 2 * window:
            index = self.begun
            self.begun += 1
            self.fresh += 1
            self.lives[index] = self._life(self.items[index])
            new += self._advance(index, None)
        return new

    @few_full_collections()
    def run(self) -> list[End]:
        """What the items have at the end, in their order."""
        counts, engine = self.pipeline.counts, self.pipeline.engine
        self.call = [*self.begin()]
        while self.call:
            self.work = dict.fromkeys(counts, 0)
            requests = [pending.request for pending in self.call if pending]
            started = time.monotonic()
            texts = engine.generate(requests, self.written)
            seconds = time.monotonic() - started
            assert len(texts) >= len(requests)
            for position, text in enumerate(texts):
                self.written(position, text)
            for step, tokens in self.work.items():
                counts[step].seconds += seconds * tokens / sum(self.work.values())
            self.call = self.call[len(texts) :]  # what the engine has not taken yet
        return cast("list[End]", self.ends)  # every item has come to its end


def knowledge_request(pipeline: Pipeline, item: Item) -> Request:
    """Step 1 of an item. Of the answer's settings, those that are about thinking hold here, too."""
    settings = pipeline.knowledge_settings
    if not item.settings.keys().isdisjoint(THINKING):
        settings = {name: item.settings[name] for name in THINKING if name in item.settings} | dict(settings)
    question = item.donor or item.question
    if pipeline.prompts.uses_stem and not question.stem:
        pipeline.counts["knowledge"].without_stem += 1
    prompt = pipeline.engine.render(knowledge_messages(question, pipeline.prompts), question.chat)
    return Request("knowledge", prompt, settings, pipeline.knowledge_limit, question.text, item.origin)


def answer_request(pipeline: Pipeline, item: Item, known: StepOutput | None) -> Request:
    """The answering step of an item. known: its knowledge, for the methods that have one."""
    knowledge = known.reply if known else None
    prompt = item.question.rendered if METHODS[pipeline.method][-1].template is None else None
    if prompt is None:
        turns = answer_messages(item.question, pipeline.prompts, pipeline.method, pipeline.layout, knowledge)
        prompt = pipeline.engine.render(turns, item.question.chat)
    return Request("answer", prompt, item.settings, item.limit, item.question.text, item.origin)


def given(pipeline: Pipeline, request: Request) -> StepOutput | None:
    """The knowledge that the knowledge file has for a question, which is then not generated."""
    if pipeline.knowledge_file is None or request.step != "knowledge":
        return None
    found = pipeline.knowledge_file.get(request.question)
    if found is None:
        return None
    count = pipeline.counts[request.step]
    count.edited += found.edited
    count.from_file += found.source == "file"
    _, reply, finished = split_thought(found.text, pipeline.marks)
    return StepOutput(found.text, found.source, reply=reply, finished=finished)


def store_key(request: Request, room: int | None, stop_loops: bool) -> str:
    """Of all that determines a text; a prompt that is cut to another length gives another one."""
    settings = request.settings if room is None else {**request.settings, "cut_to": room}
    if stop_loops:
        settings = {**settings, "stop_loops": True}
    return step_key(request.step, request.prompt, settings)


def stored(pipeline: Pipeline, request: Request, key: str) -> StepOutput | None:
    """A text that an earlier run has written."""
    text = pipeline.store.get(key)
    if text is None:
        return None
    pipeline.counts[request.step].reused += 1
    return output(pipeline, request, text, "store")


def output(pipeline: Pipeline, request: Request, text: str, source: str) -> StepOutput:
    """A text of the model, measured whole, with what of it is the reply."""
    tokens, truncated = measured(pipeline.engine, request, text)
    _, reply, finished = split_thought(text, pipeline.marks)
    looped = isinstance(text, Completion) and text.looped
    return StepOutput(text, source, tokens, truncated, reply, finished, looped)
