"""In which order should the texts of a run be written, so that the engine is not kept waiting at its end?

    python benchmarks/tail.py [--save]

Simulates an engine like vLLM on a GPU, step by step, over the lengths that real models have written
(results/lengths_*.csv, by benchmarks/lengths.py); needs neither. In a step every running text gets a token; a
step takes `STEP` ms, `TEXT` ms more per running text and `PROMPT` ms per token of a prompt that is read.
At most so many texts run as the engine has slots, and as its KV cache has tokens for; where it is full, the
text that came last is put back and read again with what it had (vLLM's preemption by recomputing). Nothing is
found in a prefix cache. What the engine is given at a time is decided by the pipeline's own `Room`
(ske_models/engines/room.py); an order says what goes next.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.lengths import LIMITS, recorded
from benchmarks.report import as_run, publish
from ske_models.engines.room import Room, Sent

STEP, TEXT, PROMPT = 8.0, 0.03, 0.04  # ms: about a model of 8 B in bf16 on one H100
ENGINES = ((16, 50_000), (64, 50_000), (256, 50_000), (256, 500_000))  # slots, tokens of the KV cache
SHUFFLES = 20
MODELS = ("qwen", "smollm2")
KNOWN = "longest first, all lengths known"


@dataclass(frozen=True)
class Text:
    """One generation: tokens of its prompt, and those that it will have. kind: what is known beforehand."""

    kind: tuple[str, str]  # (task, what it is: direct, cot, knowledge or reason)
    prompt: int
    length: int

    @property
    def step(self) -> str:
        return "knowledge" if self.kind[1] == "knowledge" else "answer"


Chain = Sequence[Text]  # what a question needs by one method: the second begins when the first is there


@dataclass(eq=False, slots=True)
class Job:
    """A text on its way. place: in its chain. written: tokens so far; prompt: what is to be read."""

    number: int
    chain: Chain
    place: int
    written: int = 0

    @property
    def text(self) -> Text:
        return self.chain[self.place]


class Order:
    """What of what waits goes next: `push`, `pop` and the number of what waits."""

    def seen(self, text: Text) -> None:
        """A text is finished."""


class Today(Order):
    """`engines/vllm.py`: first steps first, as long as the cache holds what waits for its second one."""

    def __init__(self) -> None:
        self.fresh, self.answers = deque[Job](), deque[Job]()

    def push(self, job: Job, room: Room) -> None:
        if job.place:
            self.answers.append(job)
            before = job.chain[0]
            room.hold(job.number, before.prompt + before.length)
        else:
            self.fresh.append(job)

    def pop(self, room: Room) -> Job:
        first = self.fresh and (not self.answers or room.can_hold())
        job = self.fresh.popleft() if first else self.answers.popleft()
        room.release(job.number)
        return job

    def __len__(self) -> int:
        return len(self.fresh) + len(self.answers)


class Sorted(Order):
    """By a key that is known when a text begins to wait; then as given."""

    def __init__(self, key: Callable[[Job], float]) -> None:
        self.key = key
        self.heap: list[tuple[float, int, Job]] = []

    def push(self, job: Job, room: Room) -> None:
        heapq.heappush(self.heap, (self.key(job), job.number, job))

    def pop(self, room: Room) -> Job:
        return heapq.heappop(self.heap)[2]

    def __len__(self) -> int:
        return len(self.heap)


class Expected(Order):
    """By the tokens that a text and what follows it are expected to have: longest (or shortest) first.

    Expected is the mean of what was written so far for the same task and method, at first the limit.
    """

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.waiting: dict[tuple[tuple[str, str], ...], deque[Job]] = {}
        self.means: dict[tuple[str, str], tuple[int, int]] = {}
        self.size = 0

    def push(self, job: Job, room: Room) -> None:
        kinds = tuple(text.kind for text in job.chain[job.place :])
        self.waiting.setdefault(kinds, deque()).append(job)
        self.size += 1

    def pop(self, room: Room) -> Job:
        self.size -= 1
        kinds = min((k for k, jobs in self.waiting.items() if jobs), key=self._key)
        return self.waiting[kinds].popleft()

    def _key(self, kinds: Sequence[tuple[str, str]]) -> float:
        means = (self.means.get(kind, (1, LIMITS.get(kind[1], LIMITS["answer"]))) for kind in kinds)
        return self.sign * sum(tokens / texts for texts, tokens in means)

    def seen(self, text: Text) -> None:
        texts, tokens = self.means.get(text.kind, (0, 0))
        self.means[text.kind] = texts + 1, tokens + text.length

    def __len__(self) -> int:
        return self.size


ORDERS: dict[str, Callable[[], Any]] = {
    "today's": Today,
    "knowledge first": partial(Sorted, lambda job: job.place),
    "answers first": partial(Sorted, lambda job: -job.place),
    "longest prompt first": partial(Sorted, lambda job: -job.text.prompt),
    "longest expected first": partial(Expected, -1),
    "shortest expected first": partial(Expected, 1),
    KNOWN: partial(Sorted, lambda job: -sum(text.length for text in job.chain[job.place :])),
}


class Engine:
    """The simulated engine, which writes all texts of some chains.

    ms, steps, preempted: what that took. ended: the texts, as they were finished.
    """

    def __init__(self, slots: int, cache: int, order: Any) -> None:
        self.slots, self.cache, self.order = slots, cache, order
        self.ms, self.steps, self.preempted = 0.0, 0, 0
        self.ended: list[Text] = []
        self.used = 0  # tokens in the cache
        self.room = Room(slots, cache)
        self.running: dict[Job, tuple[int, Sent]] = {}  # with the step after which it ends
        self.ends: list[tuple[int, int, Job]] = []  # the same as a heap; what was put back is in it, too
        self.put_back: list[tuple[Job, Sent]] = []

    def run(self, chains: Sequence[Chain]) -> Engine:
        """Itself, when all texts are written."""
        for number, chain in enumerate(chains):
            self.order.push(Job(number, chain, 0), self.room)
        while self.order or self.put_back or self.running:
            self._fill()
            while not self._ends_with_first():
                heapq.heappop(self.ends)
            steps = min(self.ends[0][0] - self.steps, (self.cache - self.used) // len(self.running))
            if not steps:
                self._make_room()
                continue
            self.steps += steps
            self.ms += steps * (STEP + TEXT * len(self.running))
            self.used += steps * len(self.running)
            while self.ends and self.ends[0][0] == self.steps:
                if self._ends_with_first():
                    self._finish(self.ends[0][2])
                heapq.heappop(self.ends)
        return self

    def _ends_with_first(self) -> bool:
        """Whether the first in the heap still runs, and was not put back meanwhile."""
        end, _, job = self.ends[0]
        return job in self.running and self.running[job][0] == end

    def _fill(self) -> None:
        """Begins what there is room for."""
        while self.put_back or (self.order and self.room.is_left()):
            job, sent = self.put_back.pop() if self.put_back else self._next()
            size, others = job.text.prompt + job.written, len(self.running)
            if others and (others == self.slots or self.used + size + others + 1 > self.cache):
                self.put_back.append((job, sent))  # vLLM keeps it at the head of its own queue
                return
            self.ms += PROMPT * size
            self.used += size
            end = self.steps + job.text.length - job.written
            self.running[job] = end, sent
            heapq.heappush(self.ends, (end, job.number, job))

    def _next(self) -> tuple[Job, Sent]:
        job = self.order.pop(self.room)
        size = self.room.take(job.text.step, job.text.prompt, LIMITS[job.text.step])
        return job, Sent(job.number, job.text.step, size)

    def _make_room(self) -> None:
        """Puts back the last that came."""
        job, (end, sent) = self.running.popitem()
        assert self.running, "the cache has no room for a single text"
        job.written = job.text.length - (end - self.steps)
        self.used -= job.text.prompt + job.written
        self.put_back.append((job, sent))
        self.preempted += 1

    def _finish(self, job: Job) -> None:
        _, sent = self.running.pop(job)
        self.used -= job.text.prompt + job.text.length
        self.room.give_back(sent, job.text.length)
        self.order.seen(job.text)
        self.ended.append(job.text)
        if job.place + 1 < len(job.chain):
            self.order.push(Job(job.number, job.chain, job.place + 1), self.room)


def bound(chains: Sequence[Chain], slots: int, cache: int) -> float:
    """ms that no order can beat: every slot, or the whole cache, is in use until the longest chain ends."""
    texts = [text for chain in chains for text in chain]
    tokens = sum(text.length for text in texts)
    # the cache holds a text's prompt, and one token more after each of its steps
    held = sum(text.length * text.prompt + text.length * (text.length + 1) // 2 for text in texts)
    longest = max(sum(text.length for text in chain) for chain in chains)
    steps = max(math.ceil(tokens / slots), math.ceil(held / cache), longest)
    return STEP * steps + TEXT * tokens + PROMPT * sum(text.prompt for text in texts)


def queues(rows: Sequence[Mapping[str, str]]) -> dict[str, list[Chain]]:
    """Queues of a run, question by question: `explicit`, the same with answers that reason, all methods."""

    def chain(row: Mapping[str, str], *kinds: str, length: str = "") -> Chain:
        return [
            Text((row["task"], kind), int(row[f"{prompt}_prompt"]), int(row[length or kind]))
            for kind in kinds
            for prompt in ["extract" if kind == "knowledge" else kind]
        ]

    explicit = [chain(row, "knowledge", "reason") for row in rows]
    reasons: list[Chain] = [[*chain(row, "knowledge"), *chain(row, "reason", length="cot")] for row in rows]
    together = [
        one
        for row, both in zip(rows, explicit, strict=True)
        for one in (chain(row, "direct"), chain(row, "cot"), both)
    ]
    return {"explicit": explicit, "explicit, answers as long as CoT's": reasons, "all three": together}


def simulated(
    rows: Sequence[Mapping[str, str]], name: str, slots: int, cache: int
) -> dict[str, list[tuple[float, float, float, int]]]:
    """Per order and shuffle: (ms over the bound, ms over today's, steps, preemptions) of the queue `name`."""
    found: dict[str, list[tuple[float, float, float, int]]] = {order: [] for order in ORDERS}
    for seed in range(SHUFFLES):
        shuffled = random.Random(seed).sample(rows, len(rows))
        chains, today = queues(shuffled)[name], 0.0
        for order, make in ORDERS.items():
            engine = Engine(slots, cache, make()).run(chains)
            today = today or engine.ms
            found[order].append(
                (engine.ms / bound(chains, slots, cache), engine.ms / today, engine.steps, engine.preempted)
            )
    return found


def _cell(order: str, found: Sequence[tuple[float, float, float, int]]) -> str:
    """Today's: ms over the bound, steps, texts put back. Others: their difference to today's in %."""
    over, against, steps, put_back = zip(*found, strict=True)
    if order == "today's":
        more = f"{statistics.mean(steps):,.0f} steps; {statistics.mean(put_back):.0f} put back"
        return f"{_mean(over, '.3f')}; {more}"
    return _mean([100 * (ratio - 1) for ratio in against], "+.1f")


def _mean(values: Sequence[float], form: str) -> str:
    """The mean with its 95 % interval (normal, over the shuffles)."""
    mean, half = statistics.mean(values), 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:{form}} [{mean - half:{form}}, {mean + half:{form}}]"


