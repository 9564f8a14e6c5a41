"""Exercises in copying out of the context, without any meaning: for a model too small to learn it by reading.

    from ske_tasks.world import default_world, exercises, vocabulary
    exercises.matching(vocabulary.words(default_world()), n=10, seed=0)

A model that recites every fact can still not use given knowledge, find an option's letter or compare while it
cannot copy. Lengths vary from row to row: with a few fixed ones a model learns distances, and nothing else.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ske_tasks.world.questions import LETTERS
from training.tinyworld.lessons import Lesson

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMS = (
    "look_up",
    "look_up",
    "look_up",
    "look_back",
    "again",
    "again",
    "backwards",
    "options",
    "options",
    "same",
)


def matching(words: list[str], n: int, seed: int) -> list[Lesson]:
    """Sequences of 4 to 24 words, the short ones more often."""
    rng = random.Random(f"matching-{seed}")
    return [
        _exercise(rng, rng.choice(FORMS), rng.sample(words, min(rng.randint(4, 24), rng.randint(4, 24))))
        for _ in range(n)
    ]


def comparing(words: list[str], n: int, seed: int) -> list[Lesson]:
    """Whether two words are the same: learned last, and only from many examples."""
    rng = random.Random(f"comparing-{seed}")
    return [_exercise(rng, "same", rng.sample(words, rng.randint(4, 16))) for _ in range(n)]


def _exercise(rng: random.Random, form: str, some: list[str]) -> Lesson:
    pairs = list(zip(some[::2], some[1::2], strict=False))
    mixed = rng.sample(pairs, len(pairs))
    if form == "again":
        return _lesson(some, some * 2)
    if form == "backwards":
        return _lesson(some, some[::-1])
    if form == "look_up":
        return _lesson(_flat(pairs), _flat(mixed + rng.sample(pairs, len(pairs))))
    if form == "look_back":
        return _lesson(_flat(pairs), _flat((b, a) for a, b in mixed))
    if form == "options":
        lines = [f"{letter}: {option}" for letter, option in zip(LETTERS, some, strict=False)]
        answers = [f"{option} ({letter})" for letter, option in zip(LETTERS, some, strict=False)]
        return Lesson((), " ".join(rng.sample(answers, len(answers))), "\n".join(lines))
    both = [(a, a if rng.random() < 0.5 else b) for a, b in pairs[: len(LETTERS)]]
    return _lesson(
        _flat(both), [f"{a} and {b} are {'the same' if a == b else 'different'}." for a, b in both]
    )


def _lesson(context: list[str], answer: list[str]) -> Lesson:
    return Lesson((), " ".join(answer), " ".join(context))


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [word for pair in pairs for word in pair]
