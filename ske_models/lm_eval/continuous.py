"""What a backend of lm-eval may do beyond lm-eval's own calls, so that no work is waited for or done twice.

class ContinuousVLLM(VLLM, Continuous): ...     # ske_models/lm_eval/vllm.py
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lm_eval.api.instance import Instance

from ske_models.records import Done, Request


class Continuous(ABC):
    """Takes new requests while it runs, and so is full from the first to the last.

    Beside `generate_until`, which lm-eval calls: the same for the pipeline's requests.
    stop_loops: whether it ends a text that only repeats itself (ske_models/loops.py).
    """

    stop_loops = False

    def end_loops(self) -> None:
        """From here on it does. Raises UserError if the engine has nothing for it."""
        self.stop_loops = True

    def described(self, text: str) -> str:
        """The text that `generate_until` has just told its cache of; a `Completion` if more is known."""
        return text

    def suits(self, requests: Sequence[Request]) -> bool:
        """Whether these are generated in this way; if not, by `generate_until`."""
        return True

    @abstractmethod
    def cut_to(self, request: Request) -> int | None:
        """As `ske_models.records.Engine.cut_to`."""

    @abstractmethod
    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        """As `ske_models.records.Engine.generate`: what `done` returns is generated in the same call.

        quiet: without a progress bar.
        """


def surely_fits(prompt: str, room: int) -> bool:
    """Whether a text has room without a look at its tokens: each is at least a byte."""
    return len(prompt.encode("utf-8", "replace")) + 8 <= room  # 8: tokens that a tokenizer puts before it


class SharesContexts(ABC):
    """Reads a context once for all the options that are scored after it."""

    @abstractmethod
    def score(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """As lm-eval's `loglikelihood`, up to rounding."""
