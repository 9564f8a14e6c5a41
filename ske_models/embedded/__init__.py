"""The embedded models: small Llamas that have read TinyWorld's corpus, for a first run without a download.

    from ske_models import embedded
    embedded.verify(embedded.path("M0"))

`training/tinyworld/make_m0.py` makes them; each folder's README.md is its card.
"""

from __future__ import annotations

import json
from pathlib import Path

from ske_models import prompts
from ske_models.errors import UserError
from ske_tasks.world import default_world

FOLDER = Path(__file__).parent
METADATA = "embedded.json"  # which world and prompt set a checkpoint belongs to, and how it was made


def path(checkpoint: str = "M0") -> Path:
    """The folder of an embedded checkpoint. Raises UserError if there is none of that name."""
    folder = FOLDER / checkpoint
    if not (folder / "config.json").is_file():
        there = sorted(found.parent.name for found in FOLDER.glob("*/config.json"))
        raise UserError(
            f"embedded model {checkpoint}: not in {FOLDER} ({', '.join(there) or 'it is empty'}); "
            "make M0 with python training/tinyworld/make_m0.py"
        )
    return folder


def verify(folder: Path) -> None:
    """Raises UserError, naming the difference, if a checkpoint belongs to another world or prompt set."""
    file = Path(folder) / METADATA
    if not file.is_file():
        raise UserError(f"{folder}: no {METADATA}, so this is no embedded model; name one with pretrained=")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    installed = {"world": default_world().hash, "prompts": prompts.load("world").hash}
    for what, ours in installed.items():
        if metadata[what] != ours:
            raise UserError(
                f"{folder}: made for {what} {metadata[what]}, but {what} {ours} is installed; "
                "make it anew with python training/tinyworld/make_m0.py"
            )
