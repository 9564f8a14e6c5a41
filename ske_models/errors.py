"""The one exception for a user's mistake: printed as a line, without a traceback, with exit status 1.

raise UserError("prompts=my.yaml: no such file; give a path or one of: default, world")
"""

from __future__ import annotations


class UserError(SystemExit, ValueError):
    """What was wrong, where, and what to do, in one or two lines.

    It is a `SystemExit`, so that a stock command we are plugged into (`lm_eval`, `opencompass`) ends
    with the message on stderr and status 1; and a `ValueError`, so that `except Exception` in a
    notebook or a library still sees it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"ske-learn: {message}")
