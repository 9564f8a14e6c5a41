"""The parts of a stage's work: in order, kept after a stop, made in the right thread."""

from __future__ import annotations

import threading

import pytest

from ske_models.files import read_jsonl
from training.data.windows import delete_parts, in_windows

WINDOWS = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_come_in_the_order_of_their_windows(tmp_path, workers):
    path = tmp_path / "rows.jsonl"
    rows = in_windows(path, "key", WINDOWS, lambda _, index, text: [{"index": index, "text": text}], workers)
    assert rows == [{"index": index, "text": text} for index, text in enumerate(WINDOWS)] == read_jsonl(path)
    delete_parts(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_windows_that_are_there_are_not_made_again(tmp_path):
    made: list[str] = []

    def work(_: int, index: int, text: str) -> list[dict[str, str]]:
        made.append(text)
        return [{"text": text}]

    def killed_at_d(worker: int, index: int, text: str) -> list[dict[str, str]]:
        if text == "d":
            raise KeyboardInterrupt
        return work(worker, index, text)

    path = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        in_windows(path, "key", WINDOWS, killed_at_d)
    assert not path.exists()
    assert in_windows(path, "key", WINDOWS, work) == [{"text": text} for text in WINDOWS]
    assert made == WINDOWS
    in_windows(path, "other", WINDOWS, work)
    assert made == WINDOWS * 2, "parts that were made from something else are not used"


def test_one_worker_works_in_the_thread_that_loaded_its_engine(tmp_path):
    threads = in_windows(
        tmp_path / "rows.jsonl", "key", WINDOWS, lambda *_: [{"thread": threading.current_thread().name}]
    )
    assert {row["thread"] for row in threads} == {threading.current_thread().name}
