"""What starts OpenCompass' tasks on this machine, and ends them all when it is interrupted.

infer = dict(..., runner=dict(type=Local, task=dict(type=InferTask)))     # in a config
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil  # type: ignore[import-untyped]
from opencompass.runners import LocalRunner

from ske_models.interrupt import ends_in_a_line, interrupted
from ske_models.opencompass.summary import no_predictions, raise_failed


class Local(LocalRunner):
    """`LocalRunner` that an interrupt ends: nothing more is started, no child is left, one line is said.

    check: whether to raise UserError if a dataset has no predictions afterwards; for `--mode infer`, where no
        summarizer follows that would say so.
    """

    def __init__(self, check: bool = False, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check
        self.signal = 0  # that ended the run

    def __call__(self, tasks: list[Any]) -> None:
        ends_in_a_line(lambda: "the same command with -r continues")
        before = {which: signal.signal(which, self._end) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            super().__call__(tasks)
        finally:
            if not self.signal:  # else a second one ends it at once
                for which, handler in before.items():
                    signal.signal(which, handler)
        if self.check:
            lines = [
                no_predictions(Path(task.work_dir), model, dataset)
                for task in tasks
                for model, datasets in zip(task.models, task.datasets, strict=True)
                for dataset in datasets
            ]
            raise_failed([line for line in lines if line], Path(tasks[0].work_dir) if tasks else Path())

    def launch(self, tasks: list[Any]) -> list[tuple[str, int]]:
        status = super().launch(tasks)
        if self.signal:
            raise interrupted(self.signal)
        return status

    def _launch(self, task: Any, gpu_ids: Any, index: int) -> tuple[str, int]:
        # The pool's other tasks wait for a worker: they would be started after an interrupt, too.
        return (task.name, 128 + self.signal) if self.signal else super()._launch(task, gpu_ids, index)

    def _end(self, which: int, _: FrameType | None) -> None:
        signal.signal(which, signal.SIG_DFL)  # a second one ends it at once
        self.signal = which
        if self.debug:  # the tasks run in this thread
            _terminate(psutil.Process().children(recursive=True))
            raise interrupted(which)
        # Raised here, it would leave a pool's threads behind that write on after our line: Python 3.11 takes
        # a thread for ended whose `join` is interrupted. So the pool ends by itself, and `launch` raises.
        threading.Thread(target=_terminate_all, daemon=True).start()


def _terminate(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()


def _terminate_all() -> None:
    """Every child once, until this process ends: a worker may have been about to start one."""
    told: set[psutil.Process] = set()
    while True:
        new = set(psutil.Process().children(recursive=True)) - told
        _terminate(new)
        told |= new
        time.sleep(0.1)
