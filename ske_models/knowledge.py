"""What each step wrote: the store (SQLite) that makes a run resumable, and knowledge as JSONL to edit.

    python -m ske_models.knowledge STORE > knowledge.jsonl           # export; edit it by hand, then
    lm_eval --model ske_explicit --model_args knowledge=knowledge.jsonl,...   # run with the edited text

A finished step is written at once, under a key of all that determines it. The store itself belongs to
one model (its `owner`); a run with another model is refused. Several processes may write to one store.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.lineage import digest

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS steps (
    key TEXT PRIMARY KEY,       -- 128 bits of the SHA-256 of step, rendered prompt and sampling settings
    step TEXT NOT NULL,         -- "knowledge" or "answer"
    prompts TEXT NOT NULL,      -- hash of the prompt set
    question TEXT NOT NULL,     -- as the knowledge step was shown it
    text TEXT NOT NULL,         -- what the model wrote
    written INTEGER NOT NULL    -- how often it was generated: 1, unless two processes did it at once
);  -- with rowids: texts are appended, and only the keys' index is written at random places
"""

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def step_key(step: str, prompt: Any, settings: Mapping[str, Any]) -> str:
    """The key of one generation. `prompt`: the rendered prompt (text, or anything JSON can hold)."""
    return hashlib.sha256(_encode([step, prompt, settings]).encode()).hexdigest()[:32]


def cache_folder() -> Path:
    """Where stores go by default: $XDG_CACHE_HOME/ske-learn, else ~/.cache/ske-learn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ske-learn"


class Store:
    """The steps that one model has finished. `path=None`: in memory, for this process only.

    owner: what the texts come from (backend, model, revision, dtype, ...), JSON-able.
    Raises UserError if the file cannot be written, is no store, or belongs to another owner.
    """

    def __init__(self, path: Path | None, owner: Mapping[str, Any]) -> None:
        self.path = path
        self.owner = dict(owner)
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: every finished step is on disk when `put` returns
            self._db = sqlite3.connect(path or ":memory:", timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            # The keys fall on random pages of their index: with SQLite's small defaults (2 MB, 1,000 pages) a
            # store of 100,000 questions reads and writes each of them again and again.
            self._db.execute("PRAGMA cache_size=-16000")  # KB
            self._db.execute("PRAGMA wal_autocheckpoint=10000")  # pages of 4 KB
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"store={path}: cannot be used: {error}; give another store=PATH") from error
        self._claim()

    def _claim(self) -> None:
        mine = json.dumps(self.owner, sort_keys=True)
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('owner', ?)", (mine,))
        theirs = json.loads(self._db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()[0])
        if theirs != json.loads(mine):
            raise UserError(
                f"store={self.path}: belongs to another run: {difference(theirs, self.owner)}; "
                "give another store=PATH"
            )

    def get(self, key: str) -> str | None:
        row = self._db.execute("SELECT text FROM steps WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: str, step: str, prompts: str, question: str, text: str) -> None:
        self._db.execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?, ?, 1) "
            "ON CONFLICT(key) DO UPDATE SET written = written + 1",
            (key, step, prompts, question, text),
        )


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The first few differing entries, as `name: theirs, not mine`."""
    differing = [name for name in sorted({*theirs, *mine}) if theirs.get(name) != mine.get(name)]
    return "; ".join(f"{name} is {theirs.get(name)!r}, not {mine.get(name)!r}" for name in differing[:3])


def export(path: Path, prompts: str | None = None) -> Iterator[dict[str, str]]:
    """The knowledge in a store, a record a question, in the order of the questions' text.

    prompts: the hash of the prompt set whose knowledge is wanted; needed if the store has several.
    Records: {"question", "knowledge", "sha" (digest of the knowledge as written), "prompts", "model"}.
    Raises UserError if there is no store at `path`, or it has several prompt sets and none was chosen.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such store")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        owner = db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()[0]
        sets = [row[0] for row in db.execute("SELECT DISTINCT prompts FROM steps WHERE step = 'knowledge'")]
    except (sqlite3.Error, TypeError) as error:
        raise UserError(f"{path}: not a store of ske-learn ({error})") from error
    if prompts is None and len(sets) > 1:
        raise UserError(f"{path}: holds knowledge of several prompt sets; choose --prompts {'|'.join(sets)}")
    rows = db.execute(
        "SELECT question, text, prompts FROM steps WHERE step = 'knowledge' AND prompts = ? "
        "ORDER BY question, key",
        (prompts or "".join(sets),),
    )
    for question, text, written_with in rows:
        yield {
            "question": question,
            "knowledge": text,
            "sha": digest(text),
            "prompts": written_with,
            "model": digest(json.loads(owner)),
        }


@dataclass(frozen=True)
class Given:
    """Knowledge from a file. `edited`: its text is not the one that the model wrote."""

    text: str
    edited: bool


class KnowledgeFile:
    """Knowledge to run with, from JSONL lines as `export` writes them, edited or not.

    A line without `sha` is hand-written and counts as edited; one without `prompts` or `model` fits any.
    Raises UserError naming the line: not JSON, a field missing, one question with two texts, or written
    by another model or prompt set than the run's.
    """

    def __init__(self, path: Path, owner: Mapping[str, Any], prompts: str) -> None:
        self.path = path
        self._by_question: dict[str, Given] = {}
        run = {"model": digest(dict(owner)), "prompts": prompts}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"knowledge={path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(f"knowledge={path}, line {number}", line, run)
        if not self._by_question:
            raise UserError(f"knowledge={path}: empty; one JSON object a line is needed")

    def _add(self, where: str, line: str, run: Mapping[str, str]) -> None:
        try:
            record = json.loads(line)
            question, text = record["question"], record["knowledge"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f'{where}: broken ({error}); {{"question": ..., "knowledge": ...}} is needed'
            ) from error
        if not (isinstance(question, str) and isinstance(text, str)):
            raise UserError(f"{where}: `question` and `knowledge` must be text")
        for name, mine in run.items():
            if record.get(name, mine) != mine:
                raise UserError(
                    f"{where}: written by another run: {name} is {record[name]}, this run's is {mine}; "
                    f"remove `{name}` from the lines to use them all the same"
                )
        given = Given(text, edited=record.get("sha") != digest(text))
        if self._by_question.setdefault(question, given) != given:
            raise UserError(f"{where}: a second, different knowledge for the same question")

    def get(self, question: str) -> Given | None:
        return self._by_question.get(question)

    def check_used(self, questions: Iterable[str]) -> None:
        """Raises UserError if none of the run's questions is in the file."""
        if not any(question in self._by_question for question in questions):
            raise UserError(f"knowledge={self.path}: has none of this run's questions")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Export the knowledge in a store as JSONL, to stdout.")
    parser.add_argument(
        "store", type=Path, help="a store file (its path stands in the results: config.ske.store)"
    )
    parser.add_argument("--prompts", metavar="HASH", help="the prompt set, where the store has several")
    args = parser.parse_args()
    for record in export(args.store, args.prompts):
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
