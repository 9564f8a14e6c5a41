"""The passages of a corpus, which questions are written from.

from training.data.passages import cut
cut("First paragraph.\\n\\nSecond one.", 1500)    # the passages of a text
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

# By hand: semantic-text-splitter 0.33 and langchain-text-splitters 1.1 cut at the same kinds of place and as
# fast, but 40 % of the passages of 390 textbook chapters come out different, and they are 8 % shorter. Rounds
# know a passage that was used by its text, so another cut would use it again.
SHORTEST = 50  # characters; what is shorter is a heading, or the rest of a table
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def cut(text: str, size: int) -> list[str]:
    """A text as passages of at most `size` characters: whole paragraphs, whole sentences of a long paragraph.

    Only a sentence longer than `size` is cut within. Passages of under 50 characters are left out.
    """
    passages, current = [], ""
    for separator, piece in _pieces(text, size):
        if current and len(current) + len(separator) + len(piece) > size:
            passages.append(current)
            current = ""
        current = f"{current}{separator}{piece}" if current else piece
    return [passage for passage in [*passages, current] if len(passage) >= min(SHORTEST, size)]


def shuffled(texts: Sequence[Any], size: int, seed: str) -> Iterator[str]:
    """All passages in an order that follows from `seed`: one of each text, then a second of each ...

    A text is cut once, when its first passage is wanted; its other passages are kept until their turn.
    """
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    later: list[list[str]] = []  # the passages of each text that are left, the next one last
    for place in order:
        text = texts[place]
        passages = cut(text, size) if isinstance(text, str) else []
        random.Random(f"{seed}-{place}").shuffle(passages)
        passages.reverse()
        if passages:
            yield passages.pop()
        if passages:
            later.append(passages)
    while later:
        for passages in later:
            yield passages.pop()
        later = [passages for passages in later if passages]


def _pieces(text: str, size: int) -> Iterator[tuple[str, str]]:
    """(what stands before it in a passage, piece): paragraphs, or their sentences, or parts of these."""
    for paragraph in map(str.strip, re.split(r"\n\s*\n", text)):
        if not paragraph:
            continue
        if len(paragraph) <= size:
            yield "\n\n", paragraph
            continue
        for sentence in _SENTENCE_END.split(paragraph):
            for start in range(0, len(sentence), size):
                yield " ", sentence[start : start + size]
