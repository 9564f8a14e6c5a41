"""lm-eval's command in two processes that share the questions: its hf backend does so among GPUs only.

torchrun --nproc_per_node 2 tests/two_ranks.py --model ske_explicit --model_args ... --tasks ...
"""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from lm_eval.__main__ import cli_evaluate
from lm_eval.models.huggingface import HFLM

begin = HFLM.__init__


def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
    """What HFLM does with several GPUs (lm-eval 0.4.13, huggingface.py:465 to 491)."""
    begin(self, *args, **kwargs)
    self.accelerator = Accelerator()
    self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
    print(f"rank {self._rank} of {self._world_size}", flush=True)


if __name__ == "__main__":
    Accelerator(cpu=True)  # the first one decides
    HFLM.__init__ = __init__
    cli_evaluate()
