"""Validation questions: in no test set, always the same ones; the script that compares prompts on them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

EXPORT = """
import json, sys
from ske_tasks.answers.reply import plain
from ske_tasks.six.load import read
from ske_tasks.six.validation import SETS, questions
found = {name: questions(name, 60) for name in SETS}
json.dump({name: len(rows) for name, rows in found.items()}, sys.stdout)
benchmarks = ("mmlu", "arc_e", "arc_c", "bbh", "nq")
tests = {plain(row["ske_question"]) for name in benchmarks for row in read(name).test}
assert not [row["id"] for rows in found.values() for row in rows if plain(row["ske_question"]) in tests]
assert [row["id"] for row in questions("mmlu", 7)] == [row["id"] for row in found["mmlu"][:7]]
assert len({row["subset"] for row in found["mmlu"][:57]}) == 57
assert all(row["ske_question"].startswith(row["ske_stem"]) for row in found["arc_c"])
"""


def test_they_are_in_no_test_set_and_come_in_a_fixed_order(hub):
    command = [sys.executable, "-c", EXPORT]
    done = subprocess.run(command, check=False, env=hub.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(("mmlu", "arc_e", "arc_c", "bbh", "nq", "stem"), 60)


def test_prompt_sets_are_compared_with_one_load(hub, tiny_llama, tmp_path):
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "benchmarks.prompts", "--model", str(tiny_llama), "--n", "2"]
    command += ["--model-args", "dtype=float32,device=cpu", "--limit", "8", "--of", "arc_e", "nq"]
    command += ["--store", str(tmp_path / "s.sqlite"), "--output", str(out)]
    command += ["--sets", "default", "default:explicit:single"]
    done = subprocess.run(command, check=False, env=hub.env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "4 validation questions" in done.stdout
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["way"] for line in lines[::4]] == [
        "default:direct",
        "default:cot",
        "default",
        "default:explicit:single",
    ]
    assert [line["id"] for line in lines[:4]] == [line["id"] for line in lines[12:]]
    assert [line["knowledge"] for line in lines[8:12]] == [line["knowledge"] for line in lines[12:]]
    assert {line["right"] for line in lines} <= {0, 1}
