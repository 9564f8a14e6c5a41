"""Ctrl-C and SIGTERM: one line that says how to continue, the status of a shell, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import SCRIPT, environment, small, write
from test_rounds_killed import said, still_there

pytestmark = pytest.mark.slow


def catches_sigterm(pid: int) -> bool:
    """Whether a process has begun to look after signals: Python itself does not catch this one."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("at", ["import", "round 0, evaluate ..."])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_one_line(tmp_path, at, number, status):
    folder, log = tmp_path / "run", tmp_path / "log"
    recipe = write(tmp_path / "small.yaml", small())
    command = [sys.executable, str(SCRIPT), "--recipe", str(recipe), "--run", str(folder)]
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command, stdout=stderr, stderr=stderr, env=environment(), start_new_session=True
        )
    if at == "import":
        while not catches_sigterm(process.pid):
            time.sleep(0.01)
    else:
        while process.poll() is None and at not in said(log):
            time.sleep(0.05)
        time.sleep(1.0)
    os.killpg(process.pid, number)  # as a terminal does
    assert process.wait(timeout=60) == status
    lines = [line for line in said(log).splitlines() if line.strip()]
    assert lines[-1] == f"ske-learn: stopped by {number.name}; the same command continues"
    assert "Traceback" not in said(log)
    deadline = time.monotonic() + 10
    while still_there(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not still_there(folder)
