"""Which questions say the same: near-duplicates among ours, and overlap with the items of test sets.

from training.data.overlap import TestItems
TestItems(["arc_c", "nq"], ngram=13).resembles("Which of these ...?")   # the item, or None

Exact, without sketches: both look words up in inverted indexes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from training import domains

# A Chinese or Japanese character is a word of its own: such text has no spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
SHINGLE = 3  # words of the n-grams whose Jaccard similarity is taken


def words(text: str) -> list[str]:
    """The words of a text, without case, punctuation and white space."""
    return _WORD.findall(text.casefold())


class NearDuplicates:
    """Texts that were accepted, and whether a new one is nearly one of them.

    threshold: of the Jaccard similarity of their word 3-grams. Only the rarest 3-grams of a text are indexed,
    as many as leave no pair of the threshold without a common one (prefix filtering: Chaudhuri et al. 2006,
    Bayardo et al. 2007); what is found does not depend on `rarity`.

    rarity: texts whose 3-grams are counted to tell rare ones; those that will be asked about.
    """

    def __init__(self, threshold: float, rarity: Iterable[str]) -> None:
        self.threshold = threshold
        self._count = Counter(gram for text in rarity for gram in _shingles(text))
        self._accepted: list[tuple[str, frozenset[str]]] = []
        self._index: dict[str, list[int]] = {}

    def resembles(self, text: str) -> str | None:
        """The most similar accepted text of the threshold, the earliest one if several are; or None."""
        grams = _shingles(text)
        best: tuple[float, int] | None = None
        seen: set[int] = set()
        for gram in self._prefix(grams):
            for place in self._index.get(gram, ()):
                if place in seen:
                    continue
                seen.add(place)
                other = self._accepted[place][1]
                if min(len(grams), len(other)) < self.threshold * max(len(grams), len(other)):
                    continue
                common = len(grams & other)
                similarity = common / (len(grams) + len(other) - common)
                if similarity >= self.threshold:
                    best = min(best or (0.0, 0), (-similarity, place))
        return None if best is None else self._accepted[best[1]][0]

    def accept(self, text: str) -> None:
        """Later texts are compared with this one too."""
        grams = _shingles(text)
        for gram in self._prefix(grams):
            self._index.setdefault(gram, []).append(len(self._accepted))
        self._accepted.append((text, grams))

    def _prefix(self, grams: frozenset[str]) -> list[str]:
        ordered = sorted(grams, key=lambda gram: (self._count[gram], gram))
        return ordered[: len(grams) - math.ceil(self.threshold * len(grams) - 1e-9) + 1]


class TestItems:
    """The test questions of named sets, and which of them a text overlaps with.

    Overlap: `ngram` words in a row in common, as GPT-3 was decontaminated (Brown et al. 2020, appendix C); or
    the same words altogether, which finds the shorter ones.
    Raises UserError if the data of a set cannot be loaded.
    """

    __test__ = False  # no class of pytest's

    def __init__(self, names: Sequence[str], ngram: int) -> None:
        self.ngram = ngram
        self._items = [(name, text) for name in names for text in dict.fromkeys(_test_questions(name))]
        self._whole: dict[int, int] = {}  # hash of all words -> item
        self._grams: dict[int, int] = {}  # hash of n words -> the first item that has them
        for place, (_, text) in enumerate(self._items):
            listed = words(text)
            self._whole.setdefault(hash(tuple(listed)), place)
            for gram in _ngrams(listed, ngram):
                self._grams.setdefault(hash(gram), place)

    def __len__(self) -> int:
        return len(self._items)

    def resembles(self, text: str) -> str | None:
        """The item, as "set: its question", or None."""
        listed = words(text)
        for grams, found in ((_ngrams(listed, self.ngram), self._grams), ([tuple(listed)], self._whole)):
            for gram in grams:
                place = found.get(hash(gram))
                if place is not None:
                    name, item = self._items[place]
                    other = words(item)
                    # two different n-grams can have the same hash
                    if other == listed or gram in set(_ngrams(other, self.ngram)):
                        return f"{name}: {item}"
        return None


def _shingles(text: str) -> frozenset[str]:
    listed = words(text)
    if len(listed) < SHINGLE:
        return frozenset([" ".join(listed)])
    return frozenset(" ".join(gram) for gram in _ngrams(listed, SHINGLE))


def _ngrams(listed: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(listed[start : start + n]) for start in range(len(listed) - n + 1)]


def _test_questions(name: str) -> Iterable[str]:
    domain = domains.named(name)
    if domain is not None and domain.questions is not None and domain.questions.tests is not None:
        return domain.questions.tests()
    from ske_tasks.six import load as benchmarks  # takes seconds

    return (row["question"] for row in benchmarks.read(name).test)
