"""Comparing runs: accuracies, paired differences, refusals, what differs between runs, a large table."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
import time

import pytest

from ske_models.errors import UserError
from ske_tasks.compare.paired import mcnemar
from ske_tasks.compare.runs import read
from ske_tasks.compare.table import compare, costs, differences, paired, short
from ske_tasks.intervals import interval

STAMP = "2026-01-01T00-00-00.000001"


def sample(task, number, right, method="direct", **doc):
    knowledge = "a fact" if method == "explicit" else None
    row = {
        "id": f"q{number}",
        "subset": "",
        "benchmark": task,
        "question": f"question {number}",
        "ske_question": f"question {number}?",
        "gold": ["A"],
        "prediction": "A" if right else None,
        "extraction": "e1",
        "ske": {
            "method": method,
            "knowledge": knowledge,
            "tokens": {"knowledge": 4 if knowledge else None, "answer": 3},
            "truncated": {"knowledge": False if knowledge else None, "answer": number == 0},
        },
    }
    return {
        "doc_id": number,
        "doc": row | doc,
        "target": "A",
        "resps": [[f"The answer is ({'A' if right else 'B'})."]],
        "filter": "none",
        "metrics": ["acc_micro", "unanswered"],
        "acc_micro": int(right),
        "unanswered": int(not right),
    }


def lm_eval_run(folder, samples, method="direct", stamp=STAMP, **ske):
    """What `lm_eval --log_samples --output_path` leaves; samples: by task."""
    folder = folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    steps = {"answer": {"seconds": 2.0, "asked": 3, "generated": 3}}
    about = {
        "config": {
            "gen_kwargs": {},
            "ske": {
                "method": method,
                "layout": "single",
                "prompts": "default",
                "prompts_hash": "p1",
                "knowledge_limit": 512,
                "steps": steps,
            }
            | ske,
        },
        "configs": {
            task: {"task": task, "doc_to_text": "{{q}}", "metadata": {"x": str(folder)}} for task in samples
        },
        "versions": dict.fromkeys(samples, 1.0),
        "n-shot": dict.fromkeys(samples, 0),
        "lm_eval_version": "0.4.13",
        "model_name": "m",
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(about))
    for task, lines in samples.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"samples_{task}_{stamp}.jsonl").write_text(text)


def table(draw, n, tasks=("ske_mmlu", "ske_nq"), chance=0.5, method="direct"):
    return {task: [sample(task, i, draw.random() < chance, method) for i in range(n)] for task in tasks}


@pytest.fixture
def two(tmp_path):
    draw = random.Random(1)
    lm_eval_run(tmp_path / "a", table(draw, 40))
    lm_eval_run(tmp_path / "b", table(draw, 40, chance=0.7, method="explicit"), "explicit")
    return [tmp_path / "a", tmp_path / "b"]


def test_accuracy_differences_and_flips_are_those_of_the_verdicts(two):
    runs = [run for path in two for run in read(path)]
    found = compare(runs)
    assert found.names == ["a (direct)", "b (explicit)"]
    rights = [[item.right for item in found.column(place)] for place in (0, 1)]
    mine = [right for right, key in zip(rights[1], found.keys, strict=True) if key[0] == "ske_nq"]
    assert str(found.pairs.accuracy("ske_nq", 1)) == str(interval(mine, [f"{i:02}" for i in range(40)]))
    assert found.pairs.average(0).mean == pytest.approx(100 * sum(rights[0]) / 80)
    gained, lost = found.pairs.flips(1, 0)
    assert gained == sum(b > a for a, b in zip(*rights, strict=True))
    assert gained - lost == sum(rights[1]) - sum(rights[0])
    assert mcnemar(gained, lost) <= 1


def test_the_command_prints_costs_and_what_differs(two):
    command = [sys.executable, "-m", "ske_tasks.compare", *map(str, two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for text in ("tokens written", "240", "560", "b (explicit) - a (direct)", "truncated", "average"):
        assert text in done.stdout
    assert "differs: method: direct | explicit" in done.stdout
    assert "differs: prompt set" not in done.stdout


def test_texts_that_were_ended_are_counted_and_a_run_from_the_store_took_no_time(tmp_path):
    rows = table(random.Random(1), 5, ("ske_nq",))
    lm_eval_run(tmp_path / "whole", rows)
    for number, row in enumerate(rows["ske_nq"]):
        row["doc"]["ske"]["looped"] = {"knowledge": None, "answer": number < 2}
    steps = {"answer": {"seconds": 0.0, "asked": 5, "generated": 0}}
    lm_eval_run(tmp_path / "ended", rows, stop_loops=True, steps=steps)
    found = compare([run for name in ("whole", "ended") for run in read(tmp_path / name)])
    assert costs(found)["ended: repeats itself"] == ["", "2"]
    assert costs(found)["seconds in the engine"] == ["2", "all stored"]
    assert "texts that only repeat themselves: whole | ended" in differences(found.runs)


@pytest.mark.parametrize(
    ("ske", "extraction", "line"),
    [
        ({"prompts": "mine", "prompts_hash": "p2"}, "e1", "prompt set: default (p1) | mine (p2)"),
        ({"layout": "multiturn"}, "e1", "layout: single | multiturn"),
        ({"knowledge_control": "shuffled"}, "e1", "knowledge from: the model | shuffled"),
        ({}, "e2", "extraction (ske_mmlu, ske_nq): e1 | e2"),
        ({}, "e1", None),
    ],
)
def test_a_change_of_prompts_or_extraction_is_said(tmp_path, two, ske, extraction, line):
    samples = table(random.Random(1), 40)
    for rows in samples.values():
        for row in rows:
            row["doc"]["extraction"] = extraction
    lm_eval_run(tmp_path / "c", samples, **ske)
    assert differences([read(two[0])[0], read(tmp_path / "c")[0]]) == ([line] if line else [])


def test_where_a_function_was_in_memory_is_no_change_of_the_task(two):
    for run, where in zip(two, ("0x7fcc314677e0", "0x7fcdf9b87740"), strict=True):
        file = next(run.rglob("results_*.json"))
        about = json.loads(file.read_text())
        about["configs"]["ske_nq"]["fewshot_config"] = {"process_docs": f"<function shots at {where}>"}
        file.write_text(json.dumps(about))
    assert not [line for line in differences([read(path)[0] for path in two]) if "fewshot" in line]


def test_another_task_text_is_said_by_name(tmp_path, two):
    file = next(two[1].rglob("results_*.json"))
    about = json.loads(file.read_text())
    about["configs"]["ske_nq"]["doc_to_text"] = "{{other}}"
    file.write_text(json.dumps(about))
    said = differences([read(path)[0] for path in two])
    assert "doc_to_text (ske_nq): {{q}} | {{other}}" in said


def fewer(samples):
    samples["ske_nq"].pop()


def without_task(samples):
    del samples["ske_nq"]


def another_question(samples):
    samples["ske_nq"][3]["doc"]["ske_question"] = "another?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fewer, r"c lacks 1 of 80 \(ske_nq/q39"),
        (without_task, "only .*a has ske_nq; evaluate both on the same tasks"),
        (another_question, r"1 have another question or gold answer \(ske_nq/q3\)"),
    ],
)
def test_runs_over_different_items_are_refused_by_the_difference(tmp_path, two, change, message):
    samples = copy.deepcopy(table(random.Random(1), 40))
    change(samples)
    lm_eval_run(tmp_path / "c", samples)
    with pytest.raises(UserError, match=message):
        compare([read(two[0])[0], read(tmp_path / "c")[0]])


def test_one_folder_may_hold_several_runs_and_the_later_of_a_task_counts(tmp_path):
    draw = random.Random(2)
    lm_eval_run(tmp_path / "out", table(draw, 5, chance=0))
    lm_eval_run(tmp_path / "out", table(draw, 5, chance=1), stamp="2026-01-02T00-00-00.000001")
    lm_eval_run(tmp_path / "out", table(draw, 5, chance=1, method="cot"), "cot", "2026-01-03T00-00-00.000001")
    runs = read(tmp_path / "out")
    assert short(runs) == ["direct", "cot"]
    assert [sum(item.right for item in run.items.values()) for run in runs] == [10, 10]


def test_items_about_one_person_or_passage_are_drawn_together(tmp_path):
    draw = random.Random(3)
    rows = [sample("w", i, draw.random() < 0.5, people=[f"p{i // 10}"], kind=f"k{i % 2}") for i in range(100)]
    passage = "x" * 500
    agieval = [
        sample(
            "a",
            i,
            True,
            benchmark="agieval",
            subset="lsat-rc",
            question=f"{passage if i < 5 else i}{i}" + "y" * 500,
        )
        for i in range(10)
    ]
    lm_eval_run(tmp_path / "out", {"w": rows, "a": agieval})
    items = read(tmp_path / "out", by="kind")[0].items
    assert len({item.cluster for (task, _), item in items.items() if task == "w"}) == 10
    assert len({item.cluster for (task, _), item in items.items() if task == "a"}) == 6
    assert {item.group for item in items.values()} == {"k0", "k1", "a"}


def opencompass_run(folder, verdicts, stated=None):
    for kind in ("results", "predictions"):
        (folder / kind / "m").mkdir(parents=True)
    details = [{"pred": ["x"], "answer": ["y"], "correct": [right]} for right in verdicts]
    score = 100 * sum(verdicts) / len(verdicts) if stated is None else stated
    (folder / "results" / "m" / "bbh-snarks.json").write_text(
        json.dumps({"score": score, "details": details})
    )
    trace = {"role": "SKE", "prompt": "", "knowledge": "k", "method": "explicit", "tokens": {"answer": 5}}
    said = {
        str(n): {
            "origin_prompt": [{"role": "HUMAN", "prompt": f"q{n}"}, trace],
            "prediction": "x",
            "gold": "y",
        }
        for n in range(len(verdicts))
    }
    (folder / "predictions" / "m" / "bbh-snarks.json").write_text(json.dumps(said))


def test_opencompass_runs_are_read_and_scores_that_do_not_add_up_refused(tmp_path):
    opencompass_run(tmp_path / "one", [True, False, True])
    opencompass_run(tmp_path / "two", [False, False, True])
    found = compare([read(tmp_path / name)[0] for name in ("one", "two")])
    assert found.pairs.groups == ["bbh"]
    assert found.pairs.flips(1, 0) == (0, 1)
    assert found.column(0)[0].tokens == 5
    opencompass_run(tmp_path / "three", [False], stated=50.0)
    with pytest.raises(UserError, match="add up to its score"):
        read(tmp_path / "three")


def test_checkpoints_by_methods_are_shown_as_a_paper_does(tmp_path):
    tasks = ("ske_a", "ske_b", "ske_c")
    for k in range(3):
        for second, method in enumerate(("direct", "explicit")):
            samples = {
                task: [sample(task, i, (i + second) % 5 < place + k, method) for i in range(10)]
                for place, task in enumerate(tasks)
            }
            lm_eval_run(tmp_path / f"M{k}", samples, method, f"2026-01-01T00-00-0{second}.000001")
    done = subprocess.run(
        [sys.executable, "-m", "ske_tasks.compare", *(str(tmp_path / f"M{k}") for k in range(3))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    rows = {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}
    assert [name for name in rows if " - " not in name] == [
        f"M{k} ({method})" for k in range(3) for method in ("direct", "explicit")
    ]
    # of 10 answers 2 x (place + k) are right
    assert rows["M2 (direct)"][:4] == ["40.0", "60.0", "80.0", "60.0"]
    assert "…" not in done.stdout
    assert rows["M2 (explicit) - M0 (explicit)"][0].startswith("40.0 [")
    pairs = {tuple(name.split(" - ")) for name in rows if " - " in name}
    assert ("M1 (explicit)", "M1 (direct)") in pairs
    assert ("M2 (explicit)", "M0 (direct)") not in pairs
    assert len(pairs) == 3 + 2 * 3


def test_five_folders_of_one_run_each_are_compared_in_all_pairs(tmp_path):
    for k in range(5):
        samples = {
            task: [sample(task, i, i % 5 < k, "direct") for i in range(10)] for task in ("ske_a", "ske_b")
        }
        lm_eval_run(tmp_path / f"way{k}", samples, "explicit" if k else "direct")
    found = compare([read(tmp_path / f"way{k}")[0] for k in range(5)])
    assert paired(found).row_count == 10


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no run of lm-eval"):
        read(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    lm_eval_run(tmp_path / "a", table(random.Random(1), 3))
    with pytest.raises(UserError, match="one run; two are needed"):
        compare(read(tmp_path / "a"))


@pytest.mark.slow
def test_36000_questions_in_three_runs_take_seconds_and_little_memory(tmp_path):
    draw = random.Random(4)
    for name in "abc":
        lm_eval_run(tmp_path / name, table(draw, 6_000, [f"task{i}" for i in range(6)]))
    command = [sys.executable, "-m", "ske_tasks.compare", *(str(tmp_path / name) for name in "abc")]
    started = time.monotonic()
    # from a small process: a child's highest memory counts that of the process that it was forked from
    small = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", small, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "36,000" in done.stdout
    assert time.monotonic() - started < 60  # 20 on a quiet machine
    assert int(done.stdout.split()[-1]) < 1_000_000  # KB


def of_another_task(number, verdict, metric="acc", **doc):
    """A sample of a task that is not ours."""
    return {
        "doc_id": number,
        "doc": {"q": f"question {number}"} | doc,
        "target": "A",
        "arguments": {"gen_args_0": {"arg_0": f"question {number}"}},
        "resps": [["The answer is (A)."]],
        "filter": "none",
        "metrics": [metric],
        metric: verdict,
    }


def test_questions_of_other_tasks_are_told_apart_by_their_number_not_by_their_id(tmp_path):
    """Many datasets have an `id` that is a passage's, or a subject's."""
    rows = [of_another_task(number, number % 2, id=f"passage {number // 2}") for number in range(8)]
    for name in "ab":
        lm_eval_run(tmp_path / name, {"other": rows})
    found = compare([run for name in "ab" for run in read(tmp_path / name)])
    assert found.pairs.accuracy("other", 0).n == 8
    assert found.pairs.accuracy("other", 0).mean == 50


def test_two_questions_of_one_name_are_refused(tmp_path):
    lm_eval_run(tmp_path / "a", {"ske_nq": [sample("ske_nq", 1, right) for right in (True, False)]})
    with pytest.raises(UserError, match="ske_nq has two questions that are called q1"):
        read(tmp_path / "a")


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("word_perplexity", [-812.5, 300]), ("word_perplexity", [-3.0, 1]), ("bleu", ["A", "B"])],
)
def test_a_task_without_a_verdict_per_question_is_left_out_and_named(tmp_path, metric, verdict):
    rows = [of_another_task(number, verdict, metric) for number in range(3)]
    for name in "ab":
        lm_eval_run(tmp_path / name, {"ske_nq": [sample("ske_nq", 1, True)], "other": rows})
        lm_eval_run(tmp_path / f"{name}_alone", {"other": rows})
    command = [sys.executable, "-m", "ske_tasks.compare", str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"left out: other: {metric} is no verdict on a question" in done.stdout
    assert "average" not in done.stdout
    with pytest.raises(UserError, match=f"nothing to compare: other .{metric} is no verdict"):
        read(tmp_path / "a_alone")


def test_runs_of_one_folder_that_differ_in_a_setting_are_several(tmp_path):
    draw = random.Random(1)
    first, second = table(draw, 5, ("ske_nq",)), table(draw, 5, ("ske_nq",))
    lm_eval_run(tmp_path / "a", first, "explicit", STAMP)
    lm_eval_run(tmp_path / "a", second, "explicit", "2026-01-01T00-00-00.000002", knowledge_file="mine.jsonl")
    runs = read(tmp_path / "a")
    assert [len(run.items) for run in runs] == [5, 5]
    assert [run.seconds for run in runs] == [(2.0, 3, 3)] * 2
    assert "knowledge from: the model | mine.jsonl" in differences(runs)


def test_of_a_task_that_ran_twice_the_later_run_counts_alone(tmp_path):
    draw = random.Random(1)
    lm_eval_run(tmp_path / "a", table(draw, 5, ("ske_mmlu",)))
    lm_eval_run(tmp_path / "a", table(draw, 5, ("ske_nq",), 0), stamp="2026-01-01T00-00-00.000002")
    lm_eval_run(tmp_path / "a", table(draw, 5, ("ske_nq",), 1), stamp="2026-01-01T00-00-00.000003")
    [run] = read(tmp_path / "a")
    assert len(run.items) == 10
    assert all(item.right for (task, _), item in run.items.items() if task == "ske_nq")
    assert run.seconds == (4.0, 6, 6)  # not of the second one, of which nothing is left


def test_a_file_that_is_cut_is_named(two):
    file = next(two[0].rglob("samples_ske_nq*"))
    file.write_text(file.read_text()[:-30])
    with pytest.raises(UserError, match=f"{file.name}, line 40: cut or damaged"):
        read(two[0])


def test_rows_by_a_field_that_no_question_has_are_refused(two):
    with pytest.raises(UserError, match="--by kid: no question of .* has this field"):
        read(two[0], by="kid")


def test_relative_and_absolute_folders_are_named_alike(two, monkeypatch):
    monkeypatch.chdir(two[0].parent)
    runs = [*read(two[0].relative_to(two[0].parent)), *read(two[1])]
    assert short(runs) == ["a (direct)", "b (explicit)"]
