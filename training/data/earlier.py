"""What the release before this one left in a run's folder, in the words of this one.

from training.data.earlier import renamed
renamed(folder)      # round1/kept.jsonl is round1/selected.jsonl then, edited or not; M0.json is there

So a run that was begun with it continues. To be deleted with the next release but one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ske_models.files import read_json, write_json
from training.run_folder import RunFolder, origin_of

COUNTS = {"kept": "selected", "questions_kept": "questions_selected"}  # of the stage `select`


def renamed(folder: RunFolder) -> None:
    """Renames what the stage `select` wrote, and the keys of the records that say so."""
    for n in range(1, folder.rounds + 1):
        here = folder.round(n)
        old, new = here / "kept.jsonl", here / "selected.jsonl"
        if not old.is_file() or new.exists():
            continue
        # the file last: a killed command does it all again
        _rewrite(here / "select.json", _of_select)
        _rewrite(here / "mix.json", lambda record, n=n: _of_mix(record, n))
        old.replace(new)
    recipe = folder.path / "recipe.json"
    if recipe.is_file() and isinstance(before := read_json(recipe), dict):
        _rewrite(folder.round(0) / "base.json", lambda record: _of_base(record, before.get("seed")))
        model, there = before.get("model"), (folder.checkpoint(0) / "config.json").is_file()
        if there and isinstance(model, dict) and not folder.origin.exists():
            write_json(folder.origin, origin_of(model))


def _rewrite(file: Path, change: Any) -> None:
    if file.is_file() and isinstance(record := read_json(file), dict):
        new = change(record)
        if new != record:
            write_json(file, new)


def _of_select(record: dict[str, Any]) -> dict[str, Any]:
    counts = {COUNTS.get(name, name): value for name, value in record.get("counts", {}).items()}
    if isinstance(truth := counts.get("truth"), dict):
        counts["truth"] = {COUNTS.get(name, name): value for name, value in truth.items()}
    return record | {"counts": counts}


def _of_base(record: dict[str, Any], seed: Any) -> dict[str, Any]:
    """Its settings had no seed; the recipe that the run was done with has it."""
    settings = record.get("settings")
    return record | {"settings": {"seed": seed} | settings} if isinstance(settings, dict) else record


def _of_mix(record: dict[str, Any], n: int) -> dict[str, Any]:
    was, now = f"round{n}/kept.jsonl", f"round{n}/selected.jsonl"
    inputs = {now if name == was else name: value for name, value in record.get("inputs", {}).items()}
    return record | {"inputs": inputs}
