"""`stop_loops`: the rule, and what the pipeline keeps and counts of a text that was ended by it."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from test_pipeline import OWNER, InstantEngine, items, pipeline

from ske_models.errors import UserError
from ske_models.loops import first_loop, loops, surely_loops
from ske_models.records import Completion
from ske_models.setup import Setup
from ske_models.store import Store


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([7] * 48, True),
        ([7] * 47, False),
        ([1, 2, 3] * 18, True),  # 18 tokens, three times
        ([*range(90), *([7] * 47)], False),
        ([*range(50), *(list(range(16)) * 3)], True),
        (list(range(128)) * 3, True),
        (list(range(129)) * 3, False),
        (list(range(40)) * 2, False),
        ([*(list(range(40)) * 3), 1], False),  # it has gone on
        ([], False),
    ],
)
def test_a_loop_is_a_run_of_16_to_128_tokens_three_times(tokens, expected):
    assert loops(tokens) is expected


def test_it_is_found_where_it_is_complete_however_many_tokens_come_at_a_time():
    tokens = [*range(1000, 1100), *(list(range(20)) * 9)]
    assert first_loop(tokens, 0) == 160
    assert [first_loop(tokens[:n], n - 1) for n in (159, 160, 161)] == [None, 160, 161]


def test_a_server_is_only_accused_of_a_loop_that_the_rule_had_ended():
    draw = random.Random(0)
    for _ in range(2000):
        run = [draw.randrange(9) for _ in range(draw.randrange(1, 140))]
        tokens = [draw.randrange(9) for _ in range(30)] + run * draw.randrange(1, 12)
        text = "".join(f"word {token}, " if token < 5 else ".ab!"[token - 5] for token in tokens)
        if surely_loops(text):
            assert first_loop(tokens, 0) is not None
    assert surely_loops("The same again. " * 60)
    assert not surely_loops("The same again. " * 30)


OLD_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE steps (
    key TEXT PRIMARY KEY, step TEXT NOT NULL, prompts TEXT NOT NULL,
    question TEXT NOT NULL, text TEXT NOT NULL,
    written INTEGER NOT NULL    -- how often it was generated: 1, unless two processes did it at once
);
"""  # as of commit 6185463


class LoopingEngine(InstantEngine):
    """Its knowledge is ended, its answers are not."""

    def generate(self, requests, done):
        texts = []
        for index, request in enumerate(requests):
            self.prompts.append(request.prompt)
            texts.append(Completion("again " * 5))
            texts[-1].looped = request.step == "knowledge"
            done(index, texts[-1])
        return texts


@pytest.mark.parametrize("again", [False, True])
def test_what_was_ended_is_counted_and_in_the_trace_also_from_the_store(tmp_path: Path, again):
    store = Store(tmp_path / "store.sqlite", OWNER)
    for _ in range(1 + again):
        one = pipeline(LoopingEngine(), store, stop_loops=True)
        answers = one.run(items(3))
    assert [answer.trace["looped"] for answer in answers] == [{"knowledge": True, "answer": False}] * 3
    steps = one.report()["steps"]
    assert (steps["knowledge"]["looped"], steps["answer"]["looped"]) == (3, 0)
    assert steps["knowledge"]["reused"] == 3 * again
    assert one.report()["stop_loops"] is True


@pytest.mark.parametrize("truncated", [False, True])
def test_a_length_that_the_engine_said_is_the_same_from_the_store(tmp_path: Path, truncated):
    """A tokenizer counts another number: an answer would be cut in one run, and whole when it goes on."""
    store = Store(tmp_path / "store.sqlite", OWNER)
    text = Completion("again again")
    text.tokens, text.truncated = 77, truncated
    store.put("1", "answer", "p", "q", text)
    store.put("2", "answer", "p", "q", "plain")
    found, plain = store.get("1"), store.get("2")
    assert found is not None
    assert (found, found.tokens, found.truncated, found.looped) == ("again again", 77, truncated, False)
    assert plain is not None
    assert (plain.tokens, plain.truncated) == (None, None)


def test_a_text_that_may_not_loop_is_another_text(tmp_path: Path):
    store = Store(tmp_path / "store.sqlite", OWNER)
    engine = InstantEngine()
    for stop_loops, written in ((False, 4), (True, 8), (False, 8), (True, 8)):
        pipeline(engine, store, stop_loops=stop_loops).run(items(2))
        assert len(engine.prompts) == written


def test_a_store_without_lengths_takes_such_texts(tmp_path: Path):
    path = tmp_path / "store.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_SCHEMA)
    pipeline(LoopingEngine(), Store(path, OWNER), stop_loops=True).run(items(1))
    assert (
        pipeline(InstantEngine(), Store(path, OWNER), stop_loops=True)
        .run(items(1))[0]
        .trace["looped"]["knowledge"]
    )


def test_other_values_are_refused():
    with pytest.raises(UserError, match="stop_loops=3: True or False is needed"):
        Setup("explicit", "single", "default", None, None, None, stop_loops=3)  # type: ignore[arg-type]
