"""All methods with one load: the command, stopped by its minutes, continued, and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_all_ways_are_answered_with_one_load_and_compared(hub, tiny_llama, tmp_path):
    out = tmp_path / "out"
    ways = ["default:direct", "default:explicit:multiturn", "default:explicit:multiturn:shuffled"]
    command = [sys.executable, "-m", "benchmarks.methods", "--model", str(tiny_llama), "--out", str(out)]
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
