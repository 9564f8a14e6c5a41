"""Items on their way through the steps of a method: what can be asked now, and what follows from each text.

answers = Flow(pipeline, items, ("knowledge", "answer"), finish).run()      # Pipeline.run does
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

if TYPE_CHECKING:
    from ske_models.pipeline import Item, Pipeline, Request, Written

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked:
    """What the engine is asked for an item. `key`: as the store's."""

    index: int
    request: Request
    key: str | None


class Flow(Generic[Result]):
    """Some items on their way through the `steps` of a pipeline; `finish(knowledge, text)` makes a result.

    At most `window` items are in their first step, and twice as many in any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        items: Sequence[Item],
        steps: Sequence[str],
        finish: Callable[[Written | None, Written], Result],
    ) -> None:
        self.pipeline = pipeline
        self.items = items
        self.steps = steps
        self.finish = finish
        self.next = 0  # the first item that nothing was asked for
        self.fresh = 0  # items in their first step
        self.open = 0  # items in any step
        self.known: dict[int, Written] = {}  # of the open items
        self.results: list[Result | None] = [None] * len(items)
        # by key: who waits for a text that is being generated, or the text
        self.texts: dict[str, list[int] | Written] = {}
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
        window = self.pipeline.window
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

    def _pass_on(self, step: str, index: int, written: Written) -> list[_Asked]:
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
