"""The book of the paid judge: every call, what it cost and what was answered, in RUN/judge.sqlite.

    sqlite3 runs/paper/judge.sqlite "SELECT stage, SUM(input), SUM(output) FROM calls GROUP BY stage"

A call is in it before it is sent, at the most that it can cost, so it is counted however the process ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ske_models.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,         -- SHA-256 of model, settings, prompt and which asking it is
    stage TEXT NOT NULL,       -- what it was for, e.g. round1/scores.jsonl
    text TEXT,                 -- the reply; NULL: none came, or is known of
    truncated INTEGER,
    input INTEGER NOT NULL,    -- tokens: as the reply says, else the most that they can be
    output INTEGER NOT NULL,
    confirmed INTEGER NOT NULL -- whether the reply said the tokens
);
CREATE INDEX IF NOT EXISTS calls_key ON calls (key);
"""


class Ledger:
    """The calls of a run; those of `stage` are made here. Raises UserError if the file cannot be used.

    prices: USD per million "input" and "output" tokens. total: USD of all calls; those without a known end,
    or whose reply does not say its tokens, at their most.
    """

    def __init__(self, path: Path, prices: Mapping[Literal["input", "output"], float], stage: str) -> None:
        self.path = path
        self.stage = stage
        self.prices = prices
        try:
            # autocommit: a call is on disk before it is sent, and its reply when it has come
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
            self.total = self.usd(
                self._db.execute("SELECT TOTAL(input), TOTAL(output) FROM calls").fetchone()
            )
        except sqlite3.Error as error:
            raise UserError(
                f"{path}: cannot be used: {error}; delete it to have everything judged (and paid) anew"
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def reply(self, call: str) -> tuple[str, bool] | None:
        """(text, truncated) of a call that was answered."""
        row = self._db.execute(
            "SELECT text, truncated FROM calls WHERE key = ? AND text IS NOT NULL ORDER BY id LIMIT 1",
            (call,),
        ).fetchone()
        return None if row is None else (row[0], bool(row[1]))

    def book(self, call: str, most: tuple[int, int]) -> int:
        """Notes a call before it is sent; returns its number. `most`: its tokens (input, output) at most."""
        cursor = self._db.execute(
            "INSERT INTO calls (key, stage, input, output, confirmed) VALUES (?, ?, ?, ?, 0)",
            (call, self.stage, *most),
        )
        self.total += self.usd(most)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def settle(self, number: int, text: str, truncated: bool, tokens: tuple[int, int] | None) -> None:
        """Notes a reply; `tokens` (input, output) as it says, None if it does not."""
        booked = self._tokens(number)
        self._db.execute(
            "UPDATE calls SET text = ?, truncated = ?, input = ?, output = ?, confirmed = ? WHERE id = ?",
            (text, truncated, *(tokens or booked), tokens is not None, number),
        )
        self.total += self.usd(tokens or booked) - self.usd(booked)

    def cancel(self, number: int) -> None:
        """Forgets a call that cannot be charged: it was refused, or never sent."""
        self.total -= self.usd(self._tokens(number))
        self._db.execute("DELETE FROM calls WHERE id = ?", (number,))

    def usd(self, tokens: tuple[int, int]) -> float:
        """The price of (input, output) tokens."""
        return (tokens[0] * self.prices.get("input", 0) + tokens[1] * self.prices.get("output", 0)) / 1e6

    def spent_here(self) -> dict[str, Any]:
        """Tokens and USD of this stage, over all its starts."""
        said, unsaid = self._sums(confirmed=1), self._sums(confirmed=0)
        spent: dict[str, Any] = {"tokens": {"input": said[0], "output": said[1]}}
        if self.prices:
            spent |= {"usd": round(self.usd(said), 6), "usd_unconfirmed": round(self.usd(unsaid), 6)}
        return spent

    def _tokens(self, number: int) -> tuple[int, int]:
        return self._db.execute("SELECT input, output FROM calls WHERE id = ?", (number,)).fetchone()

    def _sums(self, confirmed: int) -> tuple[int, int]:
        return self._db.execute(
            "SELECT COALESCE(SUM(input), 0), COALESCE(SUM(output), 0) FROM calls "
            "WHERE stage = ? AND confirmed = ?",
            (self.stage, confirmed),
        ).fetchone()