def _notes(gains: Mapping[str, Sequence[float]]) -> list[str]:
    """gains: of each order against today's in every row, in %."""
    each = [
        f"{order} {statistics.mean(of):+.1f} % (from {min(of):+.1f} to {max(of):+.1f})"
        for order, of in gains.items()
    ]
    better = [order for order, of in gains.items() if statistics.mean(of) < -2 and order != KNOWN]
    return [
        f"Simulated, with recorded lengths: 600 questions, {SHUFFLES} shuffles of their order; means with "
        "95 % intervals. The other orders: difference of their time to today's, shuffle by shuffle.",
        f"Over all rows: {'; '.join(each)}.",
        f"Orders that need not know the lengths and gain 2 % over all rows: {', '.join(better) or 'none'}.",
        f"A step takes {STEP:.0f} ms, {TEXT} ms more per running text, and {PROMPT} ms per token of a prompt "
        "that is read. The bound: all slots, or the whole cache, are in use until the longest chain of steps "
        "ends. Put back: texts that the full cache had no room for, read again later.",
        "Knowledge first is the order in which requests come: all questions are there from the beginning. "
        "Expected: the mean of what was written so far for the same task and method, and of what follows it.",
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/tail.md")
    args = parser.parse_args()
    table, gains = [], {order: list[float]() for order in list(ORDERS)[1:]}
    for model in MODELS:
        rows = recorded(model)
        for name in queues(rows[:1]):
            for slots, cache in ENGINES:
                found = simulated(rows, name, slots, cache)
                cells = [_cell(order, of) for order, of in found.items()]
                table.append([model, name, f"{slots}", f"{cache:,}", *cells])
                for order, of in gains.items():
                    of.append(100 * (statistics.mean(run[1] for run in found[order]) - 1))
    publish(
        "tail",
        "In which order should the texts of a run be written?",
        as_run(),
        [
            "model",
            "queue",
            "slots",
            "cache, tokens",
            "today's: time over the bound",
            *(f"{order}, %" for order in list(ORDERS)[1:]),
        ],
        table,
        _notes(gains),
        [],
        args.save,
    )


if __name__ == "__main__":
    main()
