"""What each step wrote: a SQLite file that makes a run resumable.

    lm_eval --model ske_explicit --model_args store=my.sqlite,...

A finished step is written at once, under a key of all that determines it. The store itself belongs to
one model (its `fingerprint`) from its first use on; a run with another model is refused. Several processes
may write to one store.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import encodable
from ske_models.fingerprint import digest
from ske_models.records import Completion

TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """
CREATE TABLE steps (
    key TEXT PRIMARY KEY,       -- 128 bits of the SHA-256 of step, rendered prompt and sampling settings
    step TEXT NOT NULL,         -- "knowledge" or "answer"
    prompts TEXT NOT NULL,      -- hash of the prompt set
    question TEXT NOT NULL,     -- as the knowledge step was shown it
    text TEXT NOT NULL,         -- what the model wrote
    written INTEGER NOT NULL,   -- how often it was generated: 1, unless two processes did it at once
    tokens INTEGER,             -- how many the engine says that it has, and whether it reached its limit;
    truncated INTEGER,          -- NULL where it does not say: then the tokenizer counts
    looped INTEGER              -- 1: `stop_loops` has ended it
)  -- with rowids: texts are appended, and only the keys' index is written at random places
""",
)
SAID = ("tokens", "truncated", "looped")  # columns that a store made before 2026-11-26 lacks

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def step_key(step: str, prompt: Any, settings: Mapping[str, Any]) -> str:
    """The key of one generation. `prompt`: the rendered prompt (text, or anything JSON can hold)."""
    # half of a surrogate pair, which JSON can hold, is as good as any other character of a key
    return hashlib.sha256(_encode([step, prompt, settings]).encode(errors="surrogatepass")).hexdigest()[:32]


class Store:
    """The steps that one model has finished. `path=None`: in memory, for this process only.

    fingerprint: what the texts come from (ske_models/fingerprint.py), JSON-able.
    Raises UserError, then and at every use, if the file cannot be read or written, is no store, or belongs to
    another fingerprint: one line that says what to do.
    """

    TIMEOUT = 60.0  # seconds to wait for another process that is writing

    def __init__(self, path: Path | None, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(dict(fingerprint)))
        self.model = digest(self.fingerprint)  # as results and knowledge files name it
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: every finished step is on disk when `put` returns
            self._db = sqlite3.connect(path or ":memory:", timeout=self.TIMEOUT, isolation_level=None)
            self._make_tables()
            self._write_ahead()
            self._db.execute("PRAGMA synchronous=NORMAL")
            # The keys fall on random pages of their index: with SQLite's small defaults (2 MB, 1,000 pages) a
            # store of 100,000 questions reads and writes each of them again and again.
            self._db.execute("PRAGMA cache_size=-16000")  # KB
            self._db.execute("PRAGMA wal_autocheckpoint=10000")  # pages of 4 KB
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"store={path}: cannot be used: {_reason(error)}") from error
        self._claimed = self._is_mine()

    def _make_tables(self) -> None:
        """Makes what is missing, at once: all processes of a run open their store at the same moment."""
        if self._missing():  # else nothing is written: another run may be writing at length
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                for statement in self._missing():  # by now: another process may have been first
                    self._db.execute(statement)

    def _write_ahead(self) -> None:
        """Texts go to a log beside the file. With this statement SQLite itself waits for no other process."""
        until = time.monotonic() + self.TIMEOUT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(0.01)

    def _missing(self) -> list[str]:
        """The statements that make the file a store of this release; none where it is one.

        Raises UserError if the file is another program's database, or was made by an earlier release.
        """
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"meta", "steps"} <= tables:
            raise UserError(f"store={self.path}: a database of another program; give another store=PATH")
        if tables and self._db.execute("SELECT 1 FROM meta WHERE name = 'owner'").fetchone():
            raise UserError(
                f"store={self.path}: made by ske-learn 0.1, which told models apart by the times of their "
                "files; give another store=PATH (python -m ske_models.knowledge exports its knowledge)"
            )
        if not tables:
            return list(TABLES)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(steps)")}
        return [f"ALTER TABLE steps ADD COLUMN {name} INTEGER" for name in SAID if name not in columns]

    def _is_mine(self) -> bool:
        """False where the store is nobody's yet. Raises UserError if it is another model's."""
        row = self._row("SELECT value FROM meta WHERE name = 'fingerprint'")
        try:
            theirs = self.fingerprint if row is None else json.loads(row[0])
        except json.JSONDecodeError as error:
            raise UserError(f"store={self.path}: is damaged ({error}); give another store=PATH") from error
        if theirs != self.fingerprint:
            raise UserError(
                f"store={self.path}: belongs to another run: {difference(theirs, self.fingerprint)}; "
                "give that run's arguments to continue it, or another store=PATH"
            )
        return row is not None

    def _claim(self) -> None:
        """At the first use, which is after the model is loaded: a run that cannot load it claims no store."""
        if not self._claimed:
            mine = json.dumps(self.fingerprint, sort_keys=True)
            self._row("INSERT OR IGNORE INTO meta VALUES ('fingerprint', ?)", mine)
            self._claimed = self._is_mine()

    def get(self, key: str) -> Completion | None:
        """The text of a key, with what the engine has said of its length; None if there is none."""
        self._claim()
        row = self._row("SELECT text, tokens, truncated, looped FROM steps WHERE key = ?", key)
        if row is None:
            return None
        text, tokens, truncated, looped = row
        known = Completion(text)
        known.tokens, known.truncated = tokens, None if truncated is None else bool(truncated)
        known.looped = bool(looped)
        return known

    def put(self, key: str, step: str, prompts: str, question: str, text: str) -> None:
        """Writes a finished text, with what a `Completion` says of it. It is on disk when this returns."""
        self._claim()
        said = (text.tokens, text.truncated, text.looped) if isinstance(text, Completion) else (None,) * 3
        self._row(
            "INSERT INTO steps (key, step, prompts, question, text, written, tokens, truncated, looped) "
            "VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET written = written + 1",
            key,
            step,
            prompts,
            _apart(encodable(question)),
            encodable(text),
            *said,
        )

    def _row(self, sql: str, *values: str | int | None) -> Any:
        """The first row of a statement. Raises UserError where the file fails in mid-run."""
        try:
            return self._db.execute(sql, values).fetchone()
        except sqlite3.Error as error:
            raise UserError(f"store={self.path}: {_reason(error)}") from error


def _apart(text: str) -> str:
    """A copy of a text that is not ASCII: sqlite3 leaves its UTF-8 form in it, and the harness keeps ours."""
    return text if text.isascii() else text.encode().decode()


def _reason(error: Exception) -> str:
    """What has happened to the file, and what to do."""
    said = str(error)
    if "locked" in said:
        waited = f"another process has held it for {Store.TIMEOUT:.0f} s"
        return f"{waited}; wait for that run, or give another store=PATH"
    if "full" in said or "disk I/O" in said:
        return f"{said}: make room, and give the same command again: what was written is kept"
    if "malformed" in said or "not a database" in said or "corrupt" in said:
        return f"{said}: it is damaged or no store; move it away, or give another store=PATH"
    return f"{said}; give another store=PATH"


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The first few differing entries, as `name: theirs, not mine`."""
    differing = [name for name in sorted({*theirs, *mine}) if theirs.get(name) != mine.get(name)]
    return "; ".join(f"{name} is {theirs.get(name)!r}, not {mine.get(name)!r}" for name in differing[:3])
