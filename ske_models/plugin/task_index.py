"""lm-eval's own task files, as they were parsed the last time.

At every start lm-eval 0.4.13 parses the 14,000 YAML files in its folder of tasks, which takes longer than all
its imports. What comes out follows from the files alone, so the hook (ske_models/plugin/registration.py) keeps it in
~/.cache/ske-learn. A file in that folder that is new, gone or changed (size, time) has all parsed again.

    SKE_LEARN_HOOK=0 lm_eval ...     # lm-eval as it was installed, without this
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ske_models.fingerprint import digest
from ske_models.store import cache_folder

log = logging.getLogger(__name__)

Parsed = dict[str, dict[str, Any]]  # a file's path and content, functions unresolved, includes resolved


@contextmanager
def remembered(index: Any, folder: Path) -> Iterator[None]:
    """While it lasts, `index.load_yaml` takes the files in `folder` as they were parsed before.

    index: `lm_eval.tasks._index`; its `TaskIndex.build` calls `load_yaml` once a file, and puts what it gets
    into the index.
    """
    load, state = index.load_yaml, _state(folder)
    cache = cache_folder() / f"lm-eval-tasks-{digest(str(folder))}.json"
    known, new, given = _read(cache, state), Parsed(), set()

    def load_remembered(path: Path, *, resolve_func: bool = True, recursive: bool = True) -> dict[str, Any]:
        name = str(path)
        # whoever asks a second time gets a copy of its own
        if resolve_func or not recursive or name in given or not path.is_relative_to(folder):
            return load(path, resolve_func=resolve_func, recursive=recursive)
        if name not in known:
            known[name] = new[name] = load(path, resolve_func=False)
        given.add(name)
        return known[name]

    index.load_yaml = load_remembered
    try:
        yield
    finally:
        index.load_yaml = load
    if any(_survives(content) for content in new.values()):
        _write(cache, state, known)


def _state(folder: Path) -> str:
    """Digest of every file's name, size and time, and of lm-eval's version; 16,000 files take 0.1 s."""
    files, folders = [], [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == "__pycache__":
                    continue  # grows with every task that is used
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    stat = entry.stat()
                    files.append((entry.path, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr([version("lm_eval"), sorted(files)]).encode()).hexdigest()


def _read(cache: Path, state: str) -> Parsed:
    try:
        with cache.open(encoding="utf-8") as file:
            return json.load(file) if file.readline().strip() == state else {}
    except (OSError, ValueError):  # none, or a broken one, which the next `_write` replaces
        return {}


def _write(cache: Path, state: str, parsed: Parsed) -> None:
    """Keeps what JSON gives back as it was (a number as a key, for one, would come back as text)."""
    same = {path: content for path, content in parsed.items() if _survives(content)}
    part = cache.with_name(f".{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(f"{state}\n{json.dumps(same)}", encoding="utf-8")
        part.replace(cache)
    except OSError as error:
        log.info("%s cannot be written (%s); lm-eval's task files are parsed at every start", cache, error)


def _survives(content: dict[str, Any]) -> bool:
    try:
        return json.loads(json.dumps(content)) == content
    except (TypeError, ValueError):
        return False
