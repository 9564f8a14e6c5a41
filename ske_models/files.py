"""JSON and JSONL files, written whole or not at all.

from ske_models.files import read_jsonl
read_jsonl(Path("runs/world/round1/selected.jsonl"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ske_models.errors import UserError

Row = dict[str, Any]


def user_path(name: str | int, what: str) -> Path:
    """A path that a user typed, with `~` expanded; it need not exist.

    name: an int (or bool) where lm-eval has read a name such as 5 as one.
    what: the setting and its value, as messages name them, such as `prompts=my.yaml`.
    Raises UserError: no user of that name, or a name that no file can have.
    """
    try:
        path = Path(str(name)).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{what[:100]}: no path of a file ({str(error)[:100]})") from error
    return path


def read_jsonl(path: Path) -> list[Row]:
    """One JSON object per line. Raises UserError, naming the line, for anything else."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return parse_jsonl(text, path)


def parse_jsonl(text: str, path: Path) -> list[Row]:
    """The objects of a text that `path` holds. Raises UserError as `read_jsonl` does."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # the only way in which a line of a file can say half of a surrogate pair
                row = json.loads(encodable(json.dumps(row, ensure_ascii=False)))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not JSON ({error}); mend it, or delete the file to make it again"
            ) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: a JSON object is needed, not {type(row).__name__}")
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """As `write_text`."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Raises UserError if the file is not JSON."""
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; delete it to have it made again") from error


def parse_json(text: str, path: Path) -> Any:
    """The value of a text that `path` holds. Raises UserError as `read_json` does."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}; delete it to have it made again") from error


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, indented."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def file_digest(path: Path) -> str:
    """First 16 hex digits of the SHA-256 of a file's bytes; "absent" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "absent"


def write_text(path: Path, text: str) -> None:
    """Raises UserError if the disk is full or the folder cannot be written; then nothing was changed."""
    new = path.with_name(f".{path.name}.new")  # what a kill leaves of it, the next try writes over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; make room (or write elsewhere) and give the "
            "same command again"
        ) from error


def cache_folder() -> Path:
    """Where stores go by default: $XDG_CACHE_HOME/ske-learn, else ~/.cache/ske-learn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ske-learn"


def encodable(text: str) -> str:
    """The text without halves of surrogate pairs, which no file can hold: U+FFFD is in their place."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
