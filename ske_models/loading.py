"""Whether a checkpoint holds the whole of its model: what it lacks, transformers makes up at random.

model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
require_whole(info, path)

No harness and no torch is known here: evaluation (ske_models/lm_eval/hf.py) and training both come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ske_models.errors import UserError


def require_whole(info: Mapping[str, Any], where: Any) -> None:
    """Raises UserError, naming the first tensors, if any is missing or has another shape.

    info: what transformers returns with `output_loading_info=True`.
    """
    missing = sorted(info.get("missing_keys") or ())
    others = sorted(key[0] if isinstance(key, tuple) else key for key in info.get("mismatched_keys") or ())
    for names, what in ((missing, "lacks"), (others, "has in another shape than its config.json says")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(
                f"{where}: {what} {', '.join(names[:3])}{more}, which would be random numbers; copy the "
                "checkpoint again, whole"
            )


def reason(error: BaseException) -> str:
    """The first line of an error that says something, with its kind where the text alone does not."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    if not lines:
        return kind
    said = lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}..."
    return said if isinstance(error, (OSError, UserError)) else f"{kind}: {said}"


@dataclass(frozen=True)
class Whole:
    """One of transformers' Auto classes, for checkpoints that are whole."""

    auto_class: Any

    def from_pretrained(self, where: str, **options: Any) -> Any:
        model, info = self.auto_class.from_pretrained(where, output_loading_info=True, **options)
        require_whole(info, where)
        return model
