"""Several methods or prompt sets in the same calls of one engine.

    Together([Scheduler(pipeline, items, knowledge=True, answers=True) for pipeline in pipelines]).run()

The engine is full until the last of them ends, and the stragglers of one overlap with the others' texts.
Used by ske_models/lm_eval/methods.py and benchmarks/prompts.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from ske_models.garbage import few_full_collections
from ske_models.pipeline import Scheduler
from ske_models.records import Request


class Together:
    """Some schedulers, all over the engine of the first. Each stores and counts by itself."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        self.schedulers = schedulers
        self.call: list[tuple[int, int]] = []  # of each request: whose it is, and its place there

    @few_full_collections()
    def run(self) -> None:
        """Raises what the engine raises."""
        engine = self.schedulers[0].pipeline.engine
        for who, one in enumerate(self.schedulers):
            one.call = [*one.begin()]
            self.call += [(who, place) for place in range(len(one.call))]
        # question by question, so that the ways share the prefix of their prompts, and end together
        self.call.sort(key=self._turn)
        requests = [self._request(*request) for request in self.call]
        while requests:
            texts = engine.generate(requests, self._written)
            for position, text in enumerate(texts):
                self._written(position, text)
            self.call = self.call[len(texts) :]  # what the engine has not taken yet
            requests = [self._request(*request) for request in self.call]

    def _turn(self, call: tuple[int, int]) -> tuple[int, int]:
        who, place = call
        pending = self.schedulers[who].call[place]
        return (pending.index if pending else 0), who

    def _request(self, who: int, place: int) -> Request:
        pending = self.schedulers[who].call[place]
        assert pending is not None  # the engine has not taken it
        return pending.request

    def _written(self, position: int, text: str) -> list[Request]:
        who, place = self.call[position]
        one = self.schedulers[who]
        before = len(one.call)
        one.work = dict.fromkeys(one.pipeline.counts, 0)
        new = one.written(place, text)
        self.call += [(who, before + added) for added in range(len(new))]
        return new
