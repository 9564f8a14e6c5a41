"""The one exception for a user's mistake: printed as a line, without a traceback, with exit status 1.

raise UserError("prompts=my.yaml: no such file; give a path or one of: default, world")
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


class UserError(SystemExit, ValueError):
    """What was wrong, where, and what to do, in one or two lines.

    It is a `SystemExit`, so that a stock command we are plugged into (`lm_eval`, `opencompass`) ends
    with the message on stderr and status 1; and a `ValueError`, so that `except Exception` in a
    notebook or a library still sees it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"ske-learn: {message}")


def one_of(name: str, value: Any, known: Collection[str]) -> None:
    """Raises UserError if the argument `name` has a value that is not among the known ones."""
    if value not in known:
        raise UserError(f"{name}={value}: unknown; one of: {', '.join(known)}")


def at_least_one(name: str, value: Any) -> None:
    """Raises UserError if the argument `name` is given and is no whole number of at least 1."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UserError(f"{name}={value}: a whole number of at least 1 is needed")
