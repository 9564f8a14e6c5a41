"""Self-given scores against the judge's: the figures, and the warning when they are no better than chance."""

from __future__ import annotations

import random

import pytest
import scipy.stats
from judge_server import JudgeServer
from judge_server import score as judge_score
from test_judge import new_run, openai_judge, written

from ske_models.files import read_jsonl
from training import stage as stages
from training.data.agreement import compared, of_cells, warnings
from training.judges import itself
from training.judges.verdict import read_verdict
from training.stages import agreement, judge


def noisy(n, noise, seed=0):
    """Pairs in which the self-given score is the judge's, more or less."""
    rng = random.Random(seed)
    theirs = [rng.randint(1, 10) for _ in range(n)]
    return [(min(max(score + rng.randint(-noise, noise), 1), 10), score) for score in theirs]


@pytest.mark.parametrize("noise", [0, 3, 9])
def test_the_figures_are_scipys(noise):
    pairs = noisy(80, noise)
    found = compared(pairs, 8)
    mine, theirs = zip(*pairs, strict=True)
    expected = scipy.stats.spearmanr(mine, theirs, alternative="greater")
    assert found["spearman"] == pytest.approx(expected.statistic, abs=1e-4)
    assert found["p"] == pytest.approx(expected.pvalue, abs=0.02)
    passed = [b for a, b in pairs if a >= 8]
    assert found["precision"] == pytest.approx(sum(b >= 8 for b in passed) / len(passed), abs=1e-4)
    assert found["base_rate"] == pytest.approx(sum(b >= 8 for b in theirs) / 80, abs=1e-4)
    assert (sum(found["histogram"]["self"]), found["histogram"]["judge"][9]) == (80, theirs.count(10))
    assert of_cells(found["pairs"], 8) == found


def test_unscored_texts_are_counted_and_left_out():
    found = compared([(8, 9), (None, 3), (4, 2), (9, None)], 8)
    assert (found["texts"], found["n"], found["unscored"], found["spearman"]) == (4, 2, 0.25, 1.0)
    empty = compared([], 8)
    assert (empty["n"], empty["unscored"], empty["spearman"], empty["precision"]) == (0, None, None, None)
    assert warnings({"knowledge": empty}) == []
    [said] = warnings({"knowledge": compared([(None, 3), (None, 9)], 8)})
    assert said.startswith("none of 2 texts that the judge scored, too, has a self-score of its knowledge")


def test_chance_is_warned_of():
    rng = random.Random(1)
    blind = compared([(rng.randint(1, 10), rng.randint(1, 10)) for _ in range(60)], 8)
    backwards = compared([(11 - b, b) for _, b in noisy(60, 1)], 8)
    flat = compared([(8, b) for _, b in noisy(60, 1)], 8)
    good = compared(noisy(60, 2), 8)
    said = warnings({"blind": blind, "backwards": backwards, "flat": flat, "good": good})
    assert [line.split()[2] for line in said] == ["blind", "backwards", "flat"]
    assert all("no better than chance on 60 texts" in line and "noise" in line for line in said)
    assert "gives all of them the same score" in said[2]


@pytest.mark.parametrize("follows", [True, False])
def test_the_stage_has_a_sample_of_a_self_scored_round_judged(tmp_path, monkeypatch, capsys, follows):
    """The judge is a server; the model's own scores are those of the judge, or blind."""
    monkeypatch.setenv("JUDGE_KEY", "k")
    texts = [(f"What is {i} + 1?", f"{i} + 1 = {i + 1 + (i % 3)}.", f"The answer is {i}.") for i in range(40)]

    def ask(folder, checkpoint, prompts, path, label):
        rng = random.Random(3)
        said = [judge_score(text) if follows else rng.randint(1, 10) for text in prompts]
        return [read_verdict(f"So.\nScore: {score}", False) for score in said], {"tokens": {}}

    monkeypatch.setattr(itself, "ask", ask)
    with JudgeServer() as server:
        change = {"analysis": {"self_scored": 30}}
        run = new_run(tmp_path, openai_judge(server.base_url), **change)
        written(run, 2, texts)
        judge.run(run, 2)
        assert not server.calls
        counts = agreement.run(run, 2)
        asked = len(server.calls)
        again = agreement.run(run, 2)
        assert len(server.calls) == asked == 60  # nothing is paid twice
    assert again["kinds"] == counts["kinds"]
    assert [stage.name for stage in stages.of_round(run, 2)][2:5] == ["judge", "agreement", "select"]
    assert "agreement" not in [stage.name for stage in stages.of_round(run, 1)]
    rows = read_jsonl(run.round(2) / "agreement.jsonl")
    assert len(rows) == 60
    assert {row["kind"] for row in rows} == set(judge.KINDS)
    own = {(r["id"], r["kind"]): r["score"] for r in read_jsonl(run.round(2) / "scores.jsonl")}
    assert all(row["self"] == own[row["id"], row["kind"]] for row in rows)
    found = counts["kinds"]["knowledge"]
    assert (found["texts"], found["n"]) == (30, 30)
    if follows:
        assert found["spearman"] == 1.0
        assert counts["warnings"] == []
    else:
        assert counts["warnings"]
    assert agreement.STAGE.says(counts).endswith(" (Spearman, 30 texts)")
