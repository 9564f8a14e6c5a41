"""How good the scores of a round are, where a domain knows the truth: precision, recall, and the base rate.

against_truth(texts, selected, 8, [domain.truth])
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from training.data.texts import KINDS, Text, distinct
from training.domain import Truth


def against_truth(
    texts: Sequence[Text], chosen: Sequence[Text], threshold: int, truths: Sequence[Truth]
) -> tuple[dict[str, Any], dict[str, list[list[int]]]]:
    """How good the scores are where the truth is known: texts whose question a domain knows.

    First: all, distinct: of all texts, and of those that differ: n, base_rate (share that the truth lets
    pass), precision and recall of those that the scores let pass (unscored ones do not; None: nothing to
    divide by); selected: n, and how many of it the truth lets pass.
    Second, the agreement: kind -> [[score, true score, texts], ...].
    """
    scores = {id(text): truth for text in texts if (truth := _scores(text, truths)) is not None}
    known = [text for text in texts if id(text) in scores]

    def right(text: Text) -> bool:
        return all(score >= threshold for score in scores[id(text)].values())

    def rates(some: Sequence[Text]) -> dict[str, Any]:
        passed = [text for text in some if text.passes(threshold)]
        good, hits = sum(map(right, some)), sum(map(right, passed))
        return {
            "n": len(some),
            "base_rate": _share(good, len(some)),
            "precision": _share(hits, len(passed)),
            "recall": _share(hits, good),
        }

    pairs = {kind: Counter((text.scores[kind], scores[id(text)][kind]) for text in known) for kind in KINDS}
    chosen_known = [text for text in chosen if id(text) in scores]
    rated = {"all": rates(known), "distinct": rates(distinct(known))}
    return rated | {"selected": {"n": len(chosen_known), "right": sum(map(right, chosen_known))}}, {
        kind: sorted([mine, truth, n] for (mine, truth), n in pairs[kind].items() if mine is not None)
        for kind in KINDS
    }


def _scores(text: Text, truths: Sequence[Truth]) -> dict[str, int] | None:
    """The scores that the first domain gives which knows the question; None if there is none."""
    written = text.written
    for truth in truths:
        found = truth(written.question, written.knowledge, written.reasoning)
        if found is not None:
            return found
    return None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
