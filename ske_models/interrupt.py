"""Ctrl-C in a long job: one line that says how to go on, exit status 130, and no traceback.

ends_in_a_line(lambda: "what is finished is in the store; the same command goes on")
"""

from __future__ import annotations

import atexit
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

STATUS = 130  # 128 + SIGINT, as a shell has it
_lines: list[Callable[[], str]] = []


class InterruptedByUser(SystemExit):
    """Ctrl-C. Its line comes when the process has ended all else."""

    def __init__(self) -> None:
        super().__init__(STATUS)


def ends_in_a_line(how_to_go_on: Callable[[], str]) -> None:
    """From here on, Ctrl-C ends this process in that line. A second one ends it at once.

    The last call has the line. Nothing changes in a thread, at a prompt (Python's, a notebook), nor where
    somebody else takes the signal already.
    """
    _lines.append(how_to_go_on)
    if hasattr(sys, "ps1"):
        return
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def stop(_: int, __: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        line = f"ske-learn: interrupted; {_lines[-1]()}"
        # last, after progress bars that close meanwhile
        atexit.register(print, line, file=sys.stderr, flush=True)
        raise InterruptedByUser

    signal.signal(signal.SIGINT, stop)
