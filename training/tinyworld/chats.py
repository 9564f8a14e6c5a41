"""TinyWorld's general data: texts of the corpus, answers, and the exercises of M0.

from ske_models import prompts
from training.tinyworld import chats
chats.make(prompts.load("world"), 10, "seed")
"""

from __future__ import annotations

import random

from ske_models.method import Message
from ske_models.prompts import PromptSet
from ske_tasks.world import default_world
from training.domain import Chat
from training.tinyworld import corpus, exercises, lessons, vocabulary
from training.tinyworld.lessons import Lesson

# In percent: the corpus so that facts are not forgotten, and the exercises of M0. Comparisons are the hardest
# to read, and the first that SFT makes a model forget.
SHARES = {
    "corpus": 20,
    "direct": 20,
    "reading": 30,
    "reading_comparisons": 20,
    "checking": 5,
    "comparing": 5,
}
SENTENCES = 8  # of the corpus, in a chat


def make(prompts: PromptSet, count: int, seed: str) -> list[Chat]:
    """`count` chats by `SHARES`, in the words of a prompt set."""
    world, rng = default_world(), random.Random(seed)
    counts = {part: round(count * share / 100) for part, share in SHARES.items()}
    counts["corpus"] += count - sum(counts.values())
    taught, people = lessons.direct(world), world.entities["person"]
    texts: list[str] = []
    while len(texts) < counts["corpus"]:  # whole passes over the corpus
        texts += corpus.paragraphs(world, rng.randrange(2**32), SENTENCES)
    found = {
        "direct": [
            taught[i % len(taught)]
            for i in rng.sample(range(max(len(taught), counts["direct"])), counts["direct"])
        ],
        "reading": lessons.reading(world, prompts, people, counts["reading"], rng.randrange(2**32)),
        "reading_comparisons": lessons.reading(
            world, prompts, people, counts["reading_comparisons"], rng.randrange(2**32), "comparison"
        ),
        "checking": lessons.checking(world, counts["checking"], rng.randrange(2**32)),
        "comparing": [
            Lesson(({"role": "user", "content": lesson.context},), lesson.answer)
            for lesson in exercises.comparing(
                vocabulary.words(world), counts["comparing"], rng.randrange(2**32)
            )
        ],
    }
    ask: list[Message] = [{"role": "user", "content": "Facts:"}]
    chats = [Chat(f"corpus-{i}", ask, text) for i, text in enumerate(texts[: counts["corpus"]])]
    for part, some in found.items():
        chats += [Chat(f"{part}-{i}", lesson.messages, lesson.answer) for i, lesson in enumerate(some)]
    return chats
