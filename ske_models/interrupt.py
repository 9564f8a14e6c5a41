"""Ctrl-C or SIGTERM in a long job: one line that says how to go on, exit status 130 or 143, no traceback.

ends_in_a_line(lambda: "what is finished is in the store; the same command goes on")
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_lines: list[Callable[[], str]] = []
# What else would end the process without a word, and what it is then: somebody else's handler stays.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class InterruptedByUser(SystemExit):
    """Ctrl-C or SIGTERM. Its line comes when the process has ended all else."""

    def __init__(self, which: int) -> None:
        super().__init__(128 + which)  # as a shell has it


def ends_in_a_line(how_to_go_on: Callable[[], str]) -> None:
    """From here on, Ctrl-C and SIGTERM end this process in that line. A second one ends it at once.

    The last call has the line. Nothing changes in a thread, at a prompt (Python's, a notebook), nor where
    somebody else takes the signal already.
    """
    _lines.append(how_to_go_on)
    if hasattr(sys, "ps1"):
        return
    if threading.current_thread() is not threading.main_thread():
        return
    process = os.getpid()

    def stop(which: int, _: FrameType | None) -> None:
        if os.getpid() != process:  # forked from it: its line is not for this one to say
            signal.signal(which, signal.SIG_DFL)
            os.kill(os.getpid(), which)
        raise interrupted(which)

    for which, default in _DEFAULTS.items():
        if signal.getsignal(which) is default:
            signal.signal(which, stop)


def interrupted(which: int) -> InterruptedByUser:
    """What to raise for a signal. Its line comes at the end; a second signal ends the process at once.

    For a handler of one's own, too, if `ends_in_a_line` has been called.
    """
    signal.signal(which, signal.SIG_DFL)
    line = f"ske-learn: interrupted; {_lines[-1]()}"
    atexit.unregister(_say)  # of two signals, one line
    atexit.register(_say, line)  # last, after progress bars that close meanwhile

    def still(*_: object) -> None:
        raise InterruptedByUser(which)

    # Some libraries make another exception of any (mmengine: a SyntaxError): still this one, for the status.
    sys.excepthook = still
    return InterruptedByUser(which)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
