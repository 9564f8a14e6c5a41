"""Ctrl-C in a process of its own: one line, status 130, no traceback."""

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


@pytest.mark.parametrize("way", ["plain", "asyncio"])
def test_one_line_and_status_130(way):
    script = SCRIPT.format(before="")
    if way == "asyncio":
        script = script.replace(
            "time.sleep(60)", "__import__('asyncio').run(__import__('asyncio').sleep(60))"
        )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
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
