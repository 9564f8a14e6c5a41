r"""Asks math-verify whether two results are equal, in a process of its own.

    python -c "from ske_tasks.answers.verifier import verified; print(verified(r'\sqrt{8}', r'2\sqrt{2}'))"

math-verify limits its time with `signal.alarm`, which raises in every thread but the main one and cancels the
alarms of others there. Here it runs without a limit of its own in a child process that is started at the
first comparison and answers one after the other. A timer of the child ends it when a comparison takes more
than `LIMIT` seconds of processor time, so that a busy machine changes no result; the two then count as
different. The child also ends when its input is closed, and so with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time

LIMIT = 5.0  # seconds of processor time for both sides
PATIENCE = 300.0  # seconds by the clock, for an answer or for the child's imports
LONGEST = 2_000  # characters; nothing that long is a result

_WORKER = """
import json, logging, signal, sys
logging.disable(logging.CRITICAL)
from math_verify import parse, verify
def equal(*sides):
    gold, given = (parse(f"${side}$", parsing_timeout=None) for side in sides)
    return verify(gold, given, timeout_seconds=None)
answers, sys.stdout = sys.stdout, sys.stderr
equal("\\\\frac{1}{2}", "x = 0.5")  # imports more
print("ready", file=answers, flush=True)
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))  # SIGPROF ends the process
    same = int(equal(*json.loads(line)))
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(same, file=answers, flush=True)
"""


class Verifier:
    """A child process with math-verify; `equal` may be called by any thread."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def equal(self, gold: str, given: str) -> bool:
        """Whether math-verify takes them for equal; False when it needs more than `limit` seconds."""
        with self._lock:
            child = self._started()
            if child.stdin is None:
                raise RuntimeError("the verifier has no input")
            child.stdin.write(json.dumps([gold, given]).encode() + b"\n")
            child.stdin.flush()
            answer = _line(child, PATIENCE)
            if answer is None:
                self.close()
            return answer == b"1"

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child:
            child.kill()
            for end in (child.stdin, child.stdout):
                if end:
                    end.close()
            child.wait()

    def forget(self) -> None:
        """In a forked process: the child is the parent's; close our ends of its pipes, and start our own."""
        child, self._child, self._lock = self._child, None, threading.Lock()
        for end in (child.stdin, child.stdout) if child else ():
            if end:
                os.close(end.fileno())

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-c", _WORKER, str(self.limit)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is the parent's to handle
            )
            if _line(self._child, PATIENCE) != b"ready":
                self.close()
                raise RuntimeError("math-verify did not start; try: python -c 'import math_verify'")
        return self._child


def _line(child: subprocess.Popen[bytes], limit: float) -> bytes | None:
    """What the child writes next, or None when it takes longer than `limit` seconds or has ended."""
    if child.stdout is None:
        raise RuntimeError("the verifier has no output")
    end, line = time.monotonic() + limit, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not waiting.select(max(0.0, end - time.monotonic())):
                return None
            read = os.read(child.stdout.fileno(), 1024)
            if not read:
                return None
            line += read
    return line.strip()


_verifier = Verifier()
atexit.register(_verifier.close)
os.register_at_fork(after_in_child=_verifier.forget)


def verified(gold: str, given: str) -> bool:
    """Whether math-verify takes two results in LaTeX for equal. Raises RuntimeError when it cannot start."""
    return max(len(gold), len(given)) <= LONGEST and _verifier.equal(gold, given)
