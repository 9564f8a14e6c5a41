"""The JSON objects in a run's folder: each is checked for what is read of it, since a person may edit it.

read_object(Path("runs/mine/results/M1/ske_nq.cot.json"), RESULT, "delete it to evaluate again")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import read_json

NUMBER = (int, float)
Fields = Mapping[str, type | tuple[type, ...]]

RECORD: Fields = {
    "seconds": NUMBER,
    "counts": dict,
    "inputs": dict,
    "settings": dict,
    "recipe": str,
    "versions": dict,
}
RESULT: Fields = {"task": str, "method": str, "n": int, "metrics": dict}
COUNTED: Fields = {"counts": dict}
LINEAGE: Fields = {
    "checkpoint": str,
    "parent": dict,
    "recipe": dict,
    "prompts": dict,
    "seed": int,
    "data": dict,
    "sft": dict,
    "training": dict,
    "versions": dict,
}


def read_object(file: Path, fields: Fields, again: str) -> dict[str, Any]:
    """An object with these fields at least. Raises UserError if it is none; `again`: what to do then."""
    found = read_json(file)
    wrong = None if isinstance(found, dict) else f"it is no object but {type(found).__name__}"
    for name, kind in fields.items() if wrong is None else ():
        if not isinstance(found.get(name), kind) or isinstance(found[name], bool):
            wrong = f"{name!r} is missing or of another type"
            break
    if wrong:
        raise UserError(f"{file}: not what a run writes there ({wrong}); {again}")
    return dict(found)
