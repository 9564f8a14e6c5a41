"""The process above the servers of a run: it starts them, starts one that died again, and ends them all.

    python -m training.serving.keeper < orders     # as training/serving/servers.py starts it

Its orders are lines of stdin: first what to start, {"name": ..., "servers": [{"command": [...], "env":
{...}, "log": PATH}, ...]}, then "answers" when all of them do. The end of stdin is the end of whoever gave
the orders, SIGKILL included: a process that is killed can end nothing itself, but the kernel closes its end
of the pipe. PR_SET_PDEATHSIG on `vllm serve` would not do: that ends one process, and the engines that it has
started live on and hold the GPU's memory (seen with vLLM 0.32). So this process leads a session, which all of
them belong to, and kills the rest of it before it ends. If somebody kills this process, the command above
sees that and does the same. Only where both are killed, each by itself, is PDEATHSIG all that is left.

Nothing but the standard library is imported, so that it is there at once and costs no memory. Linux only, as
vLLM is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

GRACE = 3.0  # seconds that servers have to end by themselves: then a killed run leaves nothing after 10,
DEAD = 1.5  # and these that the kernel has to end what was killed, on a machine that is busy, too
TICK = 0.25  # seconds between two looks at the servers
BEGINS = "--- started"  # the line in a log above what a server says from there on
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


class Kept:
    """One server. order: {"command", "env" (besides this process' own), "log"}."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.restarted = False
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with Path(self.order["log"]).open("ab") as log:
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            log.write(f"{BEGINS} {now} {' '.join(self.order['command'])}\n".encode(errors="replace"))
            log.flush()
            return subprocess.Popen(
                self.order["command"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.order["env"],
                close_fds=False,  # the run's lock is held until the last of them has ended
                preexec_fn=_in_a_group_of_its_own,  # noqa: PLW1509 (this process has one thread)
            )

    def again(self) -> None:
        """Starts it once more, when what is left of it has been killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.restarted = True
        self.process = self._start()


def _in_a_group_of_its_own() -> None:
    os.setpgrp()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # what is ignored would stay so over exec
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Orders:
    """Lines of stdin, read without waiting for them."""

    def __init__(self) -> None:
        self.left = b""
        self.over = False

    def next(self, seconds: float) -> str | None:
        """The next line; None if none has come in so many seconds, or none will come any more."""
        while b"\n" not in self.left and not self.over:
            if not select.select([0], [], [], seconds)[0]:
                return None
            block = os.read(0, 65536)
            self.left += block
            self.over = not block
        line, newline, rest = self.left.partition(b"\n")
        if not newline:
            return None
        self.left = rest
        return line.decode()


def main() -> None:
    """Until stdin ends, or a server has died for good: then it is said on stdout which."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends last
    try:
        orders = Orders()
        first = None
        while first is None and not orders.over:
            first = orders.next(TICK)
        if first is not None:
            keep(json.loads(first), orders)
    finally:
        end(os.getpid())


def keep(what: dict[str, Any], orders: Orders) -> None:
    """Starts the servers and looks after them."""
    kept = [Kept(order) for order in what["servers"]]
    answered = False
    while not orders.over:
        answered = orders.next(TICK) == "answers" or answered
        for server in kept:
            status, log = server.process.poll(), server.order["log"]
            if status is None:
                continue
            # what has never answered would end in the same way again
            if not answered or server.restarted:
                said = {"log": log, "status": status, "restarted": server.restarted}
                _tell(sys.stdout, json.dumps(said))
                return
            line = f"a server of {what['name']} has ended ({name_of(status)}); it is started again, once"
            _tell(sys.stderr, f"ske-learn: {line}; see {log}")
            server.again()


def name_of(status: int) -> str:
    """How a process has ended, in words."""
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def _tell(where: Any, line: str) -> None:
    with contextlib.suppress(OSError):  # whoever reads may be dead; the servers must be ended
        print(line, file=where, flush=True)


def end(session: int) -> None:
    """Ends the processes of a session but this one: asks, so that shared memory is given back, then kills."""
    _until_none_is_left(session, signal.SIGTERM, GRACE)
    _until_none_is_left(session, signal.SIGKILL, DEAD)


def _until_none_is_left(session: int, number: signal.Signals, seconds: float) -> None:
    deadline, told = time.monotonic() + seconds, set[int]()
    while (left := members(session)) and time.monotonic() < deadline:
        for pid in left - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        told |= left
        time.sleep(0.05)


def members(session: int) -> set[int]:
    """The processes of a session, without this one and those that have ended."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # PID (NAME) STATE PARENT GROUP SESSION ...; there may be a ")" in the name
            fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.add(int(process.name))
    return found - {os.getpid()}


if __name__ == "__main__":
    main()
