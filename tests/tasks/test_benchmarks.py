"""The six benchmarks with the real data: counts, prompts, few-shot examples, gold answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset
from phrasings import phrasings

from ske_models.errors import UserError
from ske_models.method import LAYOUTS, Question, answer_messages, knowledge_messages
from ske_models.prompts import load as load_prompts
from ske_tasks.answers.extract import extract, is_right
from ske_tasks.answers.reply import plain
from ske_tasks.six.agieval import split_letters
from ske_tasks.six.load import load, quick_sample
from ske_tasks.six.rows import KINDS, options_of, prompt

COUNTS = {"mmlu": 14042, "agieval": 8267, "arc_e": 2376, "arc_c": 1172, "bbh": 6511, "nq": 3610}
SUBSETS = {"mmlu": 57, "agieval": 21, "arc_e": 1, "arc_c": 1, "bbh": 27, "nq": 1}
AGIEVAL = {
    "aqua-rat": 254,
    "gaokao-biology": 210,
    "gaokao-chemistry": 207,
    "gaokao-chinese": 246,
    "gaokao-english": 306,
    "gaokao-geography": 199,
    "gaokao-history": 235,
    "gaokao-mathcloze": 118,
    "gaokao-mathqa": 351,
    "gaokao-physics": 200,
    "jec-qa-ca": 999,
    "jec-qa-kd": 999,
    "logiqa-en": 651,
    "logiqa-zh": 651,
    "lsat-ar": 230,
    "lsat-lr": 510,
    "lsat-rc": 269,
    "math": 1000,
    "sat-en": 206,
    "sat-en-without-passage": 206,
    "sat-math": 220,
}

EXPORT = """
import json, sys
from lm_eval.tasks import TaskManager
from ske_tasks.six.load import load, prepared, quick_sample, read, shots
from ske_tasks.six.sources import READERS
for where in ("as they are made", "from disk"):
    for name in READERS:
        whole, sample = load(name)["test"], load(name, quick=True)["test"]
        assert whole.to_list() == read(name).test, (name, where)
        assert sample.to_list() == quick_sample(read(name).test), (name, where)
        assert shots(sample) == read(name).shots, (name, where)
    assert read.cache_info().misses == len(READERS)
    prepared.cache_clear()
json.dump({name: vars(read(name)) for name in READERS}, open(sys.argv[1], "w"))
tasks = TaskManager().load(["ske_quick_mmlu", "ske_quick_bbh", "ske_quick_nq"])["tasks"]
json.dump({
    name: [(doc["subset"], task.fewshot_context(doc, num_fewshot=3)) for doc in list(task.test_docs())[:30]]
    for name, task in tasks.items()
}, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="session")
def exported(hub, tmp_path_factory) -> tuple[dict, dict]:
    """What the readers find on the hub, and few-shot prompts as lm-eval builds them.

    In a process of its own, as HF_ENDPOINT is read at import.
    """
    files = [tmp_path_factory.mktemp("rows") / name for name in ("rows.json", "few_shot.json")]
    command = [sys.executable, "-c", EXPORT, *map(str, files)]
    subprocess.run(command, check=True, env=hub.env, capture_output=True)
    found, contexts = (json.loads(file.read_text()) for file in files)
    return found, contexts


@pytest.fixture(scope="session")
def read(exported) -> dict[str, dict]:
    return exported[0]


@pytest.fixture(scope="session")
def rows(read) -> list[dict]:
    return [row for found in read.values() for row in found["test"]]


def test_counts(read):
    assert {name: len(found["test"]) for name, found in read.items()} == COUNTS
    assert {name: len({row["subset"] for row in found["test"]}) for name, found in read.items()} == SUBSETS
    assert Counter(row["subset"] for row in read["agieval"]["test"]) == AGIEVAL
    bbh = Counter(Counter(row["subset"] for row in read["bbh"]["test"]).values())
    assert bbh == {250: 24, 187: 1, 146: 1, 178: 1}


def test_nothing_is_left_out_or_repaired_silently(read):
    left_out = [line for found in read.values() for line in found["unscored"]]
    assert left_out == ["agieval jec-qa-kd row 211: no gold answer in the data"]
    assert len(read["bbh"]["repaired"]) == 3
    assert len(read["mmlu"]["repaired"]) == 5
    assert [line for name in ("arc_e", "arc_c", "nq") for line in read[name]["repaired"]] == []


def test_rows_have_one_schema(rows):
    assert {row["kind"] for row in rows} == set(KINDS)
    assert len({(row["benchmark"], row["id"]) for row in rows}) == len(rows)
    for row in rows:
        assert row["gold"], row["id"]
        assert row["question"].strip() or row["benchmark"] == "mmlu", row["id"]
        if row["kind"] in ("choice", "multi_choice"):
            assert len(row["letters"]) == len(row["options"]) == len(set(row["letters"]))
            assert set(row["gold"]) <= set(row["letters"])
            assert len(row["gold"]) == 1 or row["kind"] == "multi_choice"
            for letter, option in zip(row["letters"], row["options"], strict=True):
                assert f"({letter})" in row["ske_question"]
                assert option in row["ske_question"]
        if row["kind"] == "label":
            assert row["gold"][0] in row["options"]


def test_arc_keeps_its_own_letters(read):
    letters = Counter(tuple(row["letters"]) for row in read["arc_e"]["test"] + read["arc_c"]["test"])
    assert letters[("1", "2", "3", "4")] == 97 + 21
    assert letters[("A", "B", "C", "D", "E")] == 4 + 3
    assert letters[("A", "B", "C")] == 7 + 3
    assert letters[("1", "2", "3")] == 1


