"""The store and knowledge files: what they keep, and what they refuse and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ske_models.errors import UserError
from ske_models.fingerprint import digest, weights
from ske_models.knowledge import KnowledgeFile, export
from ske_models.store import Store

OWNER = {"backend": "hf", "pretrained": "a", "weights": "1"}


def test_a_store_of_another_model_is_refused_by_the_difference(tmp_path):
    Store(tmp_path / "s.sqlite", OWNER).put("1", "knowledge", "p", "q", "k")
    assert Store(tmp_path / "s.sqlite", OWNER).get("1") == "k"
    with pytest.raises(UserError, match="pretrained is 'a', not 'b'"):
        Store(tmp_path / "s.sqlite", OWNER | {"pretrained": "b"})


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "s.sqlite").write_text("no database " * 100)
    with pytest.raises(UserError, match="cannot be used"):
        Store(tmp_path / "s.sqlite", OWNER)
    with pytest.raises(UserError, match="not a store"):
        list(export(tmp_path / "s.sqlite"))


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(UserError, match="cannot be used"):
        Store(Path("/proc/ske/s.sqlite"), OWNER)


def test_export_is_a_command_and_asks_which_prompt_set(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    store.put("1", "knowledge", "p1", "q?", "k one")
    store.put("2", "answer", "p1", "q?", "a")
    command = [sys.executable, "-m", "ske_models.knowledge", str(store.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [json.loads(line)["knowledge"] for line in done.stdout.splitlines()] == ["k one"]
    store.put("3", "knowledge", "p2", "q?", "k two")
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "several prompt sets" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = subprocess.run([*command, "--prompts", "p2"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["knowledge"] == "k two"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: broken"),
        ('{"question": "q"}', "line 2: broken"),
        ('["q", "k"]', "line 2: broken"),
        ('{"question": "q", "knowledge": 3}', "line 2: `question` and `knowledge` must be text"),
        ('{"question": "q0", "knowledge": "other"}', "line 2: a second, different knowledge"),
        (
            '{"question": "q", "knowledge": "k", "prompts": "p2"}',
            "line 2: written by another run: prompts is p2",
        ),
        ('{"question": "q", "knowledge": "k", "model": "m2"}', "line 2: written by another run: model is m2"),
    ],
)
def test_a_faulty_line_is_named(tmp_path, line, message):
    file = tmp_path / "k.jsonl"
    file.write_text('{"question": "q0", "knowledge": "k"}\n' + line + "\n")
    with pytest.raises(UserError, match=message):
        KnowledgeFile(file, OWNER, "p1")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_knowledge_file_is_refused(tmp_path, content):
    (tmp_path / "k.jsonl").write_text(content)
    with pytest.raises(UserError, match="empty"):
        KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p1")


def test_a_missing_knowledge_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        KnowledgeFile(tmp_path / "none.jsonl", OWNER, "p1")


def test_a_line_counts_as_edited_when_its_text_is_not_what_was_exported(tmp_path):
    lines = [
        {"question": "as it was", "knowledge": "k", "sha": digest("k")},
        {"question": "edited", "knowledge": "k!", "sha": digest("k")},
        {"question": "by hand", "knowledge": "k"},
    ]
    (tmp_path / "k.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    file = KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p1")
    found = [file.get(line["question"]) for line in lines]
    assert [given is not None and given.edited for given in found] == [False, True, True]


def test_weights_that_were_replaced_are_told_apart(tmp_path):
    checkpoint = tmp_path / "model"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"one")
    before = weights(str(checkpoint))
    assert weights(str(checkpoint)) == before
    (checkpoint / "README.md").write_text("A card says something about a model, and is none.")
    assert weights(str(checkpoint)) == before
    (checkpoint / "model.safetensors").write_bytes(b"two!")
    assert weights(str(checkpoint)) != before
    with pytest.raises(UserError, match="no such folder"):
        weights(str(tmp_path / "gone"))
