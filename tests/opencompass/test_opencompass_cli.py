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

import pytest

pytest.importorskip("opencompass")

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "eval_configs" / "ske.py"
SHORT = ROOT / "tests" / "tasks" / "opencompass_short.py"
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


def test_the_six_benchmarks(tmp_path, tiny_llama, shared_dir):
    """An item of each of the 108 datasets, real data: six rows and the mean."""
    done = run(
        tmp_path, SHORT, "--debug",
        COMPASS_DATA_CACHE=str(shared_dir / "opencompass"), SKE_MODELS=f"tiny={tiny_llama}", SKE_SLICE="[:1]",
        SKE_METHODS="explicit",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(scores(tmp_path)) == 108
    assert check(tmp_path).returncode == 0
    summary = next((newest(tmp_path) / "summary").glob("summary_*.csv")).read_text().splitlines()
    assert [line.split(",")[0] for line in summary[1:]] == [
        "mmlu", "agieval", "ARC-e", "ARC-c", "bbh", "nq_open_0shot", "average",
    ]  # fmt: skip
    for item in predictions(tmp_path, "tiny-explicit", "nq_open_0shot").values():
        assert item["origin_prompt"][-1]["knowledge"]


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
