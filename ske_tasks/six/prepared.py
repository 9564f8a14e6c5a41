"""Keeps the rows of a benchmark, once they are prepared, beside the datasets' own cache.

    python -c "from ske_tasks.six.load import prepared; print(prepared('arc_c'))"      # twice

Preparing the six reads 57 splits and makes 36,000 rows, also for a task of 600 questions. What comes out
follows from the data and from the code that reads it, and is kept under a digest of both, in the folder
`ske_learn` of HF_DATASETS_CACHE. The data is known by the commit that each repository has on the hub now;
where the hub does not answer, by what `load_dataset` takes instead: what the datasets' cache holds.
"""

from __future__ import annotations

import importlib.resources
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets.config
from datasets import DatasetDict, load_from_disk
from huggingface_hub import HfApi

from ske_models.fingerprint import digest

log = logging.getLogger(__name__)

# what determines a row beside the data: our code, and the examples of BBH that lm-eval ships
_CODE = {"ske_tasks": ("six/*.py", "answers/*.py"), "lm_eval": ("tasks/bbh/cot_fewshot/*.yaml",)}
_TIMEOUT = 10.0  # seconds for a commit's name


def kept(name: str, repositories: Sequence[str], make: Callable[[], DatasetDict]) -> DatasetDict:
    """What `make` returns for this state of the data and the code; from disk if it is there.

    name: of the benchmark. repositories: the datasets on the hub that `make` reads. A cache that cannot be
    written costs the time of `make` at every start.
    """
    states = _states(repositories)
    if not all(states):
        return make()
    folder = _cache() / "ske_learn" / f"{name}-{digest([states, _code()])}"
    try:
        return load_from_disk(folder)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        log.info("%s cannot be read (%s) and is written again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
    found, part = make(), folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        found.save_to_disk(part, num_shards=dict.fromkeys(found, 1))  # an empty split, too, has a file
        part.rename(folder)
    except OSError as error:  # another process was first, or the disk is full
        log.info("%s is not written: %s", folder, error)
        shutil.rmtree(part, ignore_errors=True)
    return found


def _states(repositories: Sequence[str]) -> list[str]:
    """Of each repository, what tells its content; "" if that is not known."""
    api = HfApi(endpoint=datasets.config.HF_ENDPOINT)

    def state(repository: str) -> str:
        try:
            return api.dataset_info(repository, timeout=_TIMEOUT).sha or ""
        except Exception as error:
            # whatever the hub's client raises: `load_dataset` then takes the newest of these, or tells it
            log.info("%s: %s", repository, error)
            found = _cache().glob(f"{repository.replace('/', '___')}/*/*/*/")
            return " ".join(sorted(f"{folder} {folder.stat().st_mtime_ns}" for folder in found))

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(state, repositories))


def _cache() -> Path:
    return Path(datasets.config.HF_DATASETS_CACHE)


def _code() -> list[str]:
    """The content of these files."""
    return [
        file.read_text(encoding="utf-8")
        for package, patterns in _CODE.items()
        for pattern in patterns
        for file in sorted(Path(str(importlib.resources.files(package))).glob(pattern))
    ]
