"""The SFT set of a round: what the evaluation renders, counts per kind, and scorings of every score."""

import json
import random

import pytest
from small_runs import command, refused, small, write

from ske_models import files, prompts
from ske_models.method import Question, answer_messages, knowledge_messages
from ske_tasks.world import default_world, oracle, questions
from training import recipe
from training.run_folder import RunFolder
from training.stages import mix
from training.stages.judge import Judged, prompt
from training.tinyworld import chats

PROMPTS = prompts.load("world")
WORLD = default_world()
MIX = {"knowledge": 6, "reasoning": 5, "scoring_knowledge": 12, "scoring_reasoning": 4, "general": 20}


def make(folder, layout="single", **settings):
    """A run with a first round that was written, judged and selected: two texts for each of ten questions."""
    world = recipe.load("world")
    first = world.rounds[0].model_copy(update={"mix": recipe.Mix(**{**MIX, **settings})})
    second = world.rounds[1].model_copy(update={"mix": recipe.Mix(**{**MIX, **settings})})
    run = RunFolder(folder, world.model_copy(update={"rounds": [first, second], "layout": layout}))
    written, scores, selected = [], [], []
    for question in questions.sample(WORLD, "rounds", {"two_hop": 10}, seed=3):
        for sample, facts in enumerate([question.facts, question.facts[:1]]):
            knowledge, reasoning = " ".join(f.text() for f in facts), oracle.read(question, facts)[0]
            texts = {"knowledge": knowledge, "reasoning": reasoning}
            whole = {"knowledge": False, "reasoning": False}
            row = {"id": question.id, "sample": sample, "question": question.question, "ending": "", **texts}
            row["truncated"] = whole
            written.append(row)
            judged = {
                "knowledge": oracle.judge_knowledge(question, knowledge, WORLD),
                "reasoning": oracle.judge_reasoning(question, knowledge, reasoning, WORLD),
            }
            for kind, judgement in judged.items():
                score = {"id": question.id, "sample": sample, "kind": kind, "verdict": judgement.text}
                scores.append({**score, "score": judgement.score})
            if sample == 0:
                selected.append(row)
    scores[0]["score"] = None  # the first question's knowledge, which is unscored then
    for name, rows in {"written": written, "scores": scores, "selected": selected}.items():
        files.write_jsonl(run.round(1) / f"{name}.jsonl", rows)
    files.write_jsonl(run.round(2) / "selected.jsonl", selected)
    return run


@pytest.mark.parametrize("layout", ["single", "multiturn"])
def test_turns_are_those_of_the_evaluation(tmp_path, layout):
    run = make(tmp_path, layout)
    mix.run(run, 1)
    selected = {f"{row['id']}.0": row for row in files.read_jsonl(run.round(1) / "selected.jsonl")}
    for row in files.read_jsonl(run.round(1) / "sft.jsonl"):
        if row["kind"] not in ("knowledge", "reasoning"):
            continue
        text = selected[row["id"]]
        # as the tasks of the harness put a question: its own turn, the question, and no ending
        question = Question((), text["question"], text["question"])
        expected = (
            knowledge_messages(question, PROMPTS)
            if row["kind"] == "knowledge"
            else answer_messages(question, PROMPTS, "explicit", layout, text["knowledge"])
        )
        assert row["prompt"] == expected
        assert row["completion"] == [{"role": "assistant", "content": text[row["kind"]]}]


def test_counts_kinds_and_scores(tmp_path):
    run = make(tmp_path)
    counts = mix.run(run, 1)
    rows = files.read_jsonl(run.round(1) / "sft.jsonl")
    assert {kind: row["examples"] for kind, row in counts["kinds"].items()} == MIX
    assert mix.table(counts)[-1] == ("total", len(rows)) == ("total", sum(MIX.values()))
    assert counts["kinds"]["scoring_knowledge"]["there"] == 19  # of 20, one is unscored
    assert counts["scores"]["knowledge"]["10"] == counts["scores"]["knowledge"]["5"] == 6
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "knowledge": 6,
        "reasoning": 5,
        "scoring": 16,
        "general": 20,
    }
    assert kinds != sorted(kinds)


def test_scoring_is_the_judges_prompt_and_its_verdict(tmp_path):
    run = make(tmp_path, scoring_knowledge=None, scoring_reasoning=None, general=0)
    mix.run(run, 1)
    texts = {f"{row['id']}.{row['sample']}": row for row in files.read_jsonl(run.round(1) / "written.jsonl")}
    verdicts = {
        (f"{row['id']}.{row['sample']}", row["verdict"])
        for row in files.read_jsonl(run.round(1) / "scores.jsonl")
        if row["score"] is not None
    }
    rows = [row for row in files.read_jsonl(run.round(1) / "sft.jsonl") if row["kind"] == "scoring"]
    assert {(row["id"], row["completion"][0]["content"]) for row in rows} == verdicts
    for row in rows:
        text = texts[row["id"]]
        knowledge = prompt(PROMPTS, Judged("", "knowledge", text["question"], text["knowledge"]))
        reasoning = prompt(
            PROMPTS, Judged("", "reasoning", text["question"], text["knowledge"], text["reasoning"])
        )
        assert row["prompt"][0]["content"] in (knowledge, reasoning)


