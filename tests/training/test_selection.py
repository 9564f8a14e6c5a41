"""Selection: the rules, on rows made for them; its errors; and precision and recall on TinyWorld's truth."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

import training.stages.select as selection
from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_json, write_jsonl
from ske_tasks.world import default_world, oracle, questions
from training.data.texts import KINDS, Text, TextRow
from training.recipe import FOLDER, Select
from training.run_folder import RunFolder

Row = dict[str, Any]
WHOLE = {"knowledge": False, "reasoning": None}


@pytest.fixture
def make_run(tmp_path: Path):
    """A run with one round, whose recipe is world.yaml with other settings of `select`."""

    def make(written: list[Row], scores: list[Row], world: bool = False, **select: Any) -> RunFolder:
        recipe = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
        recipe["select"] = {"threshold": 8, **select}
        if not world:
            recipe["questions"]["sources"] = [{"source": "dataset", "path": "questions.jsonl"}]
        write_json(tmp_path / "recipe.json", recipe)
        write_jsonl(tmp_path / "round1" / "written.jsonl", written)
        write_jsonl(tmp_path / "round1" / "scores.jsonl", scores)
        return RunFolder.open(tmp_path)

    return make


def texts(*scores: tuple[int | None, int | None], question: str = "q") -> tuple[list[Row], list[Row]]:
    """Samples 0, 1, ... of one question, all different, with these (knowledge, reasoning) scores."""
    written, judged = [], []
    for sample, pair in enumerate(scores):
        name = {"id": question, "sample": sample}
        text = {
            "knowledge": f"{question} k{sample}.",
            "reasoning": f"{question} r{sample}.",
            "truncated": WHOLE,
        }
        written.append({**name, "question": f"{question}?", **text, "extra": [sample]})
        judged += [{**name, "kind": kind, "score": score} for kind, score in zip(KINDS, pair, strict=True)]
    return written, judged


def several(*parts: tuple[list[Row], list[Row]]) -> tuple[list[Row], list[Row]]:
    return [row for part in parts for row in part[0]], [row for part in parts for row in part[1]]


def names(run: RunFolder) -> list[str]:
    return [f"{row['id']}{row['sample']}" for row in read_jsonl(run.round(1) / "selected.jsonl")]


def test_both_scores_must_reach_the_threshold(make_run):
    run = make_run(*texts((8, 8), (7, 10), (10, 7), (None, 10), (10, None), (9, 10)))
    counts = selection.run(run, 1)
    assert names(run) == ["q0", "q5"]
    assert (
        counts
        | {
            "written": 6,
            "scored": 4,
            "unscored": 2,
            "unscored_by_kind": {"knowledge": 1, "reasoning": 1},
            "passed": 2,
            "share_passed": 0.5,
            "selected": 2,
            "questions": 1,
            "questions_selected": 1,
            "warnings": [],
        }
        == counts
    )
    assert counts["histogram"]["knowledge"] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert json.loads(json.dumps(counts)) == counts
    assert "truth" not in counts
    kept = read_jsonl(run.round(1) / "selected.jsonl")
    assert kept[1]["scores"] == {"knowledge": 9, "reasoning": 10}
    assert {**kept[1], "scores": None} == {**read_jsonl(run.round(1) / "written.jsonl")[5], "scores": None}


def test_equal_texts_of_a_question_count_once_and_the_better_scored_stands(make_run):
    written, scores = several(texts((8, 8), (9, 8), (9, 8), (10, 10)), texts((8, 8), question="p"))
    for row in written[:3]:
        row |= {"knowledge": "same.", "reasoning": "same."}
    written[4] |= {"knowledge": "same.", "reasoning": "same."}  # of another question
    run = make_run(written, scores)
    counts = selection.run(run, 1)
    assert names(run) == ["q1", "q3", "p0"]
    assert (counts["equal"], counts["passed"], counts["passed_equal"], counts["selected"]) == (2, 5, 2, 3)


def test_a_quota_keeps_the_highest_sums_then_the_lowest_samples(make_run):
    run = make_run(
        *several(texts((8, 8), (9, 9), (8, 10), (10, 10)), texts((9, 9), question="p")), per_question=2
    )
    counts = selection.run(run, 1)
    assert names(run) == ["q1", "q3", "p0"]
    assert counts["dropped_by_quota"] == 2
    assert counts["questions_selected"] == 2


def test_random_keeps_as_many_as_score_would_blindly_and_the_same_every_time(make_run):
    rng = random.Random(1)
    pairs = [[(rng.choice((2, 9)), rng.choice((3, 9, 10))) for _ in range(4)] for _ in range(60)]
    data = several(*(texts(*four, question=f"q{i}-") for i, four in enumerate(pairs)))
    for quota in (None, 1, 2):
        by_score = selection.run(make_run(*data, per_question=quota), 1)
        run = make_run(*data, per_question=quota, by="random")
        drawn = selection.run(run, 1)
        assert drawn["selected"] == by_score["selected"] > 20
        first = (run.round(1) / "selected.jsonl").read_bytes()
        selection.run(run, 1)
        assert (run.round(1) / "selected.jsonl").read_bytes() == first
        rows = read_jsonl(run.round(1) / "selected.jsonl")
        low = sum(min(row["scores"].values()) < 8 for row in rows) / len(rows)
        scored = [pair for four in pairs for pair in four]
        assert low == pytest.approx(sum(min(pair) < 8 for pair in scored) / len(scored), abs=0.17)
        ids = [row["id"] for row in rows]
        assert quota is None or max(map(ids.count, ids)) <= quota


def test_all_keeps_whatever_is_scored_and_a_quota_does_not_look_at_scores(make_run):
    data = texts((1, 1), (None, 10), (2, 9), (10, 10))
    run = make_run(*data, by="all")
    assert selection.run(run, 1)["selected"] == 3
    assert names(run) == ["q0", "q2", "q3"]
    run = make_run(*data, by="all", per_question=2)
    assert selection.run(run, 1)["dropped_by_quota"] == 1
    assert names(run) == ["q0", "q2"]


@pytest.mark.parametrize(
    ("passing", "of", "words"), [(19, 20, "nearly all pass"), (1, 20, "nearly none"), (18, 20, "")]
)
def test_warns_when_nearly_all_or_nearly_none_passes(make_run, passing, of, words):
    run = make_run(*texts(*[(9, 9)] * passing, *[(9, 2)] * (of - passing)))
    warnings = selection.run(run, 1)["warnings"]
    assert len(warnings) == bool(words)
    assert words in "".join(warnings)


@pytest.mark.parametrize("by", ["score", "random"])
def test_an_empty_selection_stops_with_the_histogram_and_writes_nothing(make_run, by):
    run = make_run(*texts((7, 10), (10, 3), (None, None)), by=by)
    with pytest.raises(UserError) as error:
        selection.run(run, 1)
    lines = str(error.value).splitlines()
    assert "none of 3 texts is selected (1 unscored; threshold 8" in lines[0]
    assert lines[2].split() == ["knowledge", *"0000001001"]
    assert lines[3].split() == ["reasoning", *"0010000001"]
    assert "lower select.threshold" in lines[4]
    assert not (run.round(1) / "selected.jsonl").exists()
    assert (run.round(1) / "scores.jsonl").exists()


def test_what_is_truncated_or_empty_was_not_judged_and_is_not_selected(make_run):
    written, scores = texts((9, 9), (9, 9), (9, 9))
    written[0]["truncated"] = {"knowledge": False, "reasoning": True}
    written[1]["knowledge"] = " "
    counts = selection.run(make_run(written, scores[4:]), 1)
    assert (counts["written"], counts["unscored"], counts["not_judged"], counts["selected"]) == (3, 2, 2, 1)


def test_nothing_written_is_an_empty_selection(make_run):
    with pytest.raises(UserError, match="none of 0 texts"):
        selection.run(make_run([], []), 1)


def broken(change: str) -> tuple[list[Row], list[Row]]:
    written, scores = texts((9, 9), (8, 8))
    match change:
        case "field missing":
            del written[1]["reasoning"]
        case "field null":
            written[1]["knowledge"] = None
        case "score of 11":
            scores[3]["score"] = 11
        case "score as text":
            scores[2]["score"] = "8"
        case "unknown kind":
            scores[2]["kind"] = "style"
        case "score row missing":
            del scores[2]
        case "score of nobody":
            scores.append({**scores[0], "id": "x"})
        case "scored twice":
            scores.append(scores[0])
        case "written twice":
            written.append(written[0])
    return written, scores


@pytest.mark.parametrize(
    ("change", "file", "words"),
    [
        ("field missing", "written.jsonl", "id q, sample 1: reasoning: field required"),
        ("field null", "written.jsonl", "id q, sample 1: knowledge: .*not None"),
        ("score of 11", "scores.jsonl", "id q, sample 1: score: .*not 11"),
        ("score as text", "scores.jsonl", "id q, sample 1: score: .*not '8'"),
        ("unknown kind", "scores.jsonl", "id q, sample 1: kind: .*not 'style'"),
        ("score row missing", "scores.jsonl", "q, sample 1: no row for its knowledge"),
        ("score of nobody", "scores.jsonl", "x, sample 0 is not in written.jsonl"),
        ("scored twice", "scores.jsonl", "q, sample 0: two knowledge scores"),
        ("written twice", "written.jsonl", "q, sample 0 is there twice"),
    ],
)
def test_broken_rows_are_named(make_run, change, file, words):
    run = make_run(*broken(change))
    with pytest.raises(UserError, match=words) as error:
        selection.run(run, 1)
    assert file in str(error.value)
    assert not (run.round(1) / "selected.jsonl").exists()


def test_a_line_that_is_no_json_is_named(make_run):
    run = make_run(*texts((9, 9)))
    with (run.round(1) / "scores.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "q", "sam\n')
    with pytest.raises(UserError, match=r"scores\.jsonl, line 3: not JSON"):
        selection.run(run, 1)


def test_precision_recall_and_base_rate_against_the_oracle(make_run):
    world = default_world()
    rows = questions.sample(world, "rounds", {"two_hop": 4}, seed=0)
    written, scores = [], []

    def add(question: questions.Question, sample: int, right: bool, said: int | None) -> None:
        knowledge = question.knowledge if right else question.facts[0].text()
        reasoning = oracle.read(question, question.facts)[0]
        name = {"id": question.id, "sample": sample}
        written.append(
            {
                **name,
                "question": question.question,
                "knowledge": knowledge,
                "reasoning": reasoning,
                "truncated": WHOLE,
            }
        )
        scores.append({**name, "kind": "knowledge", "score": said})
        scores.append({**name, "kind": "reasoning", "score": 10})

    # right and passed twice (equal texts); right and unscored; wrong and passed; wrong and not passed
    add(rows[0], 0, True, 10)
    add(rows[0], 1, True, 10)
    add(rows[1], 0, True, None)
    add(rows[2], 0, False, 9)
    add(rows[3], 0, False, 5)
    # a question that is not the world's has no truth
    written.append({**written[0], "id": "x", "question": "Why?", "knowledge": "a"})
    scores += [{"id": "x", "sample": 0, "kind": kind, "score": 10} for kind in KINDS]
    run = make_run(written, scores, world=True)
    counts = selection.run(run, 1)
    truth = counts["truth"]
    assert truth["all"] == {"n": 5, "base_rate": 0.6, "precision": 0.6667, "recall": 0.6667}
    assert truth["distinct"] == {"n": 4, "base_rate": 0.5, "precision": 0.5, "recall": 0.5}
    assert truth["selected"] == {"n": 2, "right": 1}
    assert counts["agreement"]["knowledge"] == [[5, 5, 1], [9, 5, 1], [10, 10, 2]]
    assert sum(n for _, _, n in counts["agreement"]["reasoning"]) == 5


def test_a_text_that_the_oracle_passes_is_one_that_both_judgements_pass(make_run):
    world = default_world()
    question = questions.sample(world, "rounds", {"two_hop": 1}, seed=0)[0]
    name = {"id": question.id, "sample": 0, "question": question.question, "truncated": WHOLE}
    reasoning = oracle.read(question, question.facts)[0].replace(question.gold, "nobody")
    run = make_run(
        [{**name, "knowledge": question.knowledge, "reasoning": reasoning}],
        [{**name, "kind": kind, "score": 9} for kind in KINDS],
        world=True,
    )
    assert selection.run(run, 1)["truth"]["all"] == {
        "n": 1,
        "base_rate": 0.0,
        "precision": 0.0,
        "recall": None,
    }


def test_choosing_by_score_ignores_the_order_of_rows():
    written, scores = texts((8, 9), (9, 8), (10, 10))
    by_name = {(row["sample"], row["kind"]): row["score"] for row in scores}
    made = [
        Text(
            row,
            TextRow.model_validate(row),
            {kind: by_name[row["sample"], kind] for kind in KINDS},
        )
        for row in written
    ]
    select = Select(by="score", threshold=8, per_question=2)
    kept = selection.choose(made, select, random.Random(0))
    turned = selection.choose(made[::-1], select, random.Random(0))
    assert kept == turned[::-1] == [made[0], made[2]]
