"""The stock `opencompass` command on eval_configs/ske.py: killed and resumed, in one process and in many."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

pytest.importorskip("opencompass")

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "eval_configs" / "ske.py"
SHORT = ROOT / "tests" / "tasks" / "opencompass_short.py"
SHORT_VLLM = ROOT / "tests" / "tasks" / "opencompass_short_vllm.py"
BROKEN = ROOT / "tests" / "tasks" / "opencompass_broken.py"
VLLM_HERE = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
METHODS = ("direct", "explicit")

pytestmark = pytest.mark.slow


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """A clean one, with a store of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SKE_")}
    return env | {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", **variables}


def command(config: Path, *arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("opencompass")), str(config), *arguments]


def run(folder: Path, config: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    env = environment(folder, **variables)
    return subprocess.run(
        command(config, *arguments), cwd=folder, env=env, text=True, capture_output=True, check=False
    )


def newest(folder: Path) -> Path:
    """OpenCompass' folder of the run."""
    return max((folder / "outputs" / "ske").glob("*"))


def predictions(folder: Path, model: str, data: str = "tinyworld") -> dict:
    return json.loads((newest(folder) / "predictions" / model / f"{data}.json").read_text())


def scores(folder: Path) -> dict[str, dict]:
    files = (newest(folder) / "results").glob("*/*.json")
    return {f"{file.parent.name}/{file.stem}": json.loads(file.read_text()) for file in files}


def knowledge_rows(folder: Path) -> list[tuple[str, int]]:
    """(text, how often it was generated) of the knowledge that the store has."""
    for store in (folder / "cache" / "ske-learn").glob("*.sqlite"):
        with closing(sqlite3.connect(store)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'steps'").fetchone():
                return list(db.execute("SELECT text, written FROM steps WHERE step = 'knowledge'"))
    return []


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "ske_models.opencompass.summary", str(newest(folder))]
    return subprocess.run(arguments, text=True, capture_output=True, check=False)


def test_killed_and_resumed_is_the_same_as_run_at_once(tmp_path):
    """--debug (one process), killed while it writes knowledge; then -r with subprocesses; then at once."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    asked = {"SKE_SLICE": "[:256]", "SKE_METHODS": ",".join(METHODS)}
    env = environment(killed, **asked)
    with (killed / "log").open("w") as log:
        process = subprocess.Popen(
            command(CONFIG, "--debug"),
            cwd=killed,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            while not knowledge_rows(killed) and process.poll() is None:
                time.sleep(0.02)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert (newest(killed) / "predictions" / "M0-direct" / "tinyworld.json").is_file()
    assert not (newest(killed) / "predictions" / "M0-explicit" / "tinyworld.json").is_file()
    before = len(knowledge_rows(killed))
    assert 0 < before < 256

    resumed = run(killed, CONFIG, "-r", **asked)
    at_once = run(whole, CONFIG, "--debug", **asked)
    assert resumed.returncode == at_once.returncode == 0, resumed.stderr[-2000:]
    for method in METHODS:
        one, other = (predictions(folder, f"M0-{method}") for folder in (killed, whole))
        assert len(one) == 256
        assert [item["prediction"] for item in one.values()] == [
            item["prediction"] for item in other.values()
        ]
    texts = [item["origin_prompt"][-1]["knowledge"] for item in predictions(killed, "M0-explicit").values()]
    assert all(isinstance(text, str) for text in texts)
    assert {written for _, written in knowledge_rows(killed)} == {1}
    assert scores(killed) == scores(whole)
    for table in (resumed.stdout, at_once.stdout):
        assert "tinyworld, accuracy:" in table
        assert "M0-explicit" in table
    (newest(whole) / "results" / "M0-direct" / "tinyworld.json").unlink()
    failed = check(whole)
    assert failed.returncode == 1
    assert "M0-direct/tinyworld: predicted, not scored" in failed.stderr


def test_slurm_gets_a_task_a_model(tmp_path):
    """A stub `srun` writes its arguments down and runs the command here."""
    stub = tmp_path / "bin" / "srun"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/bash\necho "$@" >> {tmp_path}/srun.log\n'
        'while [[ $# -gt 0 && "$1" != */python* ]]; do shift; done\nexec "$@"\n'
    )
    stub.chmod(0o755)
    done = run(
        tmp_path / "run", CONFIG, "--mode", "infer", "-p", "gpu",
        SKE_SLICE="[:8]", SKE_METHODS="direct,explicit", PATH=f"{stub.parent}:{os.environ['PATH']}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    calls = (tmp_path / "srun.log").read_text().splitlines()
    for call, method in zip(sorted(calls), ("direct", "explicit"), strict=True):
        assert call.startswith("-p gpu -N1 -u -J ")
        assert f"M0-{method}/tinyworld" in call
        assert len(predictions(tmp_path / "run", f"M0-{method}")) == 8


def test_opencompass_own_slurm_argument(tmp_path):
    done = run(tmp_path, CONFIG, "--mode", "infer", "--slurm", "-p", "gpu", "--dry-run")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Partitioned into 3 tasks" in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--debug"], []], ids=["one process", "subprocesses"])
def test_what_fails_takes_nothing_with_it(tmp_path, arguments):
    """A missing model, a dataset that cannot be loaded, one that cannot be scored, then a good one."""
    asked = {"SKE_SLICE": "[:4]", "SKE_METHODS": "direct"}
    done = run(tmp_path, BROKEN, *arguments, **asked)
    assert done.returncode == 1
    assert scores(tmp_path).keys() == {"M0-direct/tinyworld"}
    said = done.stderr[done.stderr.index("ske-learn: 5 without a result:") :].splitlines()[:7]
    for line, name in zip(said[1:4], ("nowhere", "unscored", "tinyworld"), strict=True):
        assert line.startswith(f"gone-direct/{name}: no predictions: pretrained=/nowhere/M9: no such folder")
    assert said[4] == "M0-direct/nowhere: no predictions: KeyError: 'nowhere'"
    assert said[5].startswith("M0-direct/unscored: predicted, not scored: TypeError: ")
    assert said[6] == f"the same command with -r {newest(tmp_path).name} does only what is missing"
    assert "| accuracy | gen | - | " in done.stdout  # the table comes first
    again = check(tmp_path)
    assert again.returncode == 1
    assert "\n".join(said) in again.stderr


@pytest.mark.parametrize(
    ("started", "arguments"),
    [("M0-direct: dataset 1 of 1", ["--debug"]), ("launch OpenICLInfer", []), ("Current exp folder", [])],
    ids=["one process", "subprocesses", "before any task"],
)
def test_an_interrupt_ends_in_a_line_and_leaves_no_child(tmp_path, started, arguments):
    """SIGINT to the command alone: the first of two models is loaded or prompted, or a config is written."""
    env = environment(tmp_path, SKE_METHODS="direct,explicit")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(CONFIG, *arguments), cwd=tmp_path, env=env, stdout=log, stderr=log, start_new_session=True
        )
        while started not in (tmp_path / "log").read_text() and process.poll() is None:
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    said = (tmp_path / "log").read_text()
    early = started == "Current exp folder"
    line = (
        "no task was started; give the same command again" if early else "the same command with -r continues"
    )
    assert said.count("ske-learn: interrupted;") == said.count(line) == 1
    assert "Traceback" not in said
    assert "M0-explicit" not in said.split("interrupted")[1]
    assert not [log for log in (newest(tmp_path) / "logs").rglob("*.out") if "M0-explicit" in str(log)]
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_inference_alone_says_what_failed(tmp_path):
    done = run(tmp_path, BROKEN, "--debug", "--mode", "infer", SKE_SLICE="[:4]", SKE_METHODS="direct")
    assert done.returncode == 1
    assert "ske-learn: 4 without a result:" in done.stderr
    assert len(predictions(tmp_path, "M0-direct", "unscored")) == 4


def check_the_six(folder: Path, model: str) -> None:
    """One item of each of the 108 datasets by both methods: no dash in the table, knowledge in the files."""
    assert len(scores(folder)) == 216
    assert check(folder).returncode == 0
    summary = next((newest(folder) / "summary").glob("summary_*.csv")).read_text().splitlines()
    assert [line.split(",")[0] for line in summary[1:]] == [
        "mmlu", "agieval", "ARC-e", "ARC-c", "bbh", "nq_open_0shot", "average",
    ]  # fmt: skip
    for line in summary[1:]:
        assert all(cell.replace(".", "").isdecimal() for cell in line.split(",")[4:])
    for item in predictions(folder, f"{model}-explicit", "nq_open_0shot").values():
        assert item["origin_prompt"][-1]["knowledge"]


@pytest.mark.parametrize(
    ("backend", "config", "arguments"),
    [("hf", SHORT, []), ("vllm", SHORT_VLLM, ["--debug"])],
    ids=["hf", "vllm"],
)
def test_the_six_benchmarks(tmp_path, tiny_llama, shared_dir, backend, config, arguments):
    """Real data; of the four combinations of backend and --debug, two."""
    if backend == "vllm":
        pytest.importorskip("vllm")
    done = run(
        tmp_path, config, *arguments,
        COMPASS_DATA_CACHE=str(shared_dir / "opencompass"), SKE_MODELS=f"tiny={tiny_llama}", SKE_SLICE="[:1]",
        SKE_METHODS="direct,explicit", SKE_BACKEND=backend, **VLLM_HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    check_the_six(tmp_path, "tiny")
    # nobody limits ARC: its answers have the default, and neither 6 tokens nor the 20 of transformers
    [item] = predictions(tmp_path, "tiny-direct", "ARC-c").values()
    assert len(item["prediction"]) > 200


@pytest.mark.skipif("SKE_LEARN_MATRIX" not in os.environ, reason="hours: set SKE_LEARN_MATRIX=CHECKPOINT")
@pytest.mark.parametrize("arguments", [["--debug"], []], ids=["one process", "subprocesses"])
@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_the_six_benchmarks_with_a_real_model(tmp_path, shared_dir, backend, arguments):
    """The stock config with its own limits: all four combinations."""
    done = run(
        tmp_path, CONFIG, *arguments,
        COMPASS_DATA_CACHE=str(shared_dir / "opencompass"), SKE_MODELS=f"M0={os.environ['SKE_LEARN_MATRIX']}",
        SKE_SLICE="[:1]", SKE_METHODS="direct,explicit", SKE_BACKEND=backend, **VLLM_HERE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    check_the_six(tmp_path, "M0")


def test_missing_data_ends_before_anything_is_loaded(tmp_path, tiny_llama):
    done = run(
        tmp_path,
        CONFIG,
        SKE_MODELS=str(tiny_llama),
        COMPASS_DATA_CACHE=str(tmp_path),
        HOME=str(tmp_path),
    )
    assert done.returncode == 1
    assert "no data for 6 of the 6 benchmarks: data/mmlu" in done.stderr
    assert "Traceback" not in done.stderr
