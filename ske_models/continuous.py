"""A backend of lm-eval that takes new requests while it runs, so that it is full from the first to the last.

class ContinuousVLLM(VLLM, Continuous): ...     # ske_models/lm_eval_vllm.py
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ske_models.pipeline import Done, Request


class Continuous(ABC):
    """Beside `generate_until`, which lm-eval calls: the same for the pipeline's requests."""

    @abstractmethod
    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        """As `ske_models.pipeline.Engine.generate`: what `done` returns is asked in the same call.

        quiet: without a progress bar.
        """
