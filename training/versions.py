"""The libraries that a stage was done with.

python -c "from training.versions import versions; print(versions())"
"""

from __future__ import annotations

import importlib.metadata
from functools import cache

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "lm-eval", "openai", "vllm")


@cache
def versions() -> dict[str, str]:
    """Name -> version of those that are installed."""
    dists = importlib.metadata.distributions()
    found = {dist.metadata["Name"].lower().replace("_", "-"): dist.version for dist in dists}
    return {name: found[name] for name in LIBRARIES if name in found}