def test_later_rounds_draw_from_the_same_scorings_and_from_new_general_data(tmp_path):
    run = make(tmp_path)
    drawn = []
    for n in (1, 2):
        mix.run(run, n)
        rows = files.read_jsonl(run.round(n) / "sft.jsonl")
        drawn.append({json.dumps(row["prompt"]) for row in rows if row["kind"] == "scoring"})
        drawn.append({json.dumps(row["completion"]) for row in rows if row["id"].startswith("corpus-")})
    assert drawn[0] == drawn[2]
    assert len(drawn[1]) == 20 * chats.SHARES["corpus"] // 100
    assert not drawn[1] & drawn[3]


def test_the_same_bytes_again(tmp_path):
    run = make(tmp_path)
    mix.run(run, 1)
    before = (run.round(1) / "sft.jsonl").read_bytes()
    mix.run(run, 1)
    assert (run.round(1) / "sft.jsonl").read_bytes() == before


def test_equal_texts_count_once(tmp_path):
    run = make(tmp_path, scoring_knowledge=0, scoring_reasoning=0, general=0, knowledge=None, reasoning=None)
    selected = files.read_jsonl(run.round(1) / "selected.jsonl")
    files.write_jsonl(run.round(1) / "selected.jsonl", [*selected, {**selected[0], "sample": 7}])
    counts = mix.run(run, 1)
    assert counts["kinds"]["knowledge"] == {"examples": 10, "there": 10, "duplicates": 1}
    assert counts["examples"] == 20


def test_kept_as_cot_says_no_fact_twice(tmp_path):
    run = make(tmp_path, kept_as="cot", scoring_knowledge=0, scoring_reasoning=0, general=0)
    assert mix.run(run, 1)["examples"] == MIX["reasoning"]
    for row in files.read_jsonl(run.round(1) / "sft.jsonl"):
        assert row["prompt"][0]["content"].endswith("Think step by step.")
        sentences = row["completion"][0]["content"].removesuffix(".").split(". ")
        assert len(sentences) == len(set(sentences)) == 3  # two facts and the answer
        assert sentences[-1].startswith("The answer is")


@pytest.mark.parametrize(
    ("knowledge", "reasoning", "text"),
    [
        ("A is in B.", "A is in B. So it is B.", "A is in B. So it is B."),
        (
            "A is in B.\nDr. C is D.",
            "Dr. E says:\nA is in B.\nSo B.",
            "A is in B.\nDr. C is D.\nDr. E says:\nSo B.",
        ),
        ("A is B.", "The answer is B.", "A is B. The answer is B."),
        ("The answer is B.", "The answer is B.", "The answer is B."),
        ("A is in B.\nSo it is B.", "A is in B. So it is B.", "A is in B.\nSo it is B."),
    ],
)
def test_as_cot(knowledge, reasoning, text):
    assert mix.as_cot(knowledge, reasoning) == text


def test_stratified_shares_out_what_the_rare_scores_lack():
    rows = [{"score": score} for score, n in {1: 2, 5: 50, 7: 9, 10: 200}.items() for _ in range(n)]
    drawn = [row["score"] for row in mix.stratified(rows, 60, random.Random(1))]
    assert {score: drawn.count(score) for score in (1, 5, 7, 10)} == {1: 2, 5: 25, 7: 9, 10: 24}
    assert len(mix.stratified(rows, 1_000, random.Random(1))) == 261


def test_nothing_selected(tmp_path):
    run = make(tmp_path)
    files.write_jsonl(run.round(1) / "selected.jsonl", [])
    with pytest.raises(
        SystemExit, match=r"selected.jsonl: empty.*histogram of the scores is in .*select.json"
    ):
        mix.run(run, 1)
    assert not (run.round(1) / "sft.jsonl").exists()


def test_without_self_written_data_nothing_has_to_be_selected(tmp_path):
    run = make(tmp_path, knowledge=0, reasoning=0)
    (run.round(1) / "selected.jsonl").unlink()
    assert mix.run(run, 1)["examples"] == 36


def test_no_examples_at_all(tmp_path):
    run = make(tmp_path, **dict.fromkeys(MIX, 0))
    with pytest.raises(SystemExit, match="no examples"):
        mix.run(run, 1)


def test_general_data_that_nobody_names_is_missed_at_once(tmp_path):
    content = small(rounds=[{"judge": "judge", "questions": 4, "mix": {}}])
    content["general"] = []
    file = write(tmp_path / "r.yaml", content)
    said = refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert "round 1 mixes in general data, and the recipe names no source of it" in said
    assert not list((tmp_path / "run").glob("round*")), "something was done first"
