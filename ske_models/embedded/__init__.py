"""The embedded models: small Llamas that have read TinyWorld's corpus, for a first run without a download.

    from ske_models import embedded
    embedded.verify(embedded.path("M0"))

A checkpoint knows one world. Which one is requested, the questions say: their field `ske_world` is its hash.
`training/tinyworld/make_m0.py` makes them; each folder's README.md is its card.
"""

from __future__ import annotations

import json
from pathlib import Path

from ske_models import prompts
from ske_models.errors import UserError

FOLDER = Path(__file__).parent
METADATA = "embedded.json"  # which world and prompt set a checkpoint belongs to, and how it was made


def path(checkpoint: str = "M0") -> Path:
    """The folder of an embedded checkpoint. Raises UserError if there is none of that name."""
    folder = FOLDER / checkpoint
    if not (folder / "config.json").is_file():
        available = sorted(found.parent.name for found in FOLDER.glob("*/config.json"))
        raise UserError(
            f"embedded model {checkpoint}: not in {FOLDER} ({', '.join(available) or 'it is empty'}); "
            "make M0 with python training/tinyworld/make_m0.py"
        )
    return folder


def verify(folder: Path, world: str | None = None) -> None:
    """Raises UserError, naming the difference, if a checkpoint belongs to another world or prompt set.

    world: hash of the world that the questions are about; None where that is not known yet.
    """
    file = Path(folder) / METADATA
    if not file.is_file():
        raise UserError(f"{folder}: no {METADATA}, so this is no embedded model; name one with pretrained=")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    for what, ours in {"world": world, "prompts": prompts.load("world").hash}.items():
        if ours is not None and metadata[what] != ours:
            raise UserError(
                f"{folder}: made for {what} {metadata[what]}, but {what} {ours} is requested; make a "
                "model for it with python training/tinyworld/make_m0.py and name it with pretrained="
            )
