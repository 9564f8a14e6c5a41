"""Data files that a recipe names: every kind that is read, what is refused, and passages in linear time."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ske_models.errors import UserError
from training.data.passages import cut, shuffled
from training.data.sources import chats, rows

ROWS = [{"question": f"Why {i}?\u2028 Ä", "n": i} for i in range(3)]
QUESTIONS = [row["question"] for row in ROWS]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", LINES.encode()),
        ("q.JSONL", LINES.encode()),
        ("q.jsonl", LINES.replace("\n", "\r\n").encode("utf-8-sig")),
        ("q.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("q.json", json.dumps(ROWS, indent=1).encode("utf-8-sig")),
        ("q.Json.Gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("q.json", LINES.encode()),  # lines by another name
    ],
)
def test_json_files_of_every_kind(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert list(rows(str(tmp_path / name), None, "train", "question", None)) == QUESTIONS
    assert list(rows(str(tmp_path / name), None, "train", "question", 2)) == QUESTIONS[:2]


@pytest.mark.parametrize("name", ["q.parquet", "q.PARQUET"])
def test_parquet(tmp_path, name):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / name)
    assert list(rows(str(tmp_path / name), None, "train", "question", None)) == QUESTIONS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.json", b"{}", "a list of JSON objects is needed"),
        ("q.json", b"[1]", "a list of JSON objects is needed"),
        ("q.json", b"", "empty; give a dataset with rows in it"),
        ("q.json", b"[" * 100_000, "cannot be read"),
        ("q.jsonl", b"{}\n[]\n", "line 2: a JSON object is needed, not list"),
        ("q.jsonl", b'{"n": 1}\n', "no column 'question' (found n); set `column`"),
        ("q.jsonl", b'{"question": "a"}\n{"n": 1}\n', "1 of 2 rows have no 'question'"),
        ("q.jsonl", b'{"question": ' + b"9" * 5_000 + b"}", "line 1: not JSON"),
        ("q.jsonl.gz", b"no gzip", "cannot be read"),
        ("q.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "cannot be read"),
        ("q.jsonl", b"\xff\xfe", "cannot be read"),
        ("q.parquet", b"PAR", "cannot be read"),
        ("q.csv", b"question\nWhy?", "no file that can be read; give one of: .jsonl"),
        ("~nosuchuser/q.jsonl", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, name, content, said):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(UserError) as error:
        rows(name, None, "train", "question", None)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_parts_of_a_turn_are_joined(tmp_path):
    def turn(role: str, *texts: str) -> dict:
        return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}

    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    talks = [
        [turn("user", "How ", "many?"), {"role": "assistant", "content": "Two."}],
        [{"role": "user", "content": "a"}, turn("assistant", "b", "", "c")],
        [image, turn("assistant", "A cat.")],
    ]
    (tmp_path / "chats.json").write_text(json.dumps([{"messages": talk} for talk in talks]))
    kept, dropped = chats(str(tmp_path / "chats.json"), None, "train", "messages", None)
    assert kept == [
        [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Two."}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}],
    ]
    assert dropped == {"a turn with something else than text": 1}


def test_the_files_of_others(shared_dir):
    """A BOM and CRLF; content parts."""
    found = rows(str(shared_dir / "cases" / "questions_bom.jsonl"), None, "train", "question", None)
    assert found
    assert not any("\ufeff" in text or "\r" in text for text in found)
    kept, dropped = chats(str(shared_dir / "cases" / "chats_parts.jsonl"), None, "train", "messages", None)
    assert [turn["content"] for turn in kept[0]] == ["hi", "yo"]
    assert not dropped


def test_passages_take_linear_time():
    """Three texts of 100 kB took 54 s."""
    kinds = ["word. " * 17_000, "a" * 100_000, "A sentence is here. And one.\n" * 3_600, "\n" * 100_000]
    started = time.perf_counter()
    passages = list(shuffled(kinds, 120, "seed"))
    assert time.perf_counter() - started < 5
    assert len(passages) > 2_000
    assert sorted(passages) == sorted(passage for text in kinds for passage in cut(text, 120))
