"""All methods with one load: the command, stopped by its minutes, continued, and compared."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from ske_models.lm_eval import methods

ROOT = Path(__file__).resolve().parents[2]


def test_all_ways_are_answered_with_one_load_and_compared(hub, tiny_llama, tmp_path):
    out = tmp_path / "out"
    ways = ["default:direct", "default:explicit:multiturn", "default:explicit:multiturn:shuffled"]
    command = [
        sys.executable,
        "-m",
        "ske_models.lm_eval.methods",
        "--model",
        str(tiny_llama),
        "--out",
        str(out),
    ]
    command += ["--model-args", "dtype=float32,device=cpu", "--limit", "4", "--max-answer", "8"]
    command += ["--tasks", "ske_quick_arc_e", "ske_quick_mmlu", "--ways", *ways]
    env = hub.env | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "complete: all questions" in done.stdout
    folders = [path for path in sorted(out.iterdir()) if path.is_dir()]
    compared = [sys.executable, "-m", "ske_tasks.compare", *map(str, folders)]
    table = subprocess.run(compared, check=False, env=env, capture_output=True, text=True, cwd=ROOT)
    assert table.returncode == 0, table.stderr
    assert "differs: knowledge from: the model | the model | shuffled" in table.stdout
    shuffled = next(folders[2].rglob("results_*.json"))
    assert json.loads(shuffled.read_text())["config"]["ske"]["knowledge_control"] == "shuffled"


@pytest.mark.parametrize("complete", [1, 5])
def test_what_is_complete_has_the_donors_that_it_was_written_with(
    tiny_llama, tmp_path, monkeypatch, capsys, complete
):
    """Drawn among the complete ones, they would be others: texts were written after the time was over."""
    tasks = TaskManager(include_path=str(ROOT / "tests" / "tasks"), include_defaults=False)
    monkeypatch.setattr(methods, "TaskManager", lambda: tasks)
    write = methods.answer

    def until_the_time_is_over(*given: Any) -> int:
        assert write(*given) is None
        return complete

    monkeypatch.setattr(methods, "answer", until_the_time_is_over)
    prompts = (ROOT / "ske_models" / "prompts" / "default.yaml").read_text()
    (tmp_path / "short.yaml").write_text(re.sub(r"knowledge: \d+", "knowledge: 4", prompts))
    ways = [f"{tmp_path}/short.yaml:explicit{control}" for control in ("", ":single:shuffled")]
    command = ["--model", str(tiny_llama), "--model-args", "dtype=float32,device=cpu,batch_size=4"]
    command += ["--tasks", "toy_write", "--max-answer", "4", "--out", str(tmp_path / "out"), "--ways", *ways]
    methods.main(command)
    assert f"complete: {complete} questions of each task" in capsys.readouterr().out
    files = [*(tmp_path / "out").rglob("results_*.json")]
    assert len(files) == 2
    for file in files:
        steps = json.loads(file.read_text())["config"]["ske"]["steps"]
        assert {step: (count["asked"], count["generated"]) for step, count in steps.items()} == {
            "knowledge": (complete, 0),
            "answer": (complete, 0),
        }


@pytest.mark.slow
def test_make_llm_compares_the_three_methods_and_goes_on(hub, tiny_llama, tmp_path):
    command = [sys.executable, "-m", "benchmarks.llm", "--model", str(tiny_llama), "--backend", "hf"]
    command += ["--limit", "1", "--tokens", "8", "--out", str(tmp_path / "out")]
    env = hub.env | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, check=False, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "$ python -m ske_models.lm_eval.methods" in done.stderr
    assert "$ python -m ske_tasks.compare" in done.stderr
    [folder] = (tmp_path / "out").iterdir()
    ways = ["default_direct", "default_cot", "notes_explicit_single"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(ways)
    for way in ways:
        ske = json.loads(next((folder / way).rglob("results_*.json")).read_text())["config"]["ske"]
        assert ske["stop_loops"] is True
        assert all(step["generated"] == 0 for step in ske["steps"].values()), "written before, in one load"
    page = (folder / "compare.html").read_text()
    assert all(way in page for way in ways)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--ways", "default:explct"],
            "--ways default:explct: method=explct: unknown; one of: direct, cot, explicit",
        ),
        (["--ways", "default:explicit:sinlge"], "layout=sinlge: unknown; one of: single, multiturn"),
        (["--ways", "default:explicit:single:nowhere.jsonl"], "no file nowhere.jsonl; give one, or"),
        (["--ways", "nosuch:direct"], "prompts=nosuch: no such file"),
        (["--model-args", "store=x"], "--model-args store=...: --out says it here"),
        (["--model-args", "max_knowledge_toks=5"], "`knowledge_tokens` of a prompt set says it here"),
    ],
)
def test_a_mistake_is_a_line_before_the_model_is_loaded(arguments, line, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        methods.main(["--model", "/nowhere", "--tasks", "ske_world_dev", "--out", str(tmp_path), *arguments])
    assert line in str(ended.value)
    assert not [*tmp_path.iterdir()]


def test_a_layout_that_is_not_named_is_the_one_of_lm_eval(tmp_path):
    assert methods.parts("default:explicit") == ("default", "explicit", "single", "")
    assert methods.parts("notes") == ("notes", "explicit", "single", "")


def test_the_first_metric_of_any_task_is_shown():
    assert (
        methods.accuracy({"alias": "x", "exact_match,strict": 0.25, "exact_match_stderr,strict": 0.1}) == 25.0
    )
    assert methods.accuracy({"alias": "x", "word_perplexity,none": 31.0}) is None
