"""Intervals: against the closed form where items are independent, and wider where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from ske_tasks.intervals import interval


def test_independent_items_give_the_normal_interval():
    values = np.random.default_rng(1).random(2_000) < 0.6
    found = interval(values, [str(i) for i in range(2_000)])
    half = 196 * (values.mean() * (1 - values.mean()) / 2_000) ** 0.5
    assert found.n == 2_000
    assert found.mean == pytest.approx(100 * values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.08)


def test_items_of_one_cluster_count_as_one():
    values = np.repeat(np.random.default_rng(1).random(100) < 0.6, 20)
    alone = interval(values, [str(i) for i in range(2_000)])
    clustered = interval(values, [str(i // 20) for i in range(2_000)])
    assert clustered.high - clustered.low > 4 * (alone.high - alone.low)


def test_it_is_the_same_every_time_and_compares_by_whole_intervals():
    low, high = [0.0, 1.0, 0.0, 0.0] * 50, [1.0, 1.0, 0.0, 1.0] * 50
    people = [str(i) for i in range(200)]
    assert interval(low, people) == interval(low, people)
    assert interval(high, people).above(interval(low, people))
    assert not interval(low, people).above(interval(low, people))
    with pytest.raises(ValueError, match="no items"):
        interval([], [])
