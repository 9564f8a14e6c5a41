"""Ctrl-C and SIGTERM end a command with one line that says how to continue; a stage ends with its command.

with one_line_when_stopped():
    run([sys.executable, "-m", "training.stage", "mix", "runs/mine", "1"])
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from ske_models.errors import UserError

GRACE = 5.0  # seconds that a stage has to end by itself
LOOK = 0.5  # seconds between two looks at what a command needs
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class StopRequestedError(BaseException):
    """A signal came. No Exception, so that nothing takes it for a fault of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def one_line_when_stopped() -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM into one line on stderr and the status that a shell has for them: 130, 143."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _raise)
    try:
        yield
    except StopRequestedError as stop:
        ignore()
        print(f"\nske-learn: stopped by {stop}; the same command continues", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(128 + stop.number)  # no library's threads and handlers have a word in it


def _raise(number: int, _frame: FrameType | None) -> None:
    ignore()  # while children are ended
    raise StopRequestedError(number)


def ignore() -> None:
    """A second Ctrl-C changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def run(command: Sequence[str], env: Mapping[str, str], look: Callable[[], None] | None = None) -> int:
    """The exit status of a command, which has a process group of its own and ends with this process.

    A Ctrl-C in the terminal does not reach it: this process ends it, and all that it started. look: is called
    meanwhile, and may raise what ends the command.
    """
    with subprocess.Popen(
        command,
        env=dict(env),
        close_fds=False,  # the run's lock is held until the last of them has ended
        preexec_fn=end_with_parent,  # noqa: PLW1509 (no other thread is started before)
        process_group=0,
    ) as process:
        try:
            if look is None:
                return process.wait()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOK)
                look()
        except (StopRequestedError, UserError):
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process group: asks, then kills."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def end_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
