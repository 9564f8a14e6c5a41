"""Texts that are generated window by window, so that a killed stage repeats at most one window.

rows = in_windows(path, key, windows, work)
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from ske_models.files import Row, read_jsonl, write_jsonl

T = TypeVar("T")


def in_windows(
    path: Path,
    key: str,
    windows: Sequence[T],
    work: Callable[[int, int, T], list[Row]],
    workers: int = 1,
    label: str = "",
    note: Callable[[list[Row]], dict[str, int]] | None = None,
) -> list[Row]:
    """Writes `path` from the rows of all windows, in order, and returns them.

    work(worker, index, window) makes the rows of one window; `worker` (0 .. workers - 1) says which of
    several engines to use. Each window's rows are a file of their own until all are there, so a killed run
    makes at most the windows again that were under way; they are whole windows, because what a batch holds
    can change the last digits of what a model writes. `key` names what the parts were made from: other ones
    are deleted. The parts stay until `delete_parts`. note: counts of a window's rows, which the bar adds up.

    A single worker works in the caller's thread: vLLM on the CPU fails in a thread that may use another
    number of OpenMP threads than the one that loaded it.
    """
    folder = path.with_name(f"{path.name}.parts-{key}")
    for stale in path.parent.glob(f"{path.name}.parts-*"):
        if stale != folder:
            shutil.rmtree(stale)
    files = [folder / f"{index:06d}.jsonl" for index in range(len(windows))]
    free = list(range(workers))

    def make(index: int) -> list[Row]:
        if files[index].is_file():
            return read_jsonl(files[index])
        worker = free.pop()
        made = work(worker, index, windows[index])
        write_jsonl(files[index], made)
        free.append(worker)
        return made

    rows: list[Row] = []
    noted: Counter[str] = Counter()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(files), desc=label, unit="window") as bar:
        indices = range(len(files))
        for made in map(make, indices) if workers == 1 else pool.map(make, indices):
            rows += made
            noted.update(note(made) if note else {})
            bar.set_postfix(noted, refresh=False)
            bar.update()
    write_jsonl(path, rows)
    return rows


def delete_parts(folder: Path) -> None:
    """The windows in a folder whose whole files are there and noted as done."""
    for parts in folder.glob("*.parts-*"):
        shutil.rmtree(parts)
