"""The last cause that an engine's processes name while it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque

from ske_models.engines.overheard import last_error, overheard

CHILD = r"""
import sys
print("(EngineCore pid=7) INFO loading", flush=True)
sys.stderr.write("ERROR [core.py:866] ValueError: Free memory on device (3.1/15.6 GiB) is less\n")
sys.stderr.write("RuntimeError: Engine core initialization failed. See root cause above.\n")
"""


def test_what_children_say_is_heard_and_still_shown(capfd):
    with overheard() as said:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
        os.write(1, b"by this process\n")
    assert last_error(said) == "ValueError: Free memory on device (3.1/15.6 GiB) is less"
    assert "by this process" in said
    os.write(1, b"afterwards, as before\n")
    out, err = capfd.readouterr()
    assert "INFO loading" in out
    assert "by this process" in out
    assert "afterwards, as before" in out
    assert "Free memory on device" in err


def test_colours_are_no_part_of_it():
    line = "\x1b[0;36m(EngineCore)\x1b[0;0m torch.OutOfMemoryError: CUDA out of memory"
    assert last_error(deque([line])) == "OutOfMemoryError: CUDA out of memory"
    assert last_error(deque(["all is well"])) is None
