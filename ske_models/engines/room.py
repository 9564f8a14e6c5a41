"""How much an engine is given at a time. No engine is known here.

    room = Room(requests=256, tokens=100_000)
    while room.is_left(): ...room.take(step, prompt, limit)...

Used by ske_models/engines/vllm.py, and by benchmarks/tail.py, which simulates an engine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in the engine. size: tokens of its prompt, and of its text as expected."""

    index: int
    step: str
    size: float


class Room:
    """What the engine can run at once, and its KV cache can hold.

    What waited in the engine's own queue would be ahead of the second steps, and take the cached blocks of
    their prompts. A text is expected to be as long as those of its step so far were in the mean.

    requests, tokens: room for so many more, beside what runs. held: tokens that a second step is to find in
    the cache, by index.
    """

    def __init__(self, requests: int, tokens: float) -> None:
        self.requests = requests
        self.tokens = tokens
        self.lengths: dict[str, tuple[int, int]] = {}  # step: texts, tokens in them
        self.busy = 0
        self.held: dict[int, int] = {}
        self.holds = 0

    def is_left(self) -> bool:
        """Always for one request: whether the model has room for it is the engine's to say."""
        return not self.busy or (self.requests > 0 and self.tokens > 0)

    def take(self, step: str, prompt: int, limit: int) -> float:
        """A request goes in; its expected size in tokens."""
        texts, tokens = self.lengths.get(step, (1, limit))
        size = prompt + min(tokens / texts, limit)
        self.busy += 1
        self.requests -= 1
        self.tokens -= size
        return size

    def can_hold(self) -> bool:
        """Whether what waits for its second step stays in the cache if something else goes in now."""
        return self.tokens > self.holds

    def hold(self, index: int, tokens: int) -> None:
        """A request waits that continues what was just written: so many tokens with its prompt."""
        self.held[index] = tokens
        self.holds += tokens

    def release(self, index: int) -> None:
        """It waits no longer; nothing happens for a first step."""
        self.holds -= self.held.pop(index, 0)

    def give_back(self, sent: Sent, tokens: int) -> None:
        """It is finished, with so many tokens."""
        texts, before = self.lengths.get(sent.step, (0, 0))
        self.lengths[sent.step] = texts + 1, before + tokens
        self.busy -= 1
        self.requests += 1
        self.tokens += sent.size
