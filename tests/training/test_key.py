"""The answer key as a judge: keys in the forms that data sets have them, and what they make of texts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from small_runs import small
from test_judge import new_run, written

from ske_models import embedded
from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from ske_tasks.world import default_world, oracle, questions
from training.data import keys
from training.data.windows import delete_parts
from training.judges import key as judge_key
from training.judges.verdict import read_score
from training.recipe import DatasetQuestions, Recipe
from training.run_folder import RunFolder
from training.stages import judge, mix, select
from training.stages import questions as questions_stage

FOUR = ["oxygen", "carbon dioxide", "helium", "neon"]
GAS = "Which gas do plants take in?"


@pytest.mark.parametrize(
    ("choices", "answer"),
    [
        (FOUR, 1),
        (FOUR, "B"),
        (FOUR, "carbon dioxide"),
        ({"text": FOUR, "label": ["A", "B", "C", "D"]}, "B"),  # ARC, OpenBookQA
        ({"text": FOUR, "label": ["1", "2", "3", "4"]}, "2"),  # ARC, some rows
        ({"text": FOUR, "label": [1, 2, 3, 4]}, 2),  # a label is a label, whatever its type
        ({"text": FOUR, "label": ["A", "B", "C", "D"]}, 1),
    ],
)
def test_options_in_every_form(choices, answer):
    row = keys.keyed(GAS, choices, answer)
    assert row is not None
    shown = "\n".join(f"({letter}) {text}" for letter, text in zip("ABCD", FOUR, strict=True))
    assert row["question"] == f"{GAS}\n\n{shown}"
    assert row["stem"] == GAS
    assert '"The answer is (X)."' in row["ending"]
    assert row["key"] == {"kind": "choice", "letters": list("ABCD"), "options": FOUR, "gold": ["B"]}
    assert keys.right(row["key"], "So it is the second. The answer is (B).") == ("B", True)
    assert keys.right(row["key"], "The answer is (A).") == ("A", False)
    assert keys.right(row["key"], "I cannot say.") == (None, False)
    assert keys.shown(row["key"], "B") == "(B) carbon dioxide"


@pytest.mark.parametrize(
    ("question", "answer", "kind", "gold"),
    [
        ("How many?", "48/2 = <<48/2=24>>24\n#### 1,072", "number", ["1072"]),  # GSM8K
        (
            [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Many.\n#### 72"}],
            [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Many.\n#### 72"}],
            "number",
            ["72"],
        ),
        ("How many?", 3, "number", ["3"]),
        ("Who?", "Marie Curie", "open", ["Marie Curie"]),
        ("Who?", ["Marie Curie", "Curie"], "open", ["Marie Curie", "Curie"]),
    ],
)
def test_answers_without_options(question, answer, kind, gold):
    row = keys.keyed(question, None, answer)
    assert row is not None
    assert row["key"] == {"kind": kind, "letters": [], "options": [], "gold": gold}
    assert row["question"] == row["stem"] == ("Who?" if kind == "open" else "How many?")
    assert keys.right(row["key"], f"The answer is {gold[0]}.")[1]


@pytest.mark.parametrize(
    ("question", "choices", "answer"),
    [
        (GAS, FOUR, 4),
        (GAS, FOUR, "E"),
        (GAS, FOUR, None),
        (GAS, FOUR, True),
        (GAS, ["one", "one"], "one"),
        (GAS, ["one"], 0),
        (GAS, "one or two", 0),
        (GAS, None, ""),
        (GAS, None, "#### "),
        (GAS, None, None),
        (None, FOUR, 1),
        (" ", FOUR, 1),
        ([], FOUR, 1),
        ([{"role": "assistant", "content": GAS}], FOUR, 1),
    ],
)
def test_a_key_that_cannot_be_read_is_none(question, choices, answer):
    assert keys.keyed(question, choices, answer) is None


def of_columns(names: list[str], answers: list[Any], options: list[list[str]]) -> list[str | None]:
    """The text of the right option of each row, where every option has a column."""
    source = DatasetQuestions(source="dataset", path="x.jsonl", choices=names, answer="answer")
    columns: dict[str, list[Any]] = {"question": [f"What is {i}?" for i in range(len(answers))]}
    columns |= {"answer": answers}
    columns |= {name: [row[k] for row in options] for k, name in enumerate(names)}
    found = []
    for row in keys.candidates(source, columns):
        shown = dict(zip(row["key"]["letters"], row["key"]["options"], strict=True)) if row["key"] else {}
        found.append(shown[row["key"]["gold"][0]] if row["key"] else None)
    return found


LETTERS, SCIQ = list("ABCD"), ["distractor1", "distractor2", "distractor3"]
CITIES, NUMBERS = ["Paris", "Rome", "Bonn", "Oslo"], ["2", "1", "3", "4"]


@pytest.mark.parametrize(
    ("names", "answers", "options", "right"),
    [
        (LETTERS, ["A", "D", " B"], [CITIES] * 3, ["Paris", "Oslo", "Rome"]),  # C-Eval
        (LETTERS, ["A", "E", "", None, "C"], [CITIES] * 5, ["Paris", None, None, None, "Bonn"]),
        (LETTERS, ["Rome", "Oslo"], [CITIES] * 2, ["Rome", "Oslo"]),
        (LETTERS, ["B", "C", "D"], [["B", "C", "D", "A"]] * 3, ["B", "C", "D"]),  # texts, as they may be
        (LETTERS, ["B", "C", "D"], [["B", "x", "y", "z"], CITIES, CITIES], ["x", "Bonn", "Oslo"]),
        (["option1", "option2"], ["1", "2"], [["cat", "dog"]] * 2, ["cat", "dog"]),  # WinoGrande
        (["option1", "option2"], ["option2"], [["cat", "dog"]], ["dog"]),
        (["opa", "opb"], [1, 0], [["cat", "dog"]] * 2, ["dog", "cat"]),  # MedMCQA
        (["sol1", "sol2"], [1, 0], [["cat", "dog"]] * 2, ["dog", "cat"]),  # PIQA
        (["answerA", "answerB"], ["1", "2"], [["cat", "dog"]] * 2, ["cat", "dog"]),  # Social IQa
        (["w", "x", "y", "z"], ["a", "d"], [CITIES] * 2, ["Paris", "Oslo"]),
        (["a1", "a2", "a3", "a4"], ["1", "4"], [NUMBERS] * 2, ["1", "4"]),  # texts, where they are all that
        (SCIQ, ["Oslo", "A", "D", "2"], [CITIES[:3]] * 4, ["Oslo", "A", "D", "2"]),
        (SCIQ, ["Oslo", "Bern", "Rome", ""], [CITIES[:3]] * 4, ["Oslo", "Bern", "Rome", None]),
    ],
)
def test_a_column_for_every_option(names, answers, options, right):
    """The right option is found before the options are mixed, and is in another place then."""
    assert of_columns(names, answers, options) == right


def test_the_score_of_a_knowledge_is_the_share_of_right_answers():
    key = keys.keyed(GAS, FOUR, 1)
    assert key is not None
    samples = [("B", True), ("A", False), ("B", True), (None, False)]
    verdict = judge_key.of_knowledge(key["key"], samples)
    assert verdict.text == (
        "The correct answer is (B) carbon dioxide. Of 4 answers that use this knowledge, 2 are right "
        "(wrong: 1 (A) oxygen, 1 without an answer).\nScore: 6"
    )
    assert verdict.score == read_score(verdict.text) == 6
    assert [judge_key.score_of(good, 4) for good in range(5)] == [1, 3, 6, 8, 10]
    assert [judge_key.score_of(good, 9) for good in range(10)] == list(range(1, 11))
    for text, score, said in [
        ("The answer is (B).", 10, "ends in (B) carbon dioxide, which is the same."),
        ("The answer is (C).", 1, "ends in (C) helium, which is another one."),
        ("Score: 10", 1, "states no answer"),
    ]:
        verdict = judge_key.of_reasoning(key["key"], text)
        assert verdict.score == read_score(verdict.text) == score
        assert said in verdict.text


def keyed_recipe(folder, **changes):
    """Questions with a key in two forms, and passages."""
    sciq = [
        {"question": f"What is {i}?", "correct_answer": f"r{i}", "distractor1": "x", "distractor2": "y"}
        for i in range(6)
    ]
    write_jsonl(folder / "sciq.jsonl", [*sciq, {**sciq[0], "question": "What then?", "correct_answer": "x"}])
    chats = [
        [{"role": "user", "content": f"{i} + 1?"}, {"role": "assistant", "content": f"#### {i + 1}"}]
        for i in range(6)
    ]
    write_jsonl(folder / "sums.jsonl", [{"messages": chat} for chat in chats])
    write_jsonl(folder / "corpus.jsonl", [{"text": "A passage."}])
    sources = [
        {
            "source": "dataset",
            "path": str(folder / "sciq.jsonl"),
            "choices": ["distractor1", "distractor2"],
            "answer": "correct_answer",
        },
        {"source": "dataset", "path": str(folder / "sums.jsonl"), "column": "messages", "answer": "messages"},
        {"source": "passages", "path": str(folder / "corpus.jsonl")},
    ]
    content = small(judge={"kind": "key", "samples": 2}, analysis={"items": 0}, **changes)
    content |= {"questions": {"sources": sources}, "prompts": "default"}
    return content


def test_a_round_that_a_key_judges_takes_questions_with_a_key(tmp_path):
    content = keyed_recipe(tmp_path)
    content["rounds"][0]["questions"] = 10
    run = RunFolder(tmp_path / "run", Recipe.model_validate(content))
    counts = questions_stage.run(run, 1)
    assert [part["taken"] for part in counts["sources"].values()] == [5, 5]
    assert counts["dropped"].get("no key", 0) <= 1  # "x" is there twice: which one is right?
    rows = read_jsonl(run.round(1) / "questions.jsonl")
    assert all({"question", "stem", "ending", "key", "id", "source", "round"} == row.keys() for row in rows)
    places = set()
    for row in rows:
        if row["key"]["kind"] == "choice":
            options = dict(zip(row["key"]["letters"], row["key"]["options"], strict=True))
            [gold] = row["key"]["gold"]
            assert options[gold] == f"r{row['stem'].removeprefix('What is ').removesuffix('?')}"
            places.add(gold)
        else:
            assert row["key"]["gold"] == [str(int(row["stem"].split()[0]) + 1)]
    assert len(places) > 1  # the right one is not always last
    assert questions_stage._asks(run, 2)  # which the model judges, so passages are welcome
    assert not questions_stage._asks(run, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions": {"sources": [{"source": "world"}]}}, "needs a question source with `answer`"),
        ({"analysis": {"items": 4}}, "analysis.items: a key scores no text of the evaluation"),
        ({"judge": {"kind": "key", "samples": 0}}, "greater than 0"),
        ({"judge": {"kind": "key", "temperature": 0}}, "greater than 0"),
        ({"questions": {"sources": [{"source": "dataset", "path": "a", "choices": "c"}]}}, "needs `answer`"),
    ],
)
def test_its_settings_are_checked(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(keyed_recipe(tmp_path) | changes)


def test_the_stage_scores_by_what_the_model_answers_with_a_knowledge(tmp_path):
    """The embedded model reads right and wrong knowledge; the key knows what the questions' answers are."""
    generation = {"args": {"dtype": "float32", "device": "cpu", "batch_size": 32}, "window": 7}
    generation["max_reasoning_tokens"] = 40
    source = {"source": "dataset", "path": "x.jsonl", "answer": "gold"}
    change: dict[str, Any] = {"prompts": "world", "generation": generation}
    change["questions"] = {"sources": [source]}
    change["rounds"] = [{"judge": "judge", "questions": 8, "mix": {"general": 0}}]
    run = new_run(tmp_path, {"kind": "key", "samples": 3}, **change)
    (run.path / "M0").symlink_to(embedded.path())
    rows = questions.sample(default_world(), "rounds", {"two_hop": 8}, seed=1)
    other = [rows[(i + 3) % len(rows)] for i in range(len(rows))]
    texts = []
    for row, wrong in zip(rows, other, strict=True):
        texts += [(row.question, row.knowledge, oracle.read(row, row.facts)[0])]
        texts += [(row.question, wrong.knowledge, f"The answer is {wrong.gold}.")]
    written(run, 1, texts, samples=2)
    keyed = [
        {"id": f"q{i}", "question": row.question, "ending": ""}
        | {"key": {"kind": "open", "letters": [], "options": [], "gold": [row.gold]}}
        for i, row in enumerate(rows)
    ]
    keyed.append({"id": "q8", "question": "What is missing?", "ending": ""})  # no key
    write_jsonl(run.round(1) / "questions.jsonl", keyed)
    extra = read_jsonl(run.round(1) / "written.jsonl")
    extra.append({**extra[0], "id": "q8", "sample": 0, "question": "What is missing?"})
    write_jsonl(run.round(1) / "written.jsonl", extra)
    counts = judge.run(run, 1)
    scores = read_jsonl(run.round(1) / "scores.jsonl")
    delete_parts(run.round(1))
    left = sorted(path.name for path in run.round(1).iterdir())
    assert left == ["questions.jsonl", "scores.jsonl", "written.jsonl"]
    assert counts["unscored"] == {"no key": 2}
    assert counts["tokens"]["output"] > 3 * 16
    found = {(row["id"], row["sample"], row["kind"]): row for row in scores}
    for i, (row, false) in enumerate(zip(rows, other, strict=True)):
        assert found[f"q{i}", 0, "reasoning"]["score"] == 10
        assert found[f"q{i}", 1, "reasoning"]["score"] == (10 if false.gold == row.gold else 1)
        assert f"The correct answer is {row.gold}. " in found[f"q{i}", 0, "knowledge"]["verdict"]
    knowledge = [[found[f"q{i}", k, "knowledge"]["score"] for i in range(len(rows))] for k in (0, 1)]
    assert {score for series in knowledge for score in series} <= {1, 4, 7, 10}
    right, wrong = (sum(series) / len(rows) for series in knowledge)
    assert right > 7
    assert wrong < 3
    first = (run.round(1) / "scores.jsonl").read_bytes()
    judge.run(run, 1)
    assert (run.round(1) / "scores.jsonl").read_bytes() == first
    assert select.run(run, 1)["selected"] >= 4
    made = mix.run(run, 1)["kinds"]
    assert made["scoring_reasoning"]["examples"] == 16
    learned = [json.dumps(row["completion"]) for row in read_jsonl(run.round(1) / "sft.jsonl")]
    assert sum("The correct answer is" in text for text in learned) >= 16


def test_a_dataset_without_the_columns_is_reported(tmp_path):
    content = keyed_recipe(tmp_path)
    content["questions"]["sources"][0]["answer"] = "nothing"
    run = RunFolder(tmp_path / "run", Recipe.model_validate(content))
    with pytest.raises(UserError, match="no column 'nothing'.*set `column`"):
        questions_stage.run(run, 1)
