"""lm-eval's task files are parsed once: the index is the same, and follows every change of the folder.

They are run by `pytest -q tests/test_lm_eval_index.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import _index

from ske_models.plugin.task_index import remembered

FILES = {
    "a/one.yaml": "include: ../common\ntask: one\ndoc_to_text: !function utils.text\ntag: [x, y]\n",
    "a/two.yaml": "include: ../common\ntask: two\nnumbers: {1: one}\nday: 2026-01-02\n",
    "b/group.yaml": "group: all\ntask: [one, two]\n",
    "b/broken.yaml": "task: [\n",
    "common": "metadata: {version: 1.0}\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, text in FILES.items():
        file = tmp_path / "tasks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "tasks"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were parsed, includes aside."""
    names: list[str] = []
    load = _index.load_yaml

    def counting(path: Path, **how: Any) -> dict[str, Any]:
        names.append(path.name)
        return load(path, **how)

    monkeypatch.setattr(_index, "load_yaml", counting)
    return names


def build(folder: Path, *others: Path) -> dict[str, Any]:
    with remembered(_index, folder):
        return _index.TaskIndex.build([folder, *others])


def test_second_start_parses_only_what_a_cache_cannot_hold(folder: Path, parsed: list[str]) -> None:
    stock = _index.TaskIndex.build([folder])
    assert set(stock) == {"one", "two", "all", "x", "y"}
    assert stock["one"].cfg["metadata"] == {"version": 1.0}
    assert build(folder) == stock
    parsed.clear()
    [cache] = (folder.parent / "cache").rglob("*.json")
    written = cache.stat().st_mtime_ns
    assert build(folder) == stock
    # a number as a key and a date are nothing that JSON knows; what is broken is tried again
    assert parsed == ["two.yaml", "broken.yaml"]
    assert cache.stat().st_mtime_ns == written


def test_other_folders_are_always_parsed(folder: Path, tmp_path: Path, parsed: list[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my.yaml").write_text("task: mine\n")
    build(folder, mine)
    parsed.clear()
    (mine / "my.yaml").write_text("task: mine\ntag: new\n")
    assert build(folder, mine)["mine"].cfg["tag"] == "new"
    assert "my.yaml" in parsed


@pytest.mark.parametrize("change", ["included file", "same size", "new file", "gone"])
def test_a_change_has_all_parsed_again(folder: Path, parsed: list[str], change: str) -> None:
    build(folder)
    if change == "included file":
        (folder / "common").write_text("metadata: {version: 2.0, more: 1}\n")
    elif change == "same size":
        (folder / "common").write_text("metadata: {version: 7.0}\n")
        os.utime(folder / "common", ns=(1, 1))
    elif change == "new file":
        (folder / "b" / "three.yaml").write_text("task: three\n")
    else:
        (folder / "b" / "group.yaml").unlink()
    parsed.clear()
    found = build(folder)
    assert len(parsed) >= 3
    assert found == _index.TaskIndex.build([folder])


def test_what_a_used_task_leaves_behind_changes_nothing(folder: Path, parsed: list[str]) -> None:
    build(folder)
    (folder / "a" / "__pycache__").mkdir()
    (folder / "a" / "__pycache__" / "utils.cpython-311.pyc").write_bytes(b"code")
    parsed.clear()
    build(folder)
    assert parsed == ["two.yaml", "broken.yaml"]


def test_broken_cache_is_made_anew(folder: Path, tmp_path: Path, parsed: list[str]) -> None:
    stock = build(folder)
    [cache] = (tmp_path / "cache").rglob("*.json")
    cache.write_text(cache.read_text()[:-20])
    assert build(folder) == stock
    parsed.clear()
    assert build(folder) == stock
    assert parsed == ["two.yaml", "broken.yaml"]


def test_without_room_for_a_cache_it_parses(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level("INFO"):
        assert set(build(folder)) == {"one", "two", "all", "x", "y"}
    assert "cannot be written" in caplog.text
