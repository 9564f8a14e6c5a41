"""How well a model that scores its own texts agrees with the judge, on texts that both scored.

    compared([(8, 10), (3, 1), (None, 10)], 8)      # (self-given score, the judge's score) of each text

Self-given scores that are no better than chance select texts blindly, so that what follows is noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SHUFFLES = 2_000  # of the permutation test
CHANCE = 0.05  # a share of shuffles that agree as well, below which it is no chance
Pair = tuple[int | None, int | None]


def compared(pairs: Sequence[Pair], threshold: int) -> dict[str, Any]:
    """texts; unscored: the share without a self-given score; n: texts with both scores; and of these:

    spearman: rank correlation, ties with their mean rank; p: how often shuffled scores correlate as well
    (one-sided permutation test); precision: the share of what the model lets pass (>= threshold) that the
    judge lets pass, too; base_rate: that of all; histogram: {"self", "judge"}: texts by score, [1, 2, ...
    10]; pairs: [[self-given score, the judge's score, texts], ...]. None where there is nothing to divide
    by, or where scores are all equal.
    """
    both = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
    passed = [theirs >= threshold for mine, theirs in both if mine >= threshold]
    good = [theirs >= threshold for _, theirs in both]
    rho, p = _rank_correlation(both)
    return {
        "texts": len(pairs),
        "unscored": _share([mine is None for mine, _ in pairs]),
        "n": len(both),
        "spearman": rho,
        "p": p,
        "precision": _share(passed),
        "base_rate": _share(good),
        "histogram": {
            name: [sum(pair[place] == score for pair in both) for score in range(1, 11)]
            for place, name in enumerate(("self", "judge"))
        },
        "pairs": sorted([*pair, n] for pair, n in Counter(both).items()),
    }


def of_cells(cells: Sequence[Sequence[int]], threshold: int) -> dict[str, Any]:
    """The same of the `pairs` of a comparison."""
    return compared([(mine, theirs) for mine, theirs, n in cells for _ in range(n)], threshold)


def warnings(kinds: Mapping[Any, dict[str, Any]]) -> list[str]:
    """A line for each kind of text whose self-given scores are no better than chance, or are not there."""
    none = [
        f"none of {found['texts']:,} texts that the judge scored, too, has a self-score of its {kind}: "
        "generation.max_verdict_tokens may be too low, or the model cannot judge"
        for kind, found in kinds.items()
        if found["texts"] and found["unscored"] == 1
    ]
    return none + [
        f"self-scores of {kind} are no better than chance on {found['n']:,} texts that the judge scored, too "
        f"({_said(found)}): what this round selects by them, and what is trained on it, is noise"
        for kind, found in kinds.items()
        if found["n"] and (found["p"] is None or found["p"] > CHANCE)
    ]


def _said(found: dict[str, Any]) -> str:
    if found["spearman"] is None:
        return "one of the two gives all of them the same score"
    return f"Spearman {found['spearman']:+.2f}, which shuffled scores reach in {found['p']:.0%} of cases"


def _rank_correlation(pairs: Sequence[tuple[int, int]]) -> tuple[float | None, float | None]:
    """(Spearman's rho, p); None for both where a side has one value only."""
    from scipy.stats import permutation_test, rankdata

    if any(len({pair[place] for pair in pairs}) < 2 for place in (0, 1)):
        return None, None
    mine, theirs = (rankdata([pair[place] for pair in pairs]) for place in (0, 1))

    def rho(ranks: Any, axis: int) -> Any:
        """Pearson's correlation of the ranks, which is Spearman's."""
        a, b = ranks - mine.mean(), theirs - theirs.mean()
        return (a * b).sum(axis=axis) / np.sqrt(mine.var() * theirs.var()) / len(mine)

    found = permutation_test(
        (mine,), rho, permutation_type="pairings", vectorized=True, alternative="greater",
        n_resamples=SHUFFLES, random_state=0,
    )  # fmt: skip
    return round(float(found.statistic), 4), round(float(found.pvalue), 4)


def _share(some: Sequence[bool]) -> float | None:
    return round(sum(some) / len(some), 4) if some else None
