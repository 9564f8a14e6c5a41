"""A run's folder of the last release continues: what was selected had another name in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic_run
from small_runs import command, records, texts

from ske_models.files import read_json, write_json
from training.data import earlier
from training.reporting import report
from training.run_folder import RunFolder


def older(folder: RunFolder) -> None:
    """Renames what the last release (commit 2153095) called otherwise."""
    for n in range(1, folder.rounds + 1):
        here = folder.round(n)
        if not (here / "selected.jsonl").is_file():
            continue
        (here / "selected.jsonl").rename(here / "kept.jsonl")
        change(here / "select.json", {"selected": "kept", "questions_selected": "questions_kept"})
        change(here / "mix.json", {f"round{n}/selected.jsonl": f"round{n}/kept.jsonl"})


def change(file: Path, names: dict[str, str]) -> None:
    """The record with other keys, and with the time that it had."""

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {names.get(key, key): renamed(entry) for key, entry in value.items()}
        return value

    write_json(file, renamed(read_json(file)))


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {str(f.relative_to(folder.path)): f.read_bytes() for f in folder.path.rglob("*") if f.is_file()}


def test_it_is_renamed_once_and_the_report_is_the_same(tmp_path):
    folder = synthetic_run.make(tmp_path, rounds_done=2)
    before = contents(folder)
    older(folder)
    assert contents(folder) != before
    earlier.renamed(folder)
    assert contents(folder) == before
    earlier.renamed(folder)
    assert contents(folder) == before
    assert report.run(folder)["checkpoints"] == [0, 1, 2]


def test_what_this_release_wrote_is_not_replaced(tmp_path):
    folder = synthetic_run.make(tmp_path, rounds_done=1)
    (folder.round(1) / "kept.jsonl").write_text("mine", encoding="utf-8")
    before = contents(folder)
    earlier.renamed(folder)
    assert contents(folder) == before


@pytest.mark.slow
def test_the_command_does_nothing_again(small_run, tmp_path):
    folder = RunFolder.open(shutil.copytree(small_run.folder, tmp_path / "run", symlinks=True))
    older(folder)
    before = {
        name: at for name, at in records(folder.path).items() if Path(name).stem not in ("select", "mix")
    }
    done = command("--recipe", small_run.recipe, "--run", folder.path, "--until", "evaluate")
    assert done.returncode == 0, done.stderr
    assert before.items() <= records(folder.path).items()
    assert "..." not in done.stderr  # no stage was begun
    assert texts(folder.path) == texts(small_run.folder)
