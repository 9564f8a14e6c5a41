"""What the judges `self` and `key` have a checkpoint write: any conversation, at any temperature.

from training.judges.writing import at, write
write(at(engine, 0.7), [[{"role": "user", "content": "..."}]], 256, "key", 0, 0)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from lm_eval.api.instance import Instance

from ske_models.files import Row
from ske_models.method import Message
from ske_models.records import Request, measured, prompt_tokens
from training.engine import CheckpointEngine


def at(engine: CheckpointEngine, temperature: float) -> CheckpointEngine:
    """The same engine with another temperature than that of the recipe's generation."""
    generation = engine.recipe.generation.model_copy(update={"temperature": temperature})
    recipe = engine.recipe.model_copy(update={"generation": generation})
    other = copy.copy(engine)
    other.recipe = recipe
    return other


def write(
    engine: CheckpointEngine, chats: Sequence[list[Message]], limit: int, *seed: str | int
) -> list[Row]:
    """A text of at most `limit` tokens per conversation: {"text", "truncated", "input", "output" (tokens)}.

    A backend that cannot tell lengths counts no tokens, and its texts are taken to be whole.
    """
    if not chats:
        return []
    settings = engine.settings(limit, *seed)
    origin = Instance("generate_until", {}, ("", {}), 0)
    requests = [
        Request("judge", engine.render(chat, chat=True), settings, limit, "", origin) for chat in chats
    ]
    rows = []
    for request, text in zip(requests, engine.generate(requests, lambda *_: ()), strict=True):
        wrote, truncated = measured(engine, request, text)
        tokens = {"input": prompt_tokens(engine, request, text), "output": wrote or 0}
        rows.append({"text": text, "truncated": bool(truncated), **tokens})
    return rows
