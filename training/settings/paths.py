"""Paths that a person wrote: a home folder that does not exist, or a name that no file can have, is no file.

from training.settings.paths import file_at
file_at("~/my.yaml")       # the path if there is a file, else None
"""

from __future__ import annotations

from pathlib import Path


def expanded(text: str) -> Path:
    """The path of a text; `~` is the home folder, and stays as it is if there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def file_at(text: str) -> Path | None:
    """The file of that name, or None."""
    path = expanded(text)
    try:
        return path if path.is_file() else None
    except OSError:  # a name that is too long
        return None


def folder_at(text: str) -> Path | None:
    """The folder of that name, or None."""
    path = expanded(text)
    try:
        return path if path.is_dir() else None
    except OSError:
        return None
