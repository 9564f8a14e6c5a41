"""What each step wrote: a SQLite file that makes a run resumable.

    lm_eval --model ske_explicit --model_args store=my.sqlite,...

A finished step is written at once, under a key of all that determines it. The store itself belongs to
one model (its `fingerprint`); a run with another model is refused. Several processes may write to one store.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import encodable

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
    # half of a surrogate pair, which JSON can hold, is as good as any other character of a key
    return hashlib.sha256(_encode([step, prompt, settings]).encode(errors="surrogatepass")).hexdigest()[:32]


def cache_folder() -> Path:
    """Where stores go by default: $XDG_CACHE_HOME/ske-learn, else ~/.cache/ske-learn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ske-learn"


class Store:
    """The steps that one model has finished. `path=None`: in memory, for this process only.

    fingerprint: what the texts come from (backend, model, revision, dtype, ...), JSON-able.
    Raises UserError if the file cannot be written, is no store, or belongs to another fingerprint.
    """

    def __init__(self, path: Path | None, fingerprint: Mapping[str, Any]) -> None:
        self.path = path
        self.fingerprint = dict(fingerprint)
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
        self._claimed = self._is_mine()

    def _is_mine(self) -> bool:
        """False where the store is nobody's yet. Raises UserError if it is another model's."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()
        if row is not None and json.loads(row[0]) != json.loads(json.dumps(self.fingerprint)):
            raise UserError(
                f"store={self.path}: belongs to another run: "
                f"{difference(json.loads(row[0]), self.fingerprint)}; give another store=PATH"
            )
        return row is not None

    def _claim(self) -> None:
        """At the first use, which is after the model is loaded: a run that cannot load it claims no store."""
        if not self._claimed:
            mine = json.dumps(self.fingerprint, sort_keys=True)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('owner', ?)", (mine,))
            self._claimed = self._is_mine()

    def get(self, key: str) -> str | None:
        self._claim()
        row = self._db.execute("SELECT text FROM steps WHERE key = ?", (key,)).fetchone()
        return None if row is None else row[0]

    def put(self, key: str, step: str, prompts: str, question: str, text: str) -> None:
        self._claim()
        self._db.execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?, ?, 1) "
            "ON CONFLICT(key) DO UPDATE SET written = written + 1",
            (key, step, prompts, encodable(question), encodable(text)),
        )


def difference(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """The first few differing entries, as `name: theirs, not mine`."""
    differing = [name for name in sorted({*theirs, *mine}) if theirs.get(name) != mine.get(name)]
    return "; ".join(f"{name} is {theirs.get(name)!r}, not {mine.get(name)!r}" for name in differing[:3])
