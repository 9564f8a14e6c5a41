"""The stock commands from the shell: killed and continued, in several processes, refused."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from ske_models.lm_eval.model import SKEExplicitLM

TASKS = Path(__file__).parents[1] / "tasks"
BIN = Path(sys.executable).parent
LM_EVAL = [str(BIN / "lm_eval")]


def arguments(model: Path, store: Path, output: Path, **model_args: object) -> list[str]:
    args = {"pretrained": model, "store": store, "max_knowledge_toks": 24} | model_args
    return [
        *("--model", "ske_explicit", "--model_args", ",".join(f"{k}={v}" for k, v in args.items())),
        *("--tasks", "toy_write", "--include_path", str(TASKS), "--apply_chat_template", "--device", "cpu"),
        *("--output_path", str(output), "--log_samples"),
    ]


def environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1"} | extra


def run(command: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(**extra))


def result(output: Path) -> tuple[dict, list[dict]]:
    """(the results file, the samples by doc_id) of the one run that wrote to `output`."""
    [results] = output.rglob("results_*.json")
    [samples] = output.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return json.loads(results.read_text()), sorted(lines, key=lambda line: line["doc_id"])


def sidecar(results: dict) -> list[dict]:
    file = Path(results["config"]["ske"]["knowledge_of_other_tasks"]) / "toy_write.explicit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def told(lines: list[dict]) -> list[dict]:
    """The sidecar's lines without where a text came from, which a restart changes."""
    return [{k: v for k, v in line.items() if k != "knowledge_source"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run(LM_EVAL + arguments(tiny_llama, folder / "store.sqlite", folder / "out"))
    assert done.returncode == 0, done.stderr
    return result(folder / "out")


def finished(store: Path) -> int:
    """Steps in the store, while another process writes to it."""
    if not store.exists():
        return 0
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        try:
            return db.execute("SELECT COUNT(*) FROM steps").fetchone()[0]
        except sqlite3.OperationalError:  # the table is being made
            return 0


@pytest.mark.slow
def test_killed_at_ten_moments_and_continued_it_ends_as_if_never_killed(tiny_llama, tmp_path, uninterrupted):
    store, output = tmp_path / "store.sqlite", tmp_path / "out"
    command = LM_EVAL + arguments(tiny_llama, store, output)
    moments = sorted(random.Random(0).sample(range(23), 10))  # texts of 24 that are finished
    for moment in moments:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        while process.poll() is None and finished(store) <= moment:
            time.sleep(0.005)
        assert process.poll() is None, f"it ended before {moment} texts were finished"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not list(output.rglob("*.json*")), "a killed run left results"
    done = run(command)
    assert done.returncode == 0, done.stderr
    results, samples = result(output)
    assert results["results"] == uninterrupted[0]["results"]
    assert [s["resps"] for s in samples] == [s["resps"] for s in uninterrupted[1]]
    assert told(sidecar(results)) == told(sidecar(uninterrupted[0]))
    steps = results["config"]["ske"]["steps"]
    assert all(steps[step]["generated"] + steps[step]["reused"] == 12 for step in ("knowledge", "answer"))
    assert steps["knowledge"]["reused"] + steps["answer"]["reused"] > moments[-1]
    with sqlite3.connect(store) as db:
        assert db.execute("SELECT COUNT(*), MAX(written) FROM steps").fetchone() == (24, 1)


TWO_RANKS = [str(BIN / "torchrun"), "--nproc_per_node", "2", str(Path(__file__).parents[1] / "two_ranks.py")]


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tiny_llama, tmp_path, uninterrupted):
    done = run(TWO_RANKS + arguments(tiny_llama, tmp_path / "store.sqlite", tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert {"rank 0 of 2", "rank 1 of 2"} <= set(done.stdout.splitlines())
    results, samples = result(tmp_path / "out")
    assert results["results"] == uninterrupted[0]["results"]
    assert [s["resps"] for s in samples] == [s["resps"] for s in uninterrupted[1]]
    assert sidecar(results) == sidecar(uninterrupted[0])
    assert results["config"]["ske"]["steps"]["knowledge"]["generated"] == 12


@pytest.mark.slow
def test_what_needs_all_questions_is_refused_in_two_processes(tiny_llama, tmp_path):
    given = arguments(tiny_llama, tmp_path / "store.sqlite", tmp_path / "out", knowledge="shuffled")
    done = run(TWO_RANKS + given)
    assert done.returncode != 0
    assert "knowledge=shuffled: needs all questions in one process; start one" in done.stderr


@pytest.mark.slow
def test_without_the_hook_the_module_runs_the_same(tiny_llama, tmp_path, uninterrupted):
    command = [sys.executable, "-m", "ske_models", "run"]
    command += arguments(tiny_llama, tmp_path / "store.sqlite", tmp_path / "out")
    done = run(command, SKE_LEARN_HOOK="0")
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "out")[0]["results"] == uninterrupted[0]["results"]


def test_a_control_or_another_setting_leaves_the_knowledge_of_a_run_as_it_is(tiny_llama, tmp_path):
    """Each has a file of its own, to which its results lead; the same run again has the same one."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)

    def file(**changed: Any) -> Path:
        args: dict[str, Any] = {"pretrained": str(tiny_llama), "device": "cpu", "max_knowledge_toks": 4}
        model = SKEExplicitLM(store=str(tmp_path / "s.sqlite"), **(args | changed))
        options: dict[str, Any] = {"task_manager": manager, "apply_chat_template": True, "limit": 2}
        done = lm_eval.simple_evaluate(model=model, tasks=["toy_write"], bootstrap_iters=0, **options)
        return Path(done["config"]["ske"]["knowledge_of_other_tasks"]) / "toy_write.explicit.jsonl"

    own = file()
    before = own.read_bytes()
    settings = {"layout": "multiturn"}, {"prompts": "notes"}, {"max_knowledge_toks": 5}
    files = [own, *(file(**changed) for changed in settings)]
    files += [file(knowledge="empty"), file(knowledge="shuffled")]
    for text in ("k6", "k7"):  # edited, and once more
        line = {"question": "How many legs has a cat?", "knowledge": text}
        (tmp_path / "k.jsonl").write_text(json.dumps(line))
        files.append(file(knowledge=str(tmp_path / "k.jsonl")))
    assert len(set(files)) == 8
    assert own.read_bytes() == before
    assert [json.loads(f.read_text().splitlines()[0])["knowledge"] for f in files[-2:]] == ["k6", "k7"]
    assert json.loads(files[4].read_text().splitlines()[0])["knowledge_source"] == "empty"
    assert file() == own


def test_ctrl_c_ends_in_one_line_and_the_same_command_goes_on(tiny_llama, tmp_path, uninterrupted):
    store, output = tmp_path / "store.sqlite", tmp_path / "out"
    command = LM_EVAL + arguments(tiny_llama, store, output)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        while process.poll() is None and finished(store) < 3:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        err = process.communicate()[1].decode()
    assert process.returncode == 130
    last = f"ske-learn: interrupted; what is finished is in {store}: the same command goes on"
    assert err.splitlines()[-1] == last
    assert "Traceback" not in err
    assert run(command).returncode == 0
    assert result(output)[0]["results"] == uninterrupted[0]["results"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "explicitly"}, "method=explicitly: unknown; one of: direct, cot, explicit"),
        ({"output": "/proc/out"}, "--output_path /proc/out: cannot be written"),
    ],
)
def test_a_mistake_ends_in_one_line(tiny_llama, tmp_path, changed, message):
    output = Path(changed.pop("output", tmp_path / "out"))
    done = run(LM_EVAL + arguments(tiny_llama, tmp_path / "store.sqlite", output, **changed))
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
