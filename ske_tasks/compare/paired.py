"""Statistics of several runs over the same items: macro averages, paired differences, McNemar's exact test.

    from ske_tasks.compare.paired import Paired
    pairs = Paired(right, groups, clusters)          # right: (items, runs), 0 or 1
    pairs.average(0), pairs.difference(1, 0)         # in percent, with 95 % intervals

Used by benchmarks/prompts.py and ske_tasks/compare/table.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import exp, lgamma, log

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ske_tasks.intervals import RESAMPLES, SEED, Interval


class Paired:
    """The verdicts of several runs over the same items, resampled together so that differences are paired.

    right: (items, runs), 0 to 1. groups: (items,), the benchmark of each. clusters: (items,), items that are
    not independent of each other (questions about one passage or person) have the same name and are drawn
    together; None: every item alone. subsets: (items,); where given, the accuracy of a group is the mean over
    its subsets, as the harnesses print it; None: over its items. An average is over groups, each with the
    same weight. Raises ValueError for no items.
    """

    def __init__(
        self,
        right: ArrayLike,
        groups: Sequence[str],
        clusters: Sequence[str] | None = None,
        subsets: Sequence[str] | None = None,
        resamples: int = RESAMPLES,
    ) -> None:
        self.right = np.asarray(right, dtype=float)
        if not self.right.size:
            raise ValueError("no items")
        self.groups = list(dict.fromkeys(groups))
        self.resamples = resamples
        names = np.asarray(groups)
        self._members = {group: np.flatnonzero(names == group) for group in self.groups}
        self._clusters = None if clusters is None else np.asarray(clusters)
        self._subsets = None if subsets is None else np.asarray(subsets)

    def _weights(self, members: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of each item in its group's accuracy; they add up to the number of items."""
        if self._subsets is None:
            return np.ones(len(members))
        index, sizes = np.unique(self._subsets[members], return_inverse=True, return_counts=True)[1:]
        return len(members) / (len(sizes) * sizes[index])

    @cached_property
    def _drawn(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """By group: accuracies (runs,), and those of the resamples (resamples, runs)."""
        found = {}
        for place, (group, members) in enumerate(self._members.items()):
            generator = np.random.default_rng(SEED)  # so that a group's intervals do not depend on the others
            weights = self._weights(members)
            names = np.arange(len(members)) if self._clusters is None else self._clusters[members]
            index = np.unique(names, return_inverse=True)[1]
            columns = [weights, *(weights * self.right[members].T)]
            sums = np.column_stack([np.bincount(index, weights=column) for column in columns])
            draws = np.empty((self.resamples, sums.shape[1]))
            for row in range(self.resamples):
                drawn = generator.integers(0, len(sums), size=len(sums))
                draws[row] = np.bincount(drawn, minlength=len(sums)) @ sums
            # In an average the draws of one group must not go with the same draws of another one.
            draws = np.random.default_rng([SEED, place]).permutation(draws)
            total = sums.sum(axis=0)
            found[group] = total[1:] / total[0], draws[:, 1:] / draws[:, :1]
        return found

    def accuracy(self, group: str, run: int) -> Interval:
        """Of one run in one group."""
        return self._interval([group], [run], [1.0])

    def average(self, run: int) -> Interval:
        """The mean over groups of a run's accuracies."""
        return self._interval(self.groups, [run], [1.0])

    def difference(self, run: int, base: int, group: str | None = None) -> Interval:
        """How far `run` is ahead of `base` in a group, or in the average."""
        return self._interval([group] if group else self.groups, [run, base], [1.0, -1.0])

    def _interval(self, groups: Sequence[str], runs: Sequence[int], signs: Sequence[float]) -> Interval:
        factors = np.asarray(signs)
        mean = np.mean([self._drawn[group][0][list(runs)] @ factors for group in groups])
        draws = np.mean([self._drawn[group][1][:, list(runs)] @ factors for group in groups], axis=0)
        low, high = np.percentile(100 * draws, [2.5, 97.5])
        size = sum(len(self._members[group]) for group in groups)
        return Interval(100 * float(mean), float(low), float(high), size)

    def flips(self, run: int, base: int, group: str | None = None) -> tuple[int, int]:
        """(items that only `run` has right, items that only `base` has right)."""
        rows = self._members[group] if group else slice(None)
        mine, theirs = self.right[rows, run], self.right[rows, base]
        return int((mine > theirs).sum()), int((mine < theirs).sum())


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of McNemar's test: `gained` heads in `gained + lost` throws of a fair coin."""
    n, fewer = gained + lost, min(gained, lost)
    logs = [lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) - n * log(2) for i in range(fewer + 1)]
    return min(1.0, 2 * sum(exp(value) for value in logs))
