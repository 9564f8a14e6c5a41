"""Log-likelihoods of options by transformers, with a question's context read once for all of its options.

    if can_share(backend):
        scores = score(backend, requests)

lm-eval (0.4.13, `models/huggingface.py`, `_loglikelihood_tokens`) reads a context again for each option of
more than one token. With knowledge in it a context is several times as long as the question, and that would
cost more than writing the knowledge. Here the context's keys and values are handed to all of its options.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


@dataclass
class _Question:
    """A context with its options. places: of the options, in the requests."""

    context: list[int]
    options: list[list[int]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def score(backend: HFLM, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
    """(log-likelihood, whether greedy decoding would write it) of each continuation after its context.

    The numbers of lm-eval's `HFLM.loglikelihood`, up to rounding. Its own is used where there is no context,
    or no room for context and option in the model's length.
    """
    questions: dict[str, _Question] = {}
    others: list[int] = []
    for place, request in enumerate(requests):
        text, option = request.args
        if text == "":
            others.append(place)
            continue
        context, continuation = backend._encode_pair(text, option)
        if not context or len(context) + len(continuation) > backend.max_length + 1:
            others.append(place)
            continue
        question = questions.setdefault(text, _Question(context))
        question.options.append(continuation)
        question.places.append(place)
    scores: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=backend.rank != 0) as bar:
        for batch in _batches(backend, list(questions.values())):
            places = [place for question in batch for place in question.places]
            for place, score in zip(places, _score(backend, batch), strict=True):
                scores[place] = score
            bar.update(len(places))
    if others:
        for place, score in zip(others, backend.loglikelihood([requests[i] for i in others]), strict=True):
            scores[place] = score
    return scores


def can_share(backend: HFLM) -> bool:
    """Whether the model's cache can be handed out, and the model takes the positions of its tokens.

    Where a layer keeps a state instead of keys and values, as linear attention does, it cannot.
    """
    parameters = inspect.signature(backend.model.forward).parameters
    if backend.backend != "causal" or not {"position_ids", "logits_to_keep"} <= parameters.keys():
        return False
    if _cache_name(backend) not in parameters or not backend.model._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=backend.model.config.get_text_config()).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _cache_name(backend: HFLM) -> str:
    """What `forward` calls its cache: transformers has renamed it in 5.24."""
    return "cache" if "cache" in inspect.signature(backend.model.forward).parameters else "past_key_values"


def _batches(backend: HFLM, questions: list[_Question]) -> Iterator[list[_Question]]:
    """Questions of about one length, the longest first. No forward pass has more rows than the batch size."""
    if not questions:
        return
    size = backend._detect_batch_size() if backend.batch_size == "auto" else int(backend.batch_size)
    batch: list[_Question] = []
    rows = 0
    for question in sorted(questions, key=lambda q: len(q.context), reverse=True):
        # options of one token follow from the forward pass of the context
        more = 1 if all(len(option) == 1 for option in question.options) else len(question.options)
        if batch and rows + more > size:
            yield batch
            batch, rows = [], 0
        batch.append(question)
        rows += more
    yield batch


@torch.no_grad()
def _score(backend: HFLM, batch: Sequence[_Question]) -> list[tuple[float, bool]]:
    """The scores of all options, question by question."""
    lengths = torch.tensor([len(question.context) for question in batch], device=backend.device)
    places = torch.arange(int(lengths.max()), device=backend.device)
    read = places >= places.numel() - lengths[:, None]  # padded on the left
    contexts = torch.zeros(read.shape, dtype=torch.long, device=backend.device)
    contexts[read] = torch.tensor([token for q in batch for token in q.context], device=backend.device)
    options = [option for question in batch for option in question.options]
    whose = torch.tensor([i for i, q in enumerate(batch) for _ in q.options], device=backend.device)
    longest = max(len(option) for option in options)
    written = torch.zeros((len(options), longest), dtype=torch.long, device=backend.device)
    for row, option in enumerate(options):
        written[row, : len(option)] = torch.tensor(option, device=backend.device)

    with torch.autocast(
        device_type=backend.device.type,
        dtype=backend.mixed_precision_dtype,
        enabled=backend.mixed_precision_dtype is not None,
    ):
        first = backend.model(
            input_ids=contexts,
            attention_mask=read.long(),
            position_ids=(read.cumsum(-1) - 1).clamp(min=0),
            use_cache=longest > 1,
            logits_to_keep=1,
        )
        logits = first.logits[whose]  # [options, 1, vocabulary]
        if longest > 1:
            cache = first.past_key_values
            cache.batch_select_indices(whose)
            more = longest - 1  # nothing follows an option's last token; what pads it comes after what counts
            rest = backend.model(
                input_ids=written[:, :-1],
                attention_mask=torch.cat([read[whose], read.new_ones(len(options), more)], dim=1).long(),
                position_ids=lengths[whose][:, None] + torch.arange(more, device=backend.device),
                use_cache=True,
                **{_cache_name(backend): cache},
            )
            logits = torch.cat([logits, rest.logits], dim=1)
    likely = torch.log_softmax(logits, dim=-1, dtype=backend.softmax_dtype)
    single = likely.gather(2, written[:, :, None])[:, :, 0]
    greedy = likely.argmax(-1) == written
    lengths_of_options = [len(option) for option in options]
    return [
        (float(single[row, :n].sum()), bool(greedy[row, :n].all()))
        for row, n in enumerate(lengths_of_options)
    ]
