"""Files of a run: JSONL and JSON, written whole or not at all, and texts that are generated window by window.

from training.files import read_jsonl
read_jsonl(Path("runs/world/round1/kept.jsonl"))
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ske_models.errors import UserError

T = TypeVar("T")
Row = dict[str, Any]


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object a line. Raises UserError, naming the line, for anything else."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}, line {number}: not JSON ({error}); mend it, or delete the file to make it anew"
            ) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}")
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """As `write_text`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Raises UserError if the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; delete it to have it made anew") from error


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, indented."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def file_digest(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes; "absent" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def in_parts(
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


def write_text(path: Path, text: str) -> None:
    """Raises UserError if the disk is full or the folder cannot be written; then nothing was changed."""
    new = path.with_name(f".{path.name}.new")  # what a kill leaves of it, the next try writes over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; make room (or choose another --run) and give the "
            "same command again"
        ) from error
