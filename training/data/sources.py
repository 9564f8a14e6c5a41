"""Data that a recipe names: a dataset on the Hugging Face hub, a folder, or one .jsonl or .parquet file.

from training.sources import chats, rows
rows("local/stem_questions", None, "train", "question", 1000)
chats("chats.jsonl", None, "train", "messages", None)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Dataset, load_dataset

from ske_models.errors import UserError
from ske_models.files import read_jsonl

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

# ShareGPT's names of the roles; Magpie's files have them too.
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}


def rows(path: str, config: str | None, split: str, column: str, limit: int | None) -> Sequence[Any]:
    """The values of one column, the first `limit` of them (all, if None), read when they are asked for.

    path: ORG/NAME on the hub, a folder that `load_dataset` understands, or a .jsonl or .parquet file (which
        has neither configurations nor splits).
    Raises UserError: it cannot be had, is empty, or has no such column; says which there are.
    """
    file = Path(path).expanduser()
    if file.suffix == ".jsonl":
        records = read_jsonl(file)
        found = sorted({name for record in records for name in record})
        if records:
            _check_column(path, column, found)
        lacking = sum(column not in record for record in records)
        if lacking:
            raise UserError(
                f"{path}: {lacking} of {len(records)} lines have no {column!r}; add it or remove them"
            )
        values: Sequence[Any] = [record[column] for record in records]
    elif file.suffix == ".parquet":
        try:
            data = Dataset(pyarrow.parquet.read_table(file))
        except (OSError, pyarrow.ArrowException) as error:
            raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
        _check_column(path, column, data.column_names)
        values = data[column]
    else:
        data = _from_hub(path, config, split)
        _check_column(f"{path}, split {split}", column, data.column_names)
        values = data[column]
    if len(values) == 0:
        raise UserError(f"{path}: empty; give a dataset with rows in it")
    return values[:limit] if limit is not None and limit < len(values) else values


def chats(
    path: str, config: str | None, split: str, column: str, limit: int | None
) -> tuple[list[list[Message]], dict[str, int]]:
    """(chats, how many rows were dropped and why).

    A chat has a system turn or none, then a user's and an assistant's by turns; the assistant's is last.
    Both forms are read: {"role", "content"} and ShareGPT's {"from", "value"}. `limit` is of rows, the dropped
    ones included. Raises UserError as `rows` does, and if no row is such a chat.
    """
    kept: list[list[Message]] = []
    dropped: Counter[str] = Counter()
    for value in rows(path, config, split, column, limit):
        chat = _chat(value)
        if isinstance(chat, str):
            dropped[chat] += 1
        else:
            kept.append(chat)
    if not kept:
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
        raise UserError(
            f"{path}, column {column}: no row is a chat ({why}); "
            'a chat is [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]'
        )
    return kept, dict(dropped)


def _from_hub(path: str, config: str | None, split: str) -> Dataset:
    name = path + (f" ({config})" if config else "")
    try:
        return load_dataset(path, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {name}, split {split}: {reason}; check path, config and split, the network and "
            "HF_ENDPOINT (or name a local .jsonl or .parquet file)"
        ) from error


def _check_column(name: str, column: str, found: Sequence[str]) -> None:
    if column not in found:
        raise UserError(f"{name}: no column {column!r} (found {', '.join(found) or 'none'}); set `column`")


def _chat(value: Any) -> list[Message] | str:
    """The chat in its one form, or why it is none."""
    if not isinstance(value, list) or not value:
        return "not a list of turns"
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            return "not a list of turns"
        role = ROLES.get(str(turn.get("role") or turn.get("from")))
        content = turn.get("content") or turn.get("value")
        if role is None:
            return "a turn of another role"
        if not isinstance(content, str) or not content.strip():
            return "an empty turn"
        turns.append({"role": role, "content": content})
    roles = [turn["role"] for turn in turns]
    body = roles[1:] if roles[0] == "system" else roles
    if not body or body != ["user", "assistant"] * (len(body) // 2):
        return "turns that do not alternate from a user's to an assistant's"
    return turns
