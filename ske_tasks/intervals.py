"""Accuracies with 95 % intervals, bootstrapped over clusters of items that are not independent.

from ske_tasks.intervals import interval
interval([1, 0, 1, 1], clusters=["ann", "ann", "bob", "bob"])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

RESAMPLES = 2_000
SEED = 0


@dataclass(frozen=True)
class Interval:
    """A mean in percent with its 95 % interval, and of how many items."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def above(self, other: Interval) -> bool:
        """Whether this interval lies wholly above the other one."""
        return self.low > other.high


def interval(values: ArrayLike, clusters: Sequence[str]) -> Interval:
    """The mean of `values` (0 to 1, or differences of paired ones), in percent; percentile bootstrap.

    values, clusters: (n,). Items of one cluster (TinyWorld: questions about one person) are drawn
    together, as what a model knows of one is no independent draw from what it knows of another. Raises
    ValueError for no items.
    """
    values = np.asarray(values, dtype=float)
    if not values.size:
        raise ValueError("no items")
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums = np.bincount(index, weights=values)
    sizes = np.bincount(index)
    drawn = np.random.default_rng(SEED).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = 100 * sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(100 * sums.sum() / sizes.sum(), float(low), float(high), len(values))
