"""Rows are prepared once per state of the data and of the code, whatever happens to the cache.

pytest -q tests/tasks/test_prepared.py
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets.config
import pytest
from datasets import Dataset, DatasetDict, Features, Value

from ske_tasks.six import prepared

NOBODY = "http://127.0.0.1:9"
LINE = Features(line=Value("string"))


class Made:
    """Makes a dataset, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> DatasetDict:
        self.times += 1
        lines = {"test": ["a", "b"], "shots": []}
        return DatasetDict({split: Dataset.from_dict({"line": of}, LINE) for split, of in lines.items()})

    def lines(self) -> dict[str, list[str]]:
        found = prepared.kept("arc", ["org/one", "org/two"], self)
        return {split: list(rows["line"]) for split, rows in found.items()}


WHOLE = {"test": ["a", "b"], "shots": []}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datasets' cache with both repositories, without a hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", NOBODY)
    for name in ("one", "two"):
        (tmp_path / f"org___{name}" / "default" / "0.0.0" / "commit1").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def commits(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A hub that names these commits."""
    known = {"one": "1" * 40, "two": "2" * 40}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            info = {"id": f"org/{name}", "sha": known[name], "private": False, "downloads": 0, "likes": 0}
            body = json.dumps(info | {"tags": [], "siblings": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


def test_rows_are_made_once_and_again_for_a_new_commit(commits: dict[str, str]) -> None:
    made = Made()
    assert made.lines() == made.lines() == WHOLE
    assert made.times == 1
    commits["two"] = "3" * 40
    assert made.lines() == WHOLE
    assert made.times == 2
    commits["two"] = "2" * 40  # the hub went back: what it had then is still here
    assert made.lines() == WHOLE
    assert made.times == 2


def test_without_a_hub_the_datasets_cache_tells(cache: Path) -> None:
    made = Made()
    assert made.lines() == made.lines() == WHOLE
    assert made.times == 1
    (cache / "org___two" / "default" / "0.0.0" / "commit2").mkdir()
    assert made.lines() == WHOLE
    assert made.times == 2


def test_nothing_is_kept_of_data_that_is_not_known(cache: Path) -> None:
    (cache / "org___two" / "default" / "0.0.0" / "commit1").rmdir()
    made = Made()
    assert made.lines() == made.lines() == WHOLE
    assert made.times == 2
    assert not (cache / "ske_learn").exists()


def test_other_code_makes_other_rows(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    made.lines()
    code = prepared._code()
    assert any("def make_row" in text for text in code)
    assert any("def plain" in text for text in code)
    monkeypatch.setattr(prepared, "_code", lambda: [*code, "# a change"])
    made.lines()
    assert made.times == 2


def test_a_broken_cache_is_written_again(cache: Path) -> None:
    made = Made()
    made.lines()
    [folder] = (cache / "ske_learn").iterdir()
    [file] = (folder / "test").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:40])
    assert made.lines() == made.lines() == WHOLE
    assert made.times == 2


def test_a_cache_that_cannot_be_written_costs_only_time(cache: Path) -> None:
    (cache / "ske_learn").write_text("no folder")
    made = Made()
    assert made.lines() == made.lines() == WHOLE
    assert made.times == 2