def test_every_item_renders_for_every_method(rows):
    prompts = load_prompts("default")
    for row in rows:
        question = Question((), prompt(row), row["ske_question"], row["ske_ending"])
        rendered = [answer_messages(question, prompts, "direct", "single", None)]
        rendered += [answer_messages(question, prompts, "cot", "single", None)]
        rendered += [knowledge_messages(question, prompts)]
        rendered += [answer_messages(question, prompts, "explicit", layout, "A fact.") for layout in LAYOUTS]
        for messages in rendered:
            assert row["ske_question"] in messages[0]["content"]
        assert all(
            row["ske_ending"] in messages[-1]["content"] for messages in rendered if messages != rendered[2]
        )
        assert row["ske_ending"] not in rendered[2][-1]["content"]


def test_no_prompt_marks_its_gold_answer(rows):
    marks = r"(?:answer(?: is|:)|solution:|答案(?:是|为|：|:)|正确答案)\s*[(（\"“$]?"
    for row in rows:
        text = prompt(row)
        for gold in row["gold"]:
            shown = re.search(rf"(?i){marks}{re.escape(gold)}(?!\w)", text)
            assert not shown, (row["id"], shown)


def test_no_shot_is_a_test_item(read):
    for name, found in read.items():
        asked = {plain(row["ske_question"]) for row in found["test"]}
        assert not [shot["id"] for shot in found["shots"] if plain(shot["ske_question"]) in asked], name


def test_shots(read):
    assert {name: len(found["shots"]) for name, found in read.items()} == {
        "mmlu": 285,
        "agieval": 0,
        "arc_e": 32,
        "arc_c": 32,
        "bbh": 81,
        "nq": 64,
    }
    assert set(Counter(shot["subset"] for shot in read["mmlu"]["shots"]).values()) == {5}
    assert set(Counter(shot["subset"] for shot in read["bbh"]["shots"]).values()) == {3}
    for found in read.values():
        for shot in found["shots"]:
            answer = extract(shot["target"], shot["kind"], options_of(shot))
            assert is_right(answer, shot), (shot["id"], shot["target"], answer)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", COUNTS)
def test_every_gold_answer_is_accepted(read, benchmark):
    """In five to eight phrasings each: all 35,978 items, none fails."""
    refused = []
    for row in read[benchmark]["test"]:
        written = phrasings(row)
        assert len(set(written)) >= 5 or row["kind"] == "open", row["id"]
        for text in written:
            answer = extract(text, row["kind"], options_of(row))
            refused += [(row["id"], text, answer)] if not is_right(answer, row) else []
    assert refused == []


def test_quick_is_fixed_and_stratified(read):
    for name, found in read.items():
        sample = quick_sample(found["test"])
        assert sample == quick_sample(found["test"])
        assert len({row["id"] for row in sample}) == len(sample) == 100
        sizes = Counter(row["subset"] for row in sample)
        assert len(sizes) == SUBSETS[name]
        assert max(sizes.values()) - min(sizes.values()) <= 1


def test_few_shot_prompts_are_of_the_questions_subset(exported):
    read, contexts = exported
    for name, prompts in contexts.items():
        shots = read[name.removeprefix("ske_quick_")]["shots"]
        for subset, text in prompts:
            own = [shot for shot in shots if shot["subset"] == subset][:3]
            places = [text.index(f"{prompt(shot)}\n\n{shot['target']}\n\n") for shot in own]
            assert places == sorted(places)
            assert len(places) == 3


def test_letters_of_agieval_options():
    assert split_letters(["(A)x", "  B. y", "C．z"]) == (["A", "B", "C"], ["x", "y", "z"])
    assert split_letters(["(A)A b", "(C)c", "(B)d"]) == (["A", "C", "B"], ["A b", "c", "d"])
    assert split_letters(["plain", "B", "(C)"]) == (["", "B", "C"], ["plain", "", ""])


def test_unknown_benchmark_is_a_user_error():
    with pytest.raises(UserError, match="no benchmark 'mmmlu'; there are mmlu"):
        load("mmmlu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot load allenai/ai2_arc (ARC-Challenge), split test"),
        ({"HF_HUB_OFFLINE": "1"}, "cannot load allenai/ai2_arc (ARC-Challenge), split test"),
    ],
    ids=["no network", "offline and not in the cache"],
)
def test_missing_data_is_one_line(tmp_path: Path, change, message):
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "1"} | change
    code = "from ske_tasks.six.load import load; load('arc_c')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert "HF_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr


def test_changed_columns_are_one_line(tmp_path: Path, shared_dir):
    root = tmp_path / "hub"
    shutil.copytree(shared_dir / "hub" / "datasets" / "allenai", root / "datasets" / "allenai")
    for file in root.rglob("ARC-Challenge/*.parquet"):
        file.chmod(0o644)
        file.parent.chmod(0o755)
        Dataset.from_parquet(str(file)).rename_column("answerKey", "label").to_parquet(str(file))
    serve = [sys.executable, str(shared_dir / "hub" / "serve.py"), "--root", str(root), "--run"]
    command = [*serve, sys.executable, "-c", "from ske_tasks.six.load import load; load('arc_c')"]
    env = {key: value for key, value in os.environ.items() if key != "HF_HOME"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no column answerKey (found id, question, choices, label)" in done.stderr
    assert "Traceback" not in done.stderr
