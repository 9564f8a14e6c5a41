"""Paired statistics: against scipy, closed forms, and tables whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from ske_tasks.compare.paired import Paired, mcnemar
from ske_tasks.intervals import interval


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (18, 32), (32, 18), (5, 5), (200, 150), (9_000, 9_400)]
)
def test_mcnemar_is_the_exact_binomial_test(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-6)


def test_one_group_has_the_intervals_of_single_runs():
    draw = np.random.default_rng(3)
    right = (draw.random((400, 2)) < [0.5, 0.6]).astype(float)
    people = [str(i // 8) for i in range(400)]
    pairs = Paired(right, ["all"] * 400, people)
    for found, values in (
        (pairs.accuracy("all", 0), right[:, 0]),
        (pairs.difference(1, 0), right[:, 1] - right[:, 0]),
    ):
        alone = interval(values, people)
        assert (found.mean, found.n) == (pytest.approx(alone.mean), alone.n)
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_a_paired_difference_is_that_of_scipy():
    draw = np.random.default_rng(4)
    right = (draw.random((500, 2)) < [0.5, 0.7]).astype(float)
    found = Paired(right, ["all"] * 500).difference(1, 0)
    theirs = bootstrap((100 * (right[:, 1] - right[:, 0]),), np.mean, method="percentile", rng=5)
    assert found.mean == pytest.approx(100 * (right[:, 1] - right[:, 0]).mean())
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.5)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.5)


def test_the_average_gives_each_group_the_same_weight_and_a_group_each_subset():
    right = [[1, 0]] * 6 + [[0, 0]] * 2 + [[0, 1]] * 2
    groups = ["big"] * 8 + ["small"] * 2
    subsets = ["a"] * 6 + ["b"] * 2 + ["c"] * 2
    assert Paired(right, groups).accuracy("big", 0).mean == pytest.approx(75)
    pairs = Paired(right, groups, subsets=subsets)
    assert pairs.accuracy("big", 0).mean == pytest.approx(50)
    assert pairs.average(0).mean == pytest.approx(25)
    assert pairs.average(1).mean == pytest.approx(50)
    assert pairs.difference(1, 0).mean == pytest.approx(25)
    assert pairs.flips(1, 0) == (2, 6)
    assert pairs.flips(1, 0, "small") == (2, 0)


def test_no_items_are_refused():
    with pytest.raises(ValueError, match="no items"):
        Paired([], [])
