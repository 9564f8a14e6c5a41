"""Ctrl-C and SIGTERM in a process of its own: one line, status 130 or 143, no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, threading, time
from ske_models.interrupt import ends_in_a_line
{before}
ends_in_a_line(lambda: "of the model before")
ends_in_a_line(lambda: "the same command goes on")
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("way", ["plain", "asyncio", "a library makes another exception of it"])
def test_one_line_and_the_status_of_the_signal(way, which):
    script = SCRIPT.format(before="")
    if way == "asyncio":
        script = script.replace(
            "time.sleep(60)", "__import__('asyncio').run(__import__('asyncio').sleep(60))"
        )
    if way.startswith("a library"):  # as mmengine does
        script = script.replace("finally:", "except:\n    raise SyntaxError('your config')\nfinally:")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(which)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + which
    assert err.strip() == "ske-learn: interrupted; the same command goes on"
    assert "cleaned up" in out


def test_whoever_takes_the_signal_already_keeps_it():
    mine = "signal.signal(signal.SIGINT, lambda *_: print('mine', flush=True) or sys.exit(3))"
    script = SCRIPT.format(before=mine)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "mine" in out


def test_a_forked_process_ends_without_the_line():
    # The child says when it runs: Python drops a signal that arrives between fork(2) and its own first line.
    fork = "runs, says = os.pipe(); child = os.fork(); os.read(runs, 1) if child else os.write(says, b'.')"
    script = "import os\n" + SCRIPT.format(before="").replace('print("ready", flush=True)', fork)
    script = script.replace("time.sleep(60)", "os.kill(child, signal.SIGTERM) if child else time.sleep(60)")
    script = script.replace("finally:", "finally:\n    print(os.waitpid(child, 0)[1] if child else '')")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert str(int(signal.SIGTERM)) in done.stdout.split()
    assert "interrupted" not in done.stderr
