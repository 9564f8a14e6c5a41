"""The simulation of benchmarks/tail.py: in any order every text is written once and no bound is beaten."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.lengths import recorded
from benchmarks.tail import ORDERS, STEP, TEXT, Engine, Text, bound, queues


@pytest.mark.parametrize("order", ORDERS)
def test_every_text_is_written_once_and_not_before_the_bound(order):
    for name, chains in queues(recorded("qwen")[:60]).items():
        for slots, cache in ((4, 50_000), (64, 50_000), (64, 4_000)):
            engine = Engine(slots, cache, ORDERS[order]()).run(chains)
            assert Counter(map(id, engine.ended)) == Counter(id(text) for chain in chains for text in chain)
            assert engine.ms >= bound(chains, slots, cache) * (1 - 1e-9), name
            assert engine.used == 0
            assert engine.room.busy == 0
    assert engine.preempted > 0, "the small cache was never full"


def test_a_run_of_two_texts_by_hand():
    kind = ("task", "direct")
    chains = [[Text(kind, prompt=0, length=3)], [Text(kind, prompt=0, length=5)]]
    engine = Engine(2, 10_000, ORDERS["today's"]()).run(chains)
    assert engine.steps == 5
    assert engine.ms == pytest.approx(5 * STEP + 8 * TEXT)
    assert engine.ms == pytest.approx(bound(chains, 2, 10_000))
    assert Engine(1, 10_000, ORDERS["today's"]()).run(chains).steps == 8
