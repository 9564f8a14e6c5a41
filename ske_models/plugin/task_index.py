"""lm-eval's own task files, as they were parsed the last time.

    SKE_LEARN_TASK_CACHE=0 lm_eval ...     # parsed at every start, as lm-eval does by itself

At every start lm-eval 0.4.13 parses the 14,000 YAML files in its folder of tasks: 6.9 s of CPU time, against
0.9 s for its imports (docs/log.md, 2026-11-25). What comes out follows from the files alone, so the hook
(ske_models/plugin/registration.py) keeps it in ~/.cache/ske-learn. All is parsed again when the content of
any file in that folder, or the list of files, is another; no time and no size is trusted.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ske_models.files import cache_folder
from ske_models.fingerprint import digest

log = logging.getLogger(__name__)

Parsed = dict[str, dict[str, Any]]  # a file's path and content, functions unresolved, includes resolved


@contextmanager
def remembered(index: Any, folder: Path) -> Iterator[None]:
    """While it lasts, `index.load_yaml` takes the files in `folder` as they were parsed before.

    index: `lm_eval.tasks._index`; its `TaskIndex.build` calls `load_yaml` once per file, and puts what it
    gets into the index. A `load_yaml` that does not say which files it read (`_seen`) is left alone.
    """
    load = index.load_yaml
    if os.environ.get("SKE_LEARN_TASK_CACHE") == "0" or "_seen" not in inspect.signature(load).parameters:
        yield
        return
    state, inside, below = _state(folder), folder.resolve(), f"{folder}{os.sep}"
    cache = cache_folder() / f"lm-eval-tasks-{digest(str(folder))}.json"
    known, new, given = _read(cache, state), Parsed(), set()

    def load_remembered(path: Path, *, resolve_func: bool = True, recursive: bool = True) -> dict[str, Any]:
        name = str(path)
        # a second request for a file gets a copy of its own
        if resolve_func or not recursive or name in given or not name.startswith(below):
            return load(path, resolve_func=resolve_func, recursive=recursive)
        given.add(name)
        if name not in known:
            read: set[Path] = set()
            content = load(path, resolve_func=False, _seen=read)
            if not all(file.is_relative_to(inside) for file in read):
                return content  # it includes a file that `state` does not cover
            known[name] = new[name] = content
        return known[name]

    index.load_yaml = load_remembered
    try:
        yield
    finally:
        index.load_yaml = load
    if any(_survives(content) for content in new.values()):
        _write(cache, state, known)


def _state(folder: Path) -> str:
    """Digest of every file's name and content, and of lm-eval's version; 15,500 files take 0.25 s."""
    files: list[str] = []
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == "__pycache__":
                    continue  # grows with every task that is used
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.path)
    whole = hashlib.sha256(version("lm_eval").encode())
    for path in sorted(files):
        content = _content(path)
        whole.update(f"\0{path}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        whole.update(content)
    return whole.hexdigest()


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - making a Path takes as long
            return file.read()
    except OSError as error:  # a link to a folder or to nothing: lm-eval reads nothing there, either
        return repr(error).encode()


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
