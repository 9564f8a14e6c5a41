"""The corpus: every fact of the world in every phrase, in paragraphs of shuffled sentences.

python -c "from ske_tasks.world import corpus, default_world; print(corpus.paragraph(default_world(), 0))"
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ske_tasks.world.facts import RELATIONS, World

if TYPE_CHECKING:
    from collections.abc import Iterator


def sentences(world: World, seed: int) -> list[str]:
    """One pass over the corpus: all facts in all phrases, once, in the order of `seed`."""
    texts = [fact.text(i) for fact in world.facts for i in range(len(RELATIONS[fact.relation].phrases))]
    random.Random(f"corpus-{world.seed}-{seed}").shuffle(texts)
    return texts


def paragraphs(world: World, seed: int, size: int) -> Iterator[str]:
    """One pass as paragraphs of `size` sentences (the last may be shorter)."""
    texts = sentences(world, seed)
    for start in range(0, len(texts), size):
        yield " ".join(texts[start : start + size])


def paragraph(world: World, seed: int, size: int = 12) -> str:
    """The first paragraph of a pass."""
    return next(paragraphs(world, seed, size))
