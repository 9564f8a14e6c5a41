"""`stop_loops` with transformers and servers: texts that only repeat themselves end, all others are the same.

vLLM: tests/lm_eval/test_vllm.py.
"""

from __future__ import annotations

import pytest
from lm_eval.api.instance import Instance
from odd_server import OddServer, completion
from test_continuous_batching import QUESTIONS, nothing, request
from test_odd_replies import always, ask, counts, model

from ske_models import loops
from ske_models.errors import UserError
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.lm_eval.hf import ContinuousHF
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.records import Completion, Request

LIMIT = 200
AGAIN = "The same again. " * 60


@pytest.fixture(scope="module")
def backend(tiny_llama) -> ContinuousHF:
    args = {"pretrained": str(tiny_llama), "dtype": "float32", "device": "cpu", "batch_size": 4}
    return ContinuousHF.create_from_arg_obj(args)


def asked(backend: ContinuousHF) -> list[Request]:
    requests = [request(backend, question, limit=LIMIT) for question in QUESTIONS]
    origin = Instance("generate_until", {}, ("", {}), 0)
    return [Request(r.step, r.prompt, r.settings, r.limit, r.question, origin) for r in requests]


def test_texts_end_where_they_loop_and_only_there(backend, monkeypatch):
    monkeypatch.setattr(loops, "SHORTEST", 1)
    monkeypatch.setattr(loops, "TIMES", 2)  # a token twice: this model writes noise
    requests = asked(backend)
    whole = backend.write(requests, nothing, quiet=True)
    monkeypatch.setattr(backend, "stop_loops", True)
    ended = backend.write(requests, nothing, quiet=True)
    assert {text.looped for text in ended if isinstance(text, Completion)} == {True, False}
    for before, after in zip(whole, ended, strict=True):
        assert isinstance(before, Completion)
        assert isinstance(after, Completion)
        assert before.startswith(after)
        assert (before == after) is not after.looped
        assert (after.tokens == before.tokens) is not after.looped
        assert after.truncated is (before.truncated and not after.looped)
    told: dict[int, str] = {}
    static = LMEvalEngine(backend, quiet=True).generate(
        requests, lambda n, text: told.update({n: text}) or ()
    )
    assert static == ended == [told[n] for n in range(len(requests))]
    for texts in (static, list(told.values())):
        loop = [isinstance(text, Completion) and text.looped for text in texts]
        assert sum(loop) == sum(text.looped for text in ended if isinstance(text, Completion))
    assert [isinstance(text, Completion) and text.looped for text in static] == [
        isinstance(text, Completion) and text.looped for text in ended
    ]


def test_a_server_is_sent_the_rule_and_says_what_it_has_ended():
    with OddServer(always(completion("Four. Four. Four.", "repetition"))) as server:
        lm = model(server, stop_loops=True)
        assert ask(lm, "Which?") == ["Four. Four. Four."]
        assert server.asked[0].body["repetition_detection"] == loops.DETECTION
        assert counts(lm)["looped"] == 1
        assert "truncated" not in counts(lm)
        plain = model(server)
        ask(plain, "Which?")
        assert "repetition_detection" not in server.asked[1].body


def test_a_server_that_has_no_such_rule_is_found_out():
    with OddServer(always(completion(AGAIN, "length"))) as server:
        assert counts_of_plain(server)["truncated"] == 1
        with pytest.raises(
            UserError, match="does not end texts that only repeat themselves.*leave stop_loops out"
        ):
            ask(model(server, stop_loops=True), "Which?")


def counts_of_plain(server: OddServer) -> dict[str, int]:
    plain = model(server)
    assert ask(plain, "Which?") == [AGAIN]
    return counts(plain)


def test_a_backend_without_it_is_refused(tiny_llama):
    with pytest.raises(
        UserError, match="stop_loops=True: backend=dummy has no such end; hf, vllm and `vllm serve` do"
    ):
        SKEExplicitLM("dummy", store="none", prompts="default", stop_loops=True)
