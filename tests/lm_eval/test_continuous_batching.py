"""transformers as a backend: continuous batching and shared contexts give what lm-eval's own ways give."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    Lfm2Config,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
)

from ske_models.errors import UserError
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.lm_eval.hf import LONG, ContinuousHF
from ske_models.lm_eval.shared_prefix import can_share
from ske_models.records import Completion, Request

GREEDY = {"do_sample": False, "temperature": 0.0, "until": []}
QUESTIONS = [f"Which of these is correct? {'The capital of France is Paris. ' * n}" for n in range(6)]


@pytest.fixture(scope="module")
def backend(tiny_llama) -> ContinuousHF:
    args = {"pretrained": str(tiny_llama), "dtype": "float32", "device": "cpu", "batch_size": 4}
    return ContinuousHF.create_from_arg_obj(args)


def request(backend: ContinuousHF, question: str, limit: int = 48, **settings) -> Request:
    settings = GREEDY | {"max_gen_toks": limit} | settings
    prompt = backend.apply_chat_template([{"role": "user", "content": question}])
    return Request("knowledge", prompt, settings, limit, question, None)


def static(backend: ContinuousHF, requests: list[Request]) -> list[str]:
    asked = [Instance("generate_until", {}, (r.prompt, dict(r.settings)), 0) for r in requests]
    return backend.generate_until(asked, disable_tqdm=True)


def nothing(index: int, text: str) -> list[Request]:
    return []


def test_texts_are_those_of_static_batches(backend):
    requests = [request(backend, question) for question in QUESTIONS]
    # in the middle of a text, where it is also other tokens than the stop string's own
    stop = static(backend, requests[:1])[0][20:26]
    requests += [request(backend, question, until=[stop]) for question in QUESTIONS]
    requests += [request(backend, question, limit=7) for question in QUESTIONS]
    texts = backend.write(requests, nothing, quiet=True)
    assert texts == static(backend, requests)
    assert texts[6] == texts[0].split(stop)[0] != texts[0]
    assert not texts[6].truncated
    assert texts[12].truncated
    assert texts[12].tokens == 7
    assert [text.prompt_tokens for text in texts] == [len(backend.tok_encode(r.prompt)) for r in requests]


def test_what_follows_a_text_is_asked_in_the_same_call(backend):
    first = [request(backend, question, limit=8 + n) for n, question in enumerate(QUESTIONS)]
    following: list[Request] = []

    def done(index: int, text: str) -> list[Request]:
        if index >= len(first):
            return []
        following.append(replace(request(backend, f"{QUESTIONS[index]} {text}"), step="answer"))
        return following[-1:]

    texts = backend.write(first, done, quiet=True)
    assert len(following) == len(first)
    assert texts == static(backend, first + following)


def test_static_batches_say_how_long_their_texts_are(backend):
    requests = [request(backend, question) for question in QUESTIONS]
    stop = static(backend, requests[:1])[0][20:26]
    requests += [request(backend, question, until=[stop]) for question in QUESTIONS]
    requests += [request(backend, question, limit=7) for question in QUESTIONS]
    origin = Instance("generate_until", {}, ("", {}), 0)
    requests = [replace(one, origin=origin) for one in requests]
    texts = LMEvalEngine(backend, quiet=True).generate(requests, lambda *_: ())
    assert not backend.suits(requests)
    cut = set()
    for text, other in zip(texts, backend.write(requests, nothing, quiet=True), strict=True):
        assert isinstance(text, Completion)
        assert isinstance(other, Completion)
        assert (text, text.truncated, text.prompt_tokens) == (other, other.truncated, other.prompt_tokens)
        ended = (other.tokens or 0) - (not other.truncated)  # without its end token
        cut.add(text.tokens is None)
        assert text.tokens in (ended, None)
    assert cut == {True, False}, "where a stop string cuts it, its tokens are counted"


def test_a_request_that_it_cannot_take_is_left_for_the_next_call(backend):
    sampled = request(backend, QUESTIONS[0], do_sample=True, temperature=1.0)
    long = request(backend, "a " * 1700)  # more than its cache was made for
    for other in (sampled, long):
        follow = iter([other, request(backend, QUESTIONS[1]), request(backend, QUESTIONS[2])])
        first = [request(backend, question, limit=4) for question in QUESTIONS[:3]]
        assert len(backend.write(first, lambda *_, follow=follow: [next(follow)], quiet=True)) == 3


def test_after_an_interrupt_nothing_goes_on(backend):
    def interrupted(index: int, text: str) -> list[Request]:
        raise KeyboardInterrupt

    requests = [request(backend, QUESTIONS[0], limit=4), request(backend, QUESTIONS[1])]
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        backend.write(requests, interrupted, quiet=True)
    assert threading.active_count() == before
    assert backend.write(requests[:1], nothing, quiet=True) == static(backend, requests[:1])


def test_what_is_used_is_said_in_one_line(backend, caplog):
    with caplog.at_level(logging.INFO, logger="ske_models.lm_eval.hf"):
        assert backend.suits([request(backend, "a?", limit=LONG)])
        assert backend.suits([request(backend, "b?", limit=LONG)])
        assert not backend.suits([request(backend, "a?", limit=LONG - 1)])
        assert not backend.suits([request(backend, "a?", do_sample=True, temperature=1.0)])
        assert not backend.suits([request(backend, "a?", repetition_penalty=1.2)])
    said = [record.getMessage().removeprefix("backend=hf: batching is ") for record in caplog.records]
    assert said == [
        "continuous, 4 texts at a time",
        "static, sorted by length: no text can have 256 tokens",
        "static, sorted by length: settings that are not plainly greedy",
    ]


def test_a_model_whose_rounding_or_logits_differ_is_asked_in_static_batches(tiny_llama):
    args = {"pretrained": str(tiny_llama), "dtype": "bfloat16", "device": "cpu"}
    model = ContinuousHF.create_from_arg_obj(args)
    assert not model.suits([request(model, "a?", limit=LONG)])
    model = ContinuousHF.create_from_arg_obj(args | {"dtype": "float32"})
    assert model.suits([request(model, "a?", limit=LONG)])
    model.model.generation_config.repetition_penalty = 1.1
    assert "generation_config" in (model._find_why_static() or "")


def test_a_limit_that_leaves_no_room_for_a_prompt_is_one_line(backend):
    with pytest.raises(UserError, match="2048 tokens may be written, but the model has room for 2048"):
        backend.write([request(backend, "a?", limit=2048)], nothing, quiet=True)


def of_family(config: PretrainedConfig, tiny_llama: Path) -> ContinuousHF:
    """A random model of another family, with the tests' tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    return ContinuousHF(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(tiny_llama), device="cpu")


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_a_family_that_cannot_run_in_continuous_batches_is_asked_in_static_ones(tiny_llama, caplog):
    """Pythia's, for one: transformers 5.24 ends in an error at its first token."""
    model = of_family(GPTNeoXConfig(vocab_size=4096, **SMALL), tiny_llama)
    with caplog.at_level(logging.INFO, logger="ske_models.lm_eval.hf"):
        assert not model.suits([request(model, "a?", limit=LONG)])
        assert not model.suits([request(model, "b?", limit=LONG)])
    said = [record.getMessage() for record in caplog.records if record.name == "ske_models.lm_eval.hf"]
    why = "transformers cannot run GPTNeoXForCausalLM in continuous batches"
    assert said == [f"backend=hf: batching is static, sorted by length: {why}"]
    assert "Error in generation loop" not in caplog.text


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        (GPTNeoXConfig(vocab_size=4096, **SMALL), True),
        (MistralConfig(vocab_size=4096, num_key_value_heads=2, sliding_window=8, **SMALL), True),
        (MambaConfig(vocab_size=4096, hidden_size=64, num_hidden_layers=2), False),
        (
            Lfm2Config(
                vocab_size=4096, layer_types=["conv", "full_attention"], num_key_value_heads=2, **SMALL
            ),
            False,
        ),
    ],
    ids=["gpt_neox", "mistral, sliding window", "mamba", "lfm2"],
)
def test_contexts_are_shared_where_the_cache_can_be_handed_out(config, shared, tiny_llama):
    model = of_family(config, tiny_llama)
    assert can_share(model) is shared
    options = [" Paris", " is the capital of France", "The", " a question that it needs"]
    requests = [Instance("loglikelihood", {}, (c, option), 0) for c in QUESTIONS[:2] for option in options]
    scores, plain = model.score(requests), HFLM.loglikelihood(model, requests, disable_tqdm=True)
    assert [score for score, _ in scores] == pytest.approx([score for score, _ in plain], abs=1e-3)


def test_scores_are_those_of_lm_eval(backend):
    assert can_share(backend)
    options = [" Paris", " is the capital of France", "The", " a question that it needs"]
    contexts = [*QUESTIONS, "a " * 2047, ""]  # one that is too long, and one that is empty
    requests = [Instance("loglikelihood", {}, (c, option), 0) for c in contexts for option in options]
    shared, plain = backend.score(requests), HFLM.loglikelihood(backend, requests, disable_tqdm=True)
    assert [greedy for _, greedy in shared] == [greedy for _, greedy in plain]
    assert [score for score, _ in shared] == pytest.approx([score for score, _ in plain], abs=1e-3)
