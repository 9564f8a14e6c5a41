"""Whether lm-eval's results can be written, and were: lm-eval 0.4.13 only logs it, and exits with 0.

    lm_eval --model ske_explicit --tasks ske_world --output_path /full/disk     # one line, status 1

The plugin completes lm-eval's `EvaluationTracker` with this (ske_models/plugin/registration.py). Nothing
changes for other models. Upstream, `save_results_aggregated` would have to let its errors through.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ske_models.errors import UserError
from ske_models.secrets import masked

_trackers: WeakSet = WeakSet()  # those that lm-eval has made in this process


def complete_tracker(tracker: type) -> None:
    """`tracker`: lm-eval's class. Remembers its instances, and looks at the files that they write."""
    begin, save_results, save_samples = (
        vars(tracker)[name] for name in ("__init__", "save_results_aggregated", "save_results_samples")
    )

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        begin(self, *args, **kwargs)
        _trackers.add(self)

    def save_results_aggregated(self: Any, results: dict, samples: dict | None = None) -> None:
        ours = "ske" in results.get("config", {})
        if ours:
            _mask(results)
            self.ske_results = results
        save_results(self, results, samples)
        if ours and self.output_path:
            _require(self, results_file(self, self.date_id, self.general_config_tracker.model_name_sanitized))

    def save_results_samples(self: Any, task_name: str, samples: Any) -> None:
        save_samples(self, task_name, samples)
        if self.output_path and hasattr(self, "ske_results"):
            file = results_file(self, self.date_id, self.general_config_tracker.model_name_sanitized)
            _require(self, file.with_name(f"samples_{task_name}_{self.date_id}.jsonl"), len(samples))

    for method in (__init__, save_results_aggregated, save_results_samples):
        setattr(tracker, method.__name__, method)


def results_file(tracker: Any, date: str, model: str) -> Path:
    """Where lm-eval 0.4.13 writes a run's results (`EvaluationTracker.save_results_aggregated`)."""
    path = Path(tracker.output_path)
    if path.suffix == ".json":
        return path.with_name(f"{path.stem}_{date}.json")
    return path / model / f"results_{date}.json"


def check(model_args: Mapping[str, Any]) -> None:
    """Before the model is loaded. Raises UserError if the results of this run could not be written."""
    from lm_eval.utils import sanitize_model_name

    for tracker in _trackers:
        if not tracker.output_path:
            continue
        name = tracker.general_config_tracker._get_model_name(dict(model_args)) or ""  # lm-eval draws one
        file = results_file(tracker, f"{os.getpid():0>26}", sanitize_model_name(name)).with_suffix(".part")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("as long a name as the results will have", encoding="utf-8")
            file.unlink()
        except OSError as error:
            raise UserError(
                f"--output_path {tracker.output_path}: cannot be written ({error.strerror}): choose another"
            ) from error


def _require(tracker: Any, file: Path, lines: int | None = None) -> None:
    """Raises UserError, after lm-eval's tables, if a file is not there in full. lines: of a JSONL file."""
    try:
        text = file.read_text(encoding="utf-8")
        whole = text.count("\n") >= lines if lines is not None else isinstance(json.loads(text), dict)
        reason = "it is incomplete"
    except ValueError:
        whole, reason = False, "it is incomplete"
    except OSError as error:
        whole, reason = False, error.strerror or str(error)
    if whole:
        return
    reason = _why(file) or reason
    _print_tables(tracker.ske_results)
    store = tracker.ske_results["config"]["ske"]["store"]
    kept = f"the texts are in {store}: " if store else ""
    raise UserError(
        f"--output_path {tracker.output_path}: {file.name[:80]} could not be written: {reason}; {kept}"
        "make room or choose another --output_path, and give the same command again"
    )


def _why(file: Path) -> str | None:
    """The system's reason, from another try; an incomplete file is removed: nobody takes it for whole."""
    try:
        with file.open("ab", buffering=0) as end:
            end.write(b" " * 65536)
    except OSError as error:
        return error.strerror
    finally:
        if file.is_file():
            file.unlink()
    return None


def _print_tables(results: dict[str, Any]) -> None:
    from lm_eval.utils import make_table

    print(make_table(results))
    if "groups" in results:
        print(make_table(results, "groups"))


def _mask(results: dict[str, Any]) -> None:
    """lm-eval puts a model's arguments into the results, and into each task's metadata: without keys."""
    results["config"]["model_args"] = masked(results["config"]["model_args"])
    for config in results.get("configs", {}).values():
        if "metadata" in config:
            config["metadata"] = masked(config["metadata"])


class WithoutKeys(logging.Filter):
    """lm-eval logs a model's arguments before it makes the model."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "ske_explicit" in record.getMessage():
            record.msg, record.args = masked(record.getMessage()), None
        return True
