"""The closed domains that a recipe can name, and the recipe that is run when none is named.

    from training import domains
    domains.named("world").truth("Where was Tebok born?", "...", "...")

A domain of your own is a module like `training/tinyworld/domain.py`, and a line in `KNOWN`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from training.domain import Domain

# name -> the domain, or the module that has it as DOMAIN, which is imported when a recipe names it
KNOWN: dict[str, str | Domain] = {"world": "training.tinyworld.domain"}
DEFAULT_RECIPE = "world"


def named(name: str) -> Domain | None:
    """The domain of that name; None if there is none."""
    found = KNOWN.get(name)
    if isinstance(found, str):
        found = KNOWN[name] = importlib.import_module(found).DOMAIN
        assert isinstance(found, Domain)
    return found


def every() -> list[Domain]:
    """All of them."""
    return [domain for name in KNOWN if (domain := named(name)) is not None]


def start(name: str | None) -> Path | None:
    """The folder of a domain's own M0, by the name that a recipe has for it; None if no domain has one.

    Raises UserError if it does not fit what is installed.
    """
    for domain in every():
        if name is not None and name in domain.starts:
            return domain.starts[name]()
    return None


def inherited() -> list[str]:
    """The files of a checkpoint that those trained from it keep, where it has them."""
    return [name for domain in every() for name in domain.inherited]
