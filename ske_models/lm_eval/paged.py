"""transformers' continuous batching over a paged KV cache: how it is started, and whether a model runs in it.

    why = trial(model, tokenizer.encode("The answer is"))     # None: it does
    manager = paged(model, pages=64, chunk=512, rows=16)

transformers has no flag that says which models it can run in this way: of version 5.24 GPT-NeoX, OPT, BLOOM,
MPT, Falcon and DeepSeek-V3 cannot, and end in an error at their first token.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from transformers import ContinuousBatchingConfig, PreTrainedModel
from transformers.generation.continuous_batching import ContinuousBatchingManager

PAGE = 32  # tokens of a page of the KV cache
TOKENS = 4  # of the text that a trial writes


def paged(model: PreTrainedModel, pages: int, chunk: int, rows: int) -> ContinuousBatchingManager:
    """Not started. pages: of the cache; chunk: the most tokens of a forward pass; rows: texts at a time."""
    config = copy.deepcopy(model.generation_config)
    config.do_sample = False
    return model.init_continuous_batching(
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages,
            max_batch_tokens=chunk,
            max_requests_per_batch=rows,
            auto_switch_to_flash=False,  # its rounding is another
        ),
    )


def trial(model: PreTrainedModel, prompt: Sequence[int]) -> str | None:
    """Why continuous batching does not write what the model itself writes; None if it does."""
    manager = paged(model, pages=4, chunk=PAGE, rows=1)
    log = logging.getLogger("ContinuousBatchingLogger")  # transformers': its error is what is asked for here
    level = log.level
    log.setLevel(logging.CRITICAL)
    manager.start()
    try:
        manager.add_request(list(prompt), max_new_tokens=TOKENS, eos_token_id=-1)
        result = None
        while result is None and manager.is_running():
            result = manager.get_result(timeout=1)
    finally:
        manager.stop(hard_stop=True)
        manager.destroy()
        log.setLevel(level)
    if result is None or result.error is not None:
        return f"transformers cannot run {type(model).__name__} in continuous batches"
    asked = torch.tensor([list(prompt)], device=model.device)
    found = model.generate(
        asked, attention_mask=torch.ones_like(asked), max_new_tokens=TOKENS, do_sample=False
    )
    written = found[0, len(prompt) :].tolist()  # ends at an end token, the trial's goes on
    if written != list(result.generated_tokens)[: len(written)]:
        return f"transformers writes other tokens with {type(model).__name__} in continuous batches"
    return None
