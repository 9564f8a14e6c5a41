"""The pipeline over an engine that answers at once: what is asked, shared, stored and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from ske_models import prompts
from ske_models.errors import UserError
from ske_models.knowledge import KnowledgeFile, export
from ske_models.method import Question
from ske_models.pipeline import Pipeline
from ske_models.records import Item
from ske_models.store import Store

OWNER = {"backend": "instant", "weights": "1"}


class KilledError(Exception):
    pass


@dataclass
class InstantEngine:
    """Writes a text that depends on the prompt alone, tells of each at once, may die after `lives` texts."""

    calls: list[list[str]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    lives: int | None = None

    def render(self, messages, chat):
        return json.dumps(messages)

    def generate(self, requests, done):
        self.calls.append([request.step for request in requests])
        texts = []
        for index, request in enumerate(requests):
            if self.lives is not None and len(self.prompts) >= self.lives:
                raise KilledError
            self.prompts.append(request.prompt)
            texts.append(f"text {hash(request.prompt)}")
            done(index, texts[-1])
        return texts

    def count_tokens(self, text):
        return len(text.split())

    def cut_to(self, request):
        return None

    def sampled(self, settings):
        return settings.get("do_sample", False)


def items(n, settings=None):
    return [Item(Question((), f"q{i}?", f"q{i}?"), settings or {"until": []}, limit=8) for i in range(n)]


def pipeline(engine: InstantEngine, store: Store, **changes: Any) -> Pipeline:
    options: dict[str, Any] = {
        "method": "explicit",
        "layout": "single",
        "prompts": prompts.load("default"),
        "knowledge_settings": {"max": 2},
        "knowledge_limit": 8,
    }
    return Pipeline(engine=engine, store=store, **(options | changes))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store.sqlite", OWNER)


def test_step_1_of_a_window_goes_with_step_2_of_the_one_before(store):
    engine = InstantEngine()
    pipeline(engine, store, max_in_flight=4).run(items(10))
    assert [Counter(call) for call in engine.calls] == [
        {"knowledge": 4},
        {"knowledge": 4, "answer": 4},
        {"knowledge": 2, "answer": 4},
        {"answer": 2},
    ]


class ContinuousEngine(InstantEngine):
    """Takes new requests while it runs, answers first."""

    def generate(self, requests, done):
        asked, texts, waiting = list(requests), {}, list(range(len(requests)))
        self.calls.append([])
        while waiting:
            index = min(waiting, key=lambda index: (asked[index].step, index))
            waiting.remove(index)
            self.prompts.append(asked[index].prompt)
            self.calls[-1].append(asked[index].step)
            texts[index] = f"text {hash(asked[index].prompt)}"
            new = done(index, texts[index])
            waiting += range(len(asked), len(asked) + len(new))
            asked += new
        return [texts[index] for index in range(len(asked))]


def test_an_engine_that_takes_requests_while_it_runs_is_called_once(store):
    expected = pipeline(InstantEngine(), Store(None, OWNER)).run(items(10) + items(3))
    engine = ContinuousEngine()
    run = pipeline(engine, store, max_in_flight=2)
    assert run.run(items(10) + items(3)) == expected
    assert engine.calls == [["knowledge", "answer"] * 10]
    assert (run.counts["answer"].generated, run.counts["answer"].shared) == (10, 3)
    again = ContinuousEngine()
    assert pipeline(again, store, max_in_flight=2).run(items(10)) == expected[:10]
    assert again.calls == []


@pytest.mark.parametrize("window", [1, 3, 100])
def test_the_window_changes_nothing_in_the_answers(store, window):
    expected = pipeline(InstantEngine(), Store(None, OWNER)).run(items(10))
    assert pipeline(InstantEngine(), store, max_in_flight=window).run(items(10)) == expected


def test_equal_questions_are_asked_once(store):
    engine = InstantEngine()
    run = pipeline(engine, store)
    answers = run.run(items(5) + items(5))
    assert answers[:5] == answers[5:]
    assert len(engine.prompts) == len(set(engine.prompts)) == 10
    assert (
        run.counts["knowledge"].asked,
        run.counts["knowledge"].generated,
        run.counts["knowledge"].shared,
    ) == (10, 5, 5)


def test_sampled_answers_are_neither_shared_nor_stored(store):
    engine = InstantEngine()
    pipeline(engine, store).run(items(3, {"do_sample": True}) * 2)
    assert engine.calls == [["knowledge"] * 3, ["answer"] * 6]
    again = InstantEngine()
    pipeline(again, store).run(items(3, {"do_sample": True}))
    assert again.calls == [["answer"] * 3]


def test_killed_after_every_single_text_it_generates_nothing_twice(tmp_path):
    uninterrupted = pipeline(InstantEngine(), Store(None, OWNER), max_in_flight=3).run(items(8))
    path = tmp_path / "store.sqlite"
    for _ in range(15):  # 8 questions, 2 steps: the sixteenth text ends the run
        with pytest.raises(KilledError):
            pipeline(InstantEngine(lives=1), Store(path, OWNER), max_in_flight=3).run(items(8))
    last = pipeline(InstantEngine(lives=1), Store(path, OWNER), max_in_flight=3)
    assert last.run(items(8)) == uninterrupted
    assert (last.counts["knowledge"].reused, last.counts["answer"].reused) == (8, 7)
    written = Store(path, OWNER)._db.execute("SELECT COUNT(*), MAX(written) FROM steps").fetchone()
    assert written == (16, 1)


def test_what_determines_a_text_is_in_its_key(store):
    pipeline(InstantEngine(), store).run(items(2))
    changes: list[dict[str, Any]] = [
        {"layout": "multiturn"},
        {"knowledge_settings": {"max": 3}},
        {"method": "cot"},
        {"prompts": prompts.load("world")},
    ]
    for change in changes:
        engine = InstantEngine()
        pipeline(engine, store, **change).run(items(2))
        assert engine.prompts, change


def test_truncated_texts_are_counted_whether_new_or_stored(store):
    for _ in range(2):
        run = pipeline(InstantEngine(), store, knowledge_limit=2)
        run.run(items(3))
        assert run.counts["knowledge"].truncated == 3
        assert run.counts["answer"].truncated == 0


def test_the_cost_of_a_call_is_shared_out_between_its_steps(store):
    run = pipeline(InstantEngine(), store, max_in_flight=2)
    run.run(items(6))
    report = run.report()["steps"]
    assert set(report) == {"knowledge", "answer"}
    assert all(
        step["generated"] == 6 and step["seconds"] > 0 and step["prompt_tokens"] for step in report.values()
    )


def test_edited_knowledge_is_used_and_told(store, tmp_path):
    pipeline(InstantEngine(), store).run(items(3))
    records = list(export(store.path))
    assert [record["question"] for record in records] == ["q0?", "q1?", "q2?"]
    records[1]["knowledge"] = "something else"
    file = tmp_path / "edited.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records[:2]))
    given = KnowledgeFile(file, OWNER, prompts.load("default").hash)
    engine = InstantEngine()
    run = pipeline(engine, store, knowledge_file=given)
    answers = run.run(items(3))
    assert [answer.trace["knowledge_source"] for answer in answers] == ["file", "edited", "store"]
    assert answers[1].trace["knowledge"] == "something else"
    assert len(engine.prompts) == 1
    assert "something else" in engine.prompts[0]
    counts = run.counts["knowledge"]
    assert (counts.from_file, counts.edited, counts.reused, counts.generated) == (1, 1, 1, 0)


def test_a_knowledge_file_for_other_questions_is_refused(store, tmp_path):
    file = tmp_path / "other.jsonl"
    file.write_text(json.dumps({"question": "another?", "knowledge": "k"}) + "\n")
    with pytest.raises(UserError, match="none of this run's questions"):
        pipeline(InstantEngine(), store, knowledge_file=KnowledgeFile(file, OWNER, "")).run(items(2))
