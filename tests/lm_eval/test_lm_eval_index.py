"""lm-eval's task files are parsed once: the index is the same, and follows every change of the folder.

pytest -q tests/lm_eval/test_lm_eval_index.py
"""

from __future__ import annotations

import functools
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

    @functools.wraps(load)
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


CHANGES = ["edited", "same size", "same size and times", "new file", "deleted", "renamed", "included file"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_never_hidden(folder: Path, parsed: list[str], change: str) -> None:
    build(folder)
    one, group, times = (
        folder / "a" / "one.yaml",
        folder / "b" / "group.yaml",
        (folder / "a" / "one.yaml").stat(),
    )
    if change == "edited":
        one.write_text(FILES["a/one.yaml"] + "tag: other\n")
    elif change.startswith("same size"):
        one.write_text(FILES["a/one.yaml"].replace("task: one", "task: eno"))
        if change.endswith("times"):
            os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
            assert (one.stat().st_size, one.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    elif change == "new file":
        (folder / "b" / "three.yaml").write_text("task: three\n")
    elif change == "deleted":
        group.unlink()
    elif change == "renamed":
        group.rename(folder / "b" / "other.yaml")
    else:
        (folder / "common").write_text("metadata: {version: 2.0}\n")
    parsed.clear()
    found = build(folder)
    assert len(parsed) >= 3
    assert found == _index.TaskIndex.build([folder])


def test_a_file_that_includes_one_from_outside_is_always_parsed(folder: Path, parsed: list[str]) -> None:
    outside = folder.parent / "outside.yaml"
    outside.write_text("tag: before\n")
    (folder / "b" / "far.yaml").write_text(f"include: {outside}\ntask: far\n")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "b" / "link.yaml").write_text("include: ../linked/outside.yaml\ntask: link\n")
    assert build(folder)["far"].cfg["tag"] == "before"
    outside.write_text("tag: after!\n")
    parsed.clear()
    found = build(folder)
    assert [found[name].cfg["tag"] for name in ("far", "link")] == ["after!", "after!"]
    assert parsed == ["two.yaml", "broken.yaml", "far.yaml", "link.yaml"]


def test_it_has_a_switch_of_its_own(folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKE_LEARN_TASK_CACHE", "0")
    assert set(build(folder)) == set(build(folder)) == {"one", "two", "all", "x", "y"}
    assert sorted(parsed) == sorted(2 * ["one.yaml", "two.yaml", "group.yaml", "broken.yaml"])
    assert not (folder.parent / "cache").exists()


def test_a_loader_of_another_shape_is_left_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = _index.load_yaml
    other = lambda path, *, resolve_func, recursive: load(path, resolve_func=resolve_func)  # noqa: E731
    monkeypatch.setattr(_index, "load_yaml", other)
    assert set(build(folder)) == {"one", "two", "all", "x", "y"}
    assert not (tmp_path / "cache").exists()


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
