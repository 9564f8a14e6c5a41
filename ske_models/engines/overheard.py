"""What the processes of an engine say while it starts: their last error is often the only cause there is.

with overheard() as said:
    LLM(...)                      # "Engine core initialization failed. See root cause above."
last_error(said)                  # "ValueError: Free memory on device (3.1 GiB) is less than ..."
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

_ERROR = re.compile(r"\b(?P<kind>\w+(?:Error|Exception)): (?P<said>\S.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def overheard(keep: int = 2000) -> Iterator[deque[str]]:
    """The last lines that this process, and those that it starts meanwhile, write to stdout and stderr.

    They still appear where they would. A child that lives longer keeps writing through the same pipe, so that
    is read until the last of them has ended.
    """
    said: deque[str] = deque(maxlen=keep)
    saved, readers = {}, []
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        saved[number] = os.dup(number)
        reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(writing)
        target = os.dup(saved[number])
        readers.append(threading.Thread(target=_forward, args=(reading, target, said), daemon=True))
        readers[-1].start()
    try:
        yield said
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, before in saved.items():
            os.dup2(before, number)
            os.close(before)
        for reader in readers:  # which ends when the last process that writes there has ended
            reader.join(timeout=0.2)


def _forward(reading: int, target: int, said: deque[str]) -> None:
    with open(reading, "rb", buffering=0) as pipe:
        rest = b""
        while block := pipe.read(65536):
            os.write(target, block)
            *lines, rest = (rest + block).split(b"\n")
            said.extend(line.decode(errors="replace") for line in lines)
    os.close(target)


def last_error(said: deque[str]) -> str | None:
    """The last line that names an error other than the one that only points to it."""
    for line in reversed([*said]):
        found = _ERROR.search(_COLOUR.sub("", line))
        if found and "initialization failed" not in line:
            return found[0].strip()[:300]
    return None
