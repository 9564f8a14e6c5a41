"""What the paid judge costs: every call, its tokens and what was answered, in RUN/judge.sqlite.

    sqlite3 runs/paper/judge.sqlite "SELECT stage, SUM(input), SUM(output) FROM calls GROUP BY stage"

A call is in it before it is sent, at the most that it can cost, and is settled by the usage that its reply
reports. So no reply is paid for twice, however a run ends, and the spending cap holds over all its stages.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ske_models.engines.faults import StopError
from ske_models.engines.http import Call
from ske_models.errors import UserError

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,         -- SHA-256 of model, settings, prompt and which attempt it is
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
                f"{path}: cannot be used: {error}; delete it to have everything judged, and paid for, again"
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


class Bill:
    """The dispatcher's meter (ske_models/engines/http.py): a ledger and the cap on what it may come to.

    cap: USD over all stages of the run, or None. cost: a call's key, and its tokens (input, output) at most.
    """

    def __init__(
        self, ledger: Ledger, cap: float | None, cost: Callable[[Call], tuple[str, tuple[int, int]]]
    ) -> None:
        self.ledger = ledger
        self.cap = cap
        self.cost = cost
        self.numbers: dict[Call, int] = {}  # in the ledger, of the calls under way
        self.changed = asyncio.Event()

    async def book(self, call: Call) -> None:
        """Books a call, once the cap has room for it whatever the calls under way cost. Raises StopError."""
        key, most = self.cost(call)
        price = self.ledger.usd(most)
        while self.cap is not None and self.ledger.total + price > self.cap:
            if not self.numbers:
                spent = f"${self.ledger.total:.4f} are spent and one more call may cost ${price:.4f}"
                raise StopError(f"max_usd is {self.cap:g}: {spent}; raise judge.max_usd")
            self.changed.clear()
            await self.changed.wait()
        with self._on_disk():
            self.numbers[call] = self.ledger.book(key, most)

    def settle(self, call: Call) -> None:
        """Notes the reply of a call. What it says of its tokens counts if it can be true of a text."""
        reply, number = call.answer, self._close(call)
        tokens = (reply.prompt_tokens, reply.completion_tokens)
        believed = reply.prompt_tokens and (reply.completion_tokens or not reply.text)
        with self._on_disk():
            self.ledger.settle(number, reply.text, bool(reply.truncated), tokens if believed else None)

    def fail(self, call: Call, charged: bool) -> None:
        """Forgets a call that cannot be charged; any other stays booked at its most."""
        number = self._close(call)
        if not charged:
            with self._on_disk():
                self.ledger.cancel(number)

    def _close(self, call: Call) -> int:
        self.changed.set()
        return self.numbers.pop(call)

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StopError(f"{self.ledger.path}: cannot be written: {error}; make room") from None
