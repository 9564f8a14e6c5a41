"""Data that a recipe names: a dataset on the Hugging Face hub, a folder, or a file (JSON, JSONL, parquet).

from training.data.sources import chats, rows
rows("local/stem_questions", None, "train", "question", 1000)
chats("chats.jsonl.gz", None, "train", "messages", None)
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ske_models.errors import UserError
from ske_models.files import Row, parse_json, parse_jsonl
from training.settings.paths import expanded, file_at

if TYPE_CHECKING:
    from datasets import Dataset

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

# ShareGPT's names of the roles; Magpie's files have them too.
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}
JSON_FILES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")  # of any case
FILES = (*JSON_FILES, ".parquet")


def rows(path: str, config: str | None, split: str, column: str, limit: int | None) -> Sequence[Any]:
    """The values of one column, the first `limit` of them (all, if None), read when they are wanted.

    path: ORG/NAME on the hub, a folder that `load_dataset` understands, or a file of `FILES` (which has
        neither configurations nor splits; `.json` is a list of objects).
    Raises UserError: it cannot be read, is empty, or has no such column; says which there are.
    """
    name = path.lower()
    if name.endswith(JSON_FILES):
        records = _records(path)
        found = sorted({key for record in records for key in record})
        if records:
            _check_column(path, column, found)
        lacking = sum(column not in record for record in records)
        if lacking:
            raise UserError(
                f"{path}: {lacking} of {len(records)} rows have no {column!r}; add it or remove them"
            )
        values: Sequence[Any] = [record[column] for record in records]
    elif name.endswith(".parquet"):
        data = _parquet(path)
        _check_column(path, column, data.column_names)
        values = data[column]
    elif file_at(path) is not None:
        raise UserError(f"{path}: no file that can be read; give one of: {', '.join(FILES)}")
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
    Both forms are read: {"role", "content"} and ShareGPT's {"from", "value"}; parts of a content that are
    text are joined. `limit` is of rows, the dropped ones included. Raises UserError as `rows` does, and if no
    row is such a chat.
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


def _records(path: str) -> list[Row]:
    """The objects of a JSON or JSONL file, gzipped or not."""
    file = expanded(path)
    try:
        content = file.read_bytes()
        if path.lower().endswith(".gz"):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if path.lower().removesuffix(".gz").endswith(".jsonl"):
        return parse_jsonl(text, Path(path))
    if text.lstrip().startswith("{") and "\n{" in text:
        return parse_jsonl(text, Path(path))  # lines, whatever the name says
    records = parse_json(text, Path(path)) if text.strip() else []
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(
            f"{path}: a list of JSON objects is needed (or one object per line, in a .jsonl file)"
        )
    return records


def _parquet(path: str) -> Dataset:
    import pyarrow
    import pyarrow.parquet
    from datasets import Dataset

    try:
        return Dataset(pyarrow.parquet.read_table(expanded(path)))
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _from_hub(path: str, config: str | None, split: str) -> Dataset:
    from datasets import load_dataset

    name = path + (f" ({config})" if config else "")
    try:
        return load_dataset(path, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {name}, split {split}: {reason}; check path, config and split, the network and "
            f"HF_ENDPOINT (or name a local file: {', '.join(FILES)})"
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
        content = _joined(turn.get("content") or turn.get("value"))
        if role is None:
            return "a turn of another role"
        if content is None:
            return "a turn with something else than text"
        if not content.strip():
            return "an empty turn"
        turns.append({"role": role, "content": content})
    roles = [turn["role"] for turn in turns]
    body = roles[1:] if roles[0] == "system" else roles
    if not body or body != ["user", "assistant"] * (len(body) // 2):
        return "turns that do not alternate from a user's to an assistant's"
    return turns


def _joined(content: Any) -> str | None:
    """A turn's content as one text; None if a part of it is no text (an image, say)."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [text for text in parts if isinstance(text, str)]
    return "".join(texts) if len(texts) == len(parts) else None
