"""lm-eval's static batches in transformers: how long each of their texts is, and an end to those that loop.

    found = model.generate(..., logits_processor=LogitsProcessorList([EndLoops(start, end)]))
    rows(found[:, start:].tolist(), ...)

lm-eval keeps a batch's texts alone; to tokenize each of them again would cost milliseconds, and not always
give the number of tokens that were written. Used by ske_models/lm_eval/hf.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor

from ske_models.loops import loops
from ske_models.records import Completion


class EndLoops(LogitsProcessor):
    """`stop_loops`: a text that only repeats itself is given its end token.

    start: tokens of the prompt. end: the end token. looped: the rows that were ended for it.
    """

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.looped: set[int] = set()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores (batch, vocabulary) of the next token; rows that loop have only the end token left."""
        for row, tokens in enumerate(input_ids[:, self.start :].tolist()):
            if row in self.looped or (self.end not in tokens and loops(tokens)):
                self.looped.add(row)
                scores[row] = -torch.inf
                scores[row, self.end] = 0
        return scores


@dataclass(frozen=True)
class Row:
    """One text of a batch. tokens: without its end token, as a tokenizer would count them.

    None: it is cut at a stop string, behind which lm-eval lets it go on while other texts do.
    """

    prompt_tokens: int
    tokens: int | None
    truncated: bool
    looped: bool

    def completion(self, text: str) -> Completion:
        """The text with what is known of it."""
        known = Completion(text)
        known.prompt_tokens, known.tokens = self.prompt_tokens, self.tokens
        known.truncated, known.looped = self.truncated, self.looped
        return known


def rows(
    written: Sequence[Sequence[int]],
    prompts: Sequence[int],
    ends: Collection[int],
    limit: int,
    stopped: Callable[[Sequence[int]], bool],
    looped: Collection[int],
) -> list[Row]:
    """What is to be known of the texts of a batch.

    written: their tokens, filled up with one of `ends` after the last. prompts: tokens of each prompt.
    stopped: whether a text has a stop string. looped: the rows that loop.
    """
    found = []
    for number, (tokens, prompt) in enumerate(zip(written, prompts, strict=True)):
        length = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
        if stopped(tokens[:length]):
            found.append(Row(prompt, None, truncated=False, looped=False))
        else:
            found.append(Row(prompt, length, length == limit, number in looped))
    return found
