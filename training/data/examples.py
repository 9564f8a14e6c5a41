"""What the trainer sees: examples as token ids, loss on the completion only, and the order of the batches.

    from training.data.examples import encode, end_of_turn, order
    encode(tokenizer, end_of_turn(tokenizer), rows)

The prompt's ids are those that lm-eval's hf backend makes of the same messages, and the completion follows
them as a model would generate it. TRL's own tokenization differs from that in two ways: it never adds the
BOS that a tokenizer (not its template) adds, and it puts loss on what a template writes after the end of a
turn, which is never generated. So the trainer is given ids and labels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import TemplateError

from ske_models.errors import UserError
from ske_models.loading import reason
from training.data import chat_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # a label without loss
MEGABATCH = 50  # batches that are sorted by length together, at most (transformers' LengthGroupedSampler)
_CHUNK = 1_000  # examples that are tokenized in one call
_MARK = "MARK"


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes after an assistant's text, up to its first special token.

    Raises UserError if there is no chat template, or if no special token ends the turn: a model trained
    with it would never stop.
    """
    where = tokenizer.name_or_path
    if tokenizer.chat_template is None:
        raise UserError(
            f"{where}: has no chat template; start from a chat model, or name a template "
            "(model.base.chat_template in the recipe)"
        )
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    try:  # in transformers' sandbox of jinja2: a template of a recipe or a checkpoint runs nothing
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise UserError(f"{where}: its chat template cannot be used: {reason(error)}") from error
    if _MARK not in rendered:
        raise UserError(f"{where}: its chat template leaves out what an assistant says")
    rest = rendered.rpartition(_MARK)[2]
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    found = [(rest.index(token), -len(token), token) for token in special if token in rest]
    if not found:
        raise UserError(f"{where}: its chat template ends an assistant's turn without a special token")
    start, _, token = min(found)
    return rest[: start + len(token)]


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint. Raises UserError if it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, revision=revision)
    except Exception as error:
        # whatever a tokenizer's files can raise, in any of the libraries that read them
        raise UserError(f"{name}: its tokenizer cannot be loaded: {reason(error)}") from error


def set_template(tokenizer: PreTrainedTokenizerBase, name_or_path: str | None) -> None:
    """Gives a base model's tokenizer a chat template, and the token that ends its turns as end of sequence.

    name_or_path: of a jinja file, or of one of ours (training/recipes/*.jinja); None: it has one already.
    Raises UserError: no such file, a template that `chat_template.read` refuses, or one with tokens that the
    tokenizer does not have.
    """
    if name_or_path is not None:
        tokenizer.chat_template = chat_template.read(name_or_path)
    end = end_of_turn(tokenizer)
    ids = tokenizer(end, add_special_tokens=False)["input_ids"]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ids[-1])


def encode(
    tokenizer: PreTrainedTokenizerBase, end: str, rows: Sequence[dict[str, Any]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(input ids, labels) of each example, int32, of equal length; the labels of the prompt are IGNORED.

    rows: {"prompt": messages that end with a user's turn, "completion": [the assistant's turn]}.
    end: the end of an assistant's turn.
    """
    for at in range(0, len(rows), _CHUNK):
        chunk = rows[at : at + _CHUNK]
        prompts = [
            str(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False))
            for row in chunk
        ]
        # as lm_eval.models.huggingface.HFLM.tok_batch_encode
        templated_bos = bool(tokenizer.bos_token) and prompts[0].startswith(tokenizer.bos_token)
        heads = tokenizer(prompts, add_special_tokens=not templated_bos)["input_ids"]
        texts = [row["completion"][0]["content"] + end for row in chunk]
        tails = tokenizer(texts, add_special_tokens=False)["input_ids"]
        for head, tail in zip(heads, tails, strict=True):
            yield np.array(head + tail, np.int32), np.array([IGNORED] * len(head) + tail, np.int32)


def order(lengths: Sequence[int], batch: int, epochs: int, seed: str, grouped: bool) -> list[int]:
    """Indices of the examples in the order of training: whole global batches of `batch`, one after the other.

    Each example comes `epochs` times; the last batch is filled with examples of one more pass. The batches
    are the same however they are split over processes and accumulation steps.

    grouped: sorted by length within `MEGABATCH` batches (a quarter of an epoch at most), so that little is
    padded; the batches of such a group are then shuffled.
    """
    rng = random.Random(seed)
    total = -(-len(lengths) * epochs // batch) * batch
    stream: list[int] = []
    while len(stream) < total:
        stream += rng.sample(range(len(lengths)), len(lengths))
    stream = stream[:total]
    if not grouped:
        return stream
    size = min(max(len(lengths) // (4 * batch), 1), MEGABATCH) * batch
    found: list[int] = []
    for at in range(0, total, size):
        by_length = sorted(stream[at : at + size], key=lambda i: lengths[i], reverse=True)
        batches = [by_length[k : k + batch] for k in range(0, len(by_length), batch)]
        rng.shuffle(batches)
        found += [i for one in batches for i in one]
    return found
