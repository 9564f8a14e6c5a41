"""math-verify in its own process: threads, alarms, forks, time and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from ske_tasks.answers.equality import same
from ske_tasks.answers.verifier import Verifier

ROOTS = ("\\sqrt{8}", "2\\sqrt{2}")  # only math-verify knows that these are equal


@pytest.fixture(scope="module")
def verifier():
    verifier = Verifier(limit=1)
    yield verifier
    verifier.close()


def test_works_in_a_thread(verifier):
    found = []
    threads = [threading.Thread(target=lambda: found.append(verifier.equal(*ROOTS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 3


def test_leaves_the_alarms_of_others_alone(verifier):
    signal.setitimer(signal.ITIMER_REAL, 10_000)
    try:
        assert verifier.equal(*ROOTS)
        assert not verifier.equal("3", "4")
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_forked_process_has_a_child_of_its_own(verifier):
    assert verifier.equal(*ROOTS)
    mine = verifier._child
    forked = os.fork()
    if not forked:
        verifier.forget()  # what os.register_at_fork does for the one that everybody uses
        os._exit(0 if verifier._child is None else 1)
    assert os.waitpid(forked, 0)[1] == 0
    assert verifier._child is mine
    assert verifier.equal(*ROOTS)


def test_a_comparison_that_takes_too_long_is_unequal_and_the_next_one_works(verifier):
    assert not verifier.equal("9^{9^{9^9}}", "2")
    assert verifier.equal(*ROOTS)


def test_nothing_is_left_and_nothing_printed():
    code = (
        "from ske_tasks.answers.verifier import _verifier, verified\n"
        "assert verified('\\\\sqrt{8}', '2\\\\sqrt{2}')\n"
        "assert not verified('\\\\frac{', '2' * 1999)\n"
        "print(_verifier._child.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_simple_numbers_need_no_process(monkeypatch):
    monkeypatch.setattr("ske_tasks.answers.equality.verified", lambda *sides: pytest.fail(str(sides)))
    assert same("0.5", "\\frac{1}{2}")
    assert same("\\frac{3}{4}", "0.75")
    assert not same("7", "8")
    assert not same("7", "\\frac{1}{8}")
