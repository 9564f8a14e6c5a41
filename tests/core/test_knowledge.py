"""The store and knowledge files: what they keep, and what they refuse and in which words."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ske_models.errors import UserError
from ske_models.fingerprint import digest
from ske_models.knowledge import Given, KnowledgeFile, export
from ske_models.store import Store, step_key

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


def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as db:
        db.execute("CREATE TABLE visits (url TEXT)")
    with pytest.raises(UserError, match="a database of another program; give another store=PATH"):
        Store(tmp_path / "s.sqlite", OWNER)
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("visits",)]


def test_a_store_of_release_0_1_is_refused_in_one_line_and_can_be_exported(tmp_path):
    path = tmp_path / "s.sqlite"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(  # that release's schema, commit 2153095
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "CREATE TABLE steps (key TEXT PRIMARY KEY, step TEXT NOT NULL, prompts TEXT NOT NULL,"
            " question TEXT NOT NULL, text TEXT NOT NULL, written INTEGER NOT NULL);"
        )
        db.execute("INSERT INTO meta VALUES ('owner', ?)", (json.dumps(OWNER),))
        db.execute("INSERT INTO steps VALUES ('1', 'knowledge', 'p', 'q?', 'k', 1)")
    with pytest.raises(UserError, match=r"made by ske-learn 0\.1.*give another store=PATH") as error:
        Store(path, OWNER)
    assert "\n" not in str(error.value)
    assert [record["knowledge"] for record in export(path)] == ["k"]


STEPS_BEFORE = "key TEXT PRIMARY KEY, step TEXT NOT NULL, prompts TEXT NOT NULL, question TEXT NOT NULL,"
STEPS_BEFORE += " text TEXT NOT NULL, written INTEGER NOT NULL"  # a store's columns before 2026-11-26


def open_each(paths, begin, refused):
    """A process of the next test: it opens every store at the moment at which the others do."""
    errors = []
    for path in paths:
        begin.wait(60)
        try:
            Store(path, OWNER).put("1", "knowledge", "p", "q", "k")
        except UserError as error:
            errors.append(str(error))
    refused.put(errors)


def test_several_processes_may_open_one_store_at_the_same_moment(tmp_path):
    """As `accelerate launch` makes its processes: new stores, and those that lack columns."""
    new = [tmp_path / f"new{n}.sqlite" for n in range(30)]
    old = [tmp_path / f"old{n}.sqlite" for n in range(20)]
    for path in old:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            db.execute(f"CREATE TABLE steps ({STEPS_BEFORE})")
    spawn = multiprocessing.get_context("spawn")
    begin, refused = spawn.Barrier(4), spawn.Queue()
    processes = [spawn.Process(target=open_each, args=(new + old, begin, refused)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [refused.get(timeout=60) for _ in processes] == [[]] * 4
    for process in processes:
        process.join()
    for path in new + old:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("SELECT written, tokens, truncated, looped FROM steps").fetchall() == [
                (4, None, None, None)
            ]


def test_a_store_is_opened_while_another_run_writes_at_length(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "TIMEOUT", 0.1)
    Store(tmp_path / "s.sqlite", OWNER).put("1", "knowledge", "p", "q", "k")
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert Store(tmp_path / "s.sqlite", OWNER).get("1") == "k"


def test_a_new_store_that_is_held_is_one_line_after_the_time(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "TIMEOUT", 0.1)
    Store(tmp_path / "s.sqlite", OWNER)._db.execute("PRAGMA journal_mode=DELETE")
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM meta").fetchall()  # whoever only reads keeps SQLite from its log, too
        with pytest.raises(UserError, match="cannot be used: another process has held it for 0 s"):
            Store(tmp_path / "s.sqlite", OWNER)


def test_a_locked_store_is_one_line_at_the_start_and_in_mid_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "TIMEOUT", 0.1)
    store = Store(tmp_path / "s.sqlite", OWNER)
    store.put("1", "knowledge", "p", "q", "k")
    with closing(sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        message = "another process has held it for 0 s; wait for that run, or give another store=PATH"
        with pytest.raises(UserError, match=message):
            store.put("2", "knowledge", "p", "q", "k")
        other.execute("COMMIT")
    store.put("2", "knowledge", "p", "q", "k")


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    store.put("1", "knowledge", "p", "q", "k")
    store._db.execute("PRAGMA max_page_count = 8")
    with pytest.raises(UserError, match="disk is full: make room, and give the same command again"):
        store.put("2", "knowledge", "p", "q", "k" * 100_000)
    assert Store(tmp_path / "s.sqlite", OWNER).get("1") == "k"


def test_a_damaged_store_is_one_line(tmp_path):
    path = tmp_path / "s.sqlite"
    store = Store(path, OWNER)
    for i in range(2000):
        store.put(str(i), "knowledge", "p", "q", "k" * 100)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store._db.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"store=.*(damaged|malformed)"):
        Store(path, OWNER).put("x", "knowledge", "p", "q", "k")
    with pytest.raises(UserError, match="not a store of ske-learn, or damaged"):
        list(export(path))


def test_half_a_surrogate_pair_ends_no_run(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    key = step_key("knowledge", "q \ud83d", {})
    store.put(key, "knowledge", "p", "q \ud83d", "k \ude00")
    assert store.get(key) == "k \ufffd"


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(UserError, match="cannot be used"):
        Store(Path("/proc/ske/s.sqlite"), OWNER)


def test_what_is_exported_is_imported_whatever_characters_it_has(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    text = "one\u2028two\u0085three\u2029four\x0cfive\r\nsix \U0001f600"
    store.put("1", "knowledge", "p", f"q? {text}", text)
    store.put("2", "knowledge", "p", "thoughtful?", "<think>The answer is (A).</think>\n\nWater is wet.")
    done = subprocess.run(
        [sys.executable, "-m", "ske_models.knowledge", str(store.path)], capture_output=True, check=True
    )
    for start in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "k.jsonl").write_bytes(start + done.stdout)
        file = KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p")
        assert file.get(f"q? {text}") == Given(text, edited=False)
        assert file.get("thoughtful?") == Given("Water is wet.", edited=False)


@pytest.mark.parametrize("name", ["knowledge_u2028.jsonl", "knowledge_bom.jsonl"])
def test_files_that_editors_and_models_make(shared_dir, tmp_path, name):
    text = (shared_dir / "cases" / name).read_text(encoding="utf-8-sig")
    records = [json.loads(line) for line in text.split("\n") if line]
    unbound = [{key: record[key] for key in ("question", "knowledge", "sha")} for record in records]
    (tmp_path / name).write_text(
        "\ufeff" + "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in unbound)
    )
    file = KnowledgeFile(tmp_path / name, OWNER, "p1")
    found = [file.get(record["question"]) for record in records]
    assert [given and given.text for given in found] == [record["knowledge"] for record in records]
    with pytest.raises(UserError, match="line 1: written by another run"):
        KnowledgeFile(shared_dir / "cases" / name, OWNER, "p1")


def test_whoever_has_read_enough_of_an_export_hears_nothing(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    for i in range(3000):
        store.put(str(i), "knowledge", "p", f"q{i}?", "k" * 200)
    command = f"{sys.executable} -m ske_models.knowledge {store.path} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["knowledge"] == "k" * 200
    assert done.stderr == ""


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


def test_of_several_texts_of_a_question_the_last_is_exported_and_it_is_said(tmp_path, caplog):
    """As one store has them that was run with two limits; the file can be read back."""
    path = tmp_path / "s.sqlite"
    store = Store(path, OWNER)
    for key, question, text in [
        ("2", "q?", "long"),
        ("1", "q?", "short"),
        ("3", "r?", "k"),
        ("4", "r?", "k"),
    ]:
        store.put(key, "knowledge", "p", question, text)
    records = list(export(path))
    assert [(record["question"], record["knowledge"]) for record in records] == [("q?", "short"), ("r?", "k")]
    assert f"{path}: of 1 questions with several texts" in caplog.text
    (tmp_path / "k.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p").get("q?") == Given("short", edited=False)


def test_a_file_must_have_a_question_of_the_first_call_and_need_not_of_the_next(tmp_path):
    (tmp_path / "k.jsonl").write_text('{"question": "q?", "knowledge": "k"}\n')
    with pytest.raises(UserError, match="has none of this run's questions"):
        KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p").check_used(["another?"])
    given = KnowledgeFile(tmp_path / "k.jsonl", OWNER, "p")
    given.check_used(["q?"])
    given.check_used(["of another task?"])
