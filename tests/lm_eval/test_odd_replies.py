"""Replies as real servers were seen to give them, over real HTTP: what is read, tried again, and final.

A reply without a message is a failed call, never an empty text; what one prompt's filter stops is counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from odd_server import USAGE, Asked, OddServer, Sent, completion, without

from ske_models.engines import http
from ske_models.errors import UserError
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.records import Answer
from ske_models.reply import reply_of

TASKS = Path(__file__).parents[1] / "tasks"
KEY = "sk-proj-0123456789abcdefSECRET"
GOOD = completion("It has four. The answer is 4.")
THOUGHT = "Six? No."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def model(server: OddServer, **args: Any) -> SKEExplicitLM:
    given: dict[str, Any] = {"method": "direct", "store": "none", "base_url": server.base_url}
    given |= {"max_retries": 3, "max_wait": 5, **args}
    return SKEExplicitLM(backend="local-chat-completions", model="m", **given)


def ask(lm: SKEExplicitLM, *questions: str, until: tuple[str, ...] = ()) -> list[str]:
    """The texts of the answers to questions, by lm-eval's own call."""
    settings = {"until": list(until), "max_gen_toks": 24, "do_sample": False, "temperature": 0.0}
    return lm.generate_until(
        [
            Instance(
                "generate_until",
                {"question": question},
                (lm.apply_chat_template([{"role": "user", "content": question}]), settings),
                number,
                metadata=("toy", number, 1),
            )
            for number, question in enumerate(questions)
        ]
    )


def counts(lm: SKEExplicitLM, step: str = "answer") -> dict[str, int]:
    return {name: n for name, n in lm.get_model_info()["ske"]["steps"][step].items() if n}


def always(reply: Any, status: int = 200) -> Callable[[Asked], Sent]:
    return lambda asked: (status, reply)


# What is read


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (completion([{"type": "text", "text": "It "}, {"type": "text", "text": "is 4."}]), "It is 4."),
        (completion([{"type": "output_text", "text": "4"}]), "4"),
        (completion([]), ""),
        (
            completion(
                [
                    {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
                    {"type": "text", "text": "4"},
                ]
            ),
            f"<think>\n{THOUGHT}\n</think>\n\n4",
        ),
        (completion("4", reasoning_content=THOUGHT), f"<think>\n{THOUGHT}\n</think>\n\n4"),
        (completion("4", reasoning=THOUGHT), f"<think>\n{THOUGHT}\n</think>\n\n4"),
        (completion("4", reasoning_content=None), "4"),
        (completion(None, "length", reasoning_content=THOUGHT), f"<think>\n{THOUGHT}"),
        (completion(None, reasoning_content=THOUGHT), f"<think>\n{THOUGHT}\n</think>\n\n"),
        (without(GOOD, message={"reasoning": THOUGHT}, finish_reason="length"), f"<think>\n{THOUGHT}"),
        (completion("<think>\nSix?</think>4", reasoning_content=THOUGHT), "<think>\nSix?</think>4"),
        (completion(None), ""),
        (completion("", "length"), ""),
        (completion(None, refusal="I cannot help with that."), "I cannot help with that."),
        (without(completion("4"), "index"), "4"),
        (without(completion("4"), index="0"), "4"),
        (without(completion("4"), index=None), "4"),
        (without(completion("4"), "finish_reason"), "4"),
        (without(completion("4"), finish_reason=7), "4"),
        ({"choices": [{"message": {"content": "4"}}]}, "4"),
        ({"choices": [{"message": {"content": "5"}}, GOOD["choices"][0]]}, "It has four. The answer is 4."),
        (completion("4") | {"error": None}, "4"),
        (completion("4 \ud83d"), "4 \ufffd"),
        (completion("4 \ud83d\ude00"), "4 \U0001f600"),
        (completion("4", reasoning_content="\udc00"), "<think>\n\ufffd\n</think>\n\n4"),
        (completion("a\u2028b\x85c\x0cd"), "a\u2028b\x85c\x0cd"),
    ],
)
def test_a_reply_with_a_message_is_read(tmp_path, reply, text):
    store = tmp_path / "store.sqlite"
    with OddServer(always(reply)) as server:
        lm = model(server, store=str(store))
        assert ask(lm, "How many?") == [text]
        assert ask(model(server, store=str(store)), "How many?") == [text]
    assert len(server.asked) == 1, "what is read is stored, and read again as it was"
    assert counts(lm).get("empty", 0) == (not reply_of(text).strip())


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        7,
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0},
        {"prompt_tokens": 1.5, "completion_tokens": 2.0},
        {"prompt_tokens": "100", "completion_tokens": "ten"},
        {"input_tokens": 5, "output_tokens": 5},
        {"prompt_tokens": 10**30, "completion_tokens": 10**30},
        {"prompt_tokens": -5, "completion_tokens": -1},
        {"prompt_tokens": True, "completion_tokens": False},
        USAGE | {"prompt_tokens_details": "none"},
        USAGE | {"prompt_tokens_details": {"cached_tokens": "x"}},
    ],
)
def test_odd_usage_means_unknown(usage):
    with OddServer(always(completion("4", usage=usage))) as server:
        lm = model(server)
        assert ask(lm, "How many?") == ["4"]
    known = isinstance(usage, dict) and "prompt_tokens_details" in usage
    assert counts(lm).get("output_tokens") == (10 if known else None)
    assert counts(lm).get("prompt_tokens") == (100 if known else None)
    assert "cached_tokens" not in counts(lm)


def test_a_stop_string_in_a_thought_does_not_cut_it():
    said = completion("<think>\nFirst.\n\nSecond.\n</think>\n\nFour.\n\nQuestion: and a bee?")
    apart = completion("Four.\n\nQuestion: and a bee?", reasoning_content="First.\n\nSecond.")
    with OddServer(lambda asked: (200, said if "owl" in asked.prompt else apart)) as server:
        texts = ask(model(server), "An owl?", "A cat?", until=("\n\nQuestion",))
    assert texts == ["<think>\nFirst.\n\nSecond.\n</think>\n\nFour."] * 2


def test_a_thought_is_no_knowledge():
    with OddServer(always(completion("An owl has two legs.", reasoning_content=THOUGHT))) as server:
        ask(model(server, method="explicit"), "How many legs has an owl?")
    assert len(server.asked) == 2
    assert "An owl has two legs." in server.asked[1].prompt
    assert THOUGHT not in json.dumps(server.asked[1].body)


# What is no message is a failed call


NOTHING = [
    without(GOOD, message=None),
    without(GOOD, message="4"),
    without(GOOD, message={}),
    without(GOOD, "message"),
    completion(4),
    completion({"text": "4"}),
    completion(["4"]),
    completion([{"type": "text"}]),
    completion([{"type": "image_url", "image_url": {"url": "x"}}]),
    without(GOOD, finish_reason="error"),
    {"choices": []},
    {"choices": None},
    {"choices": {}},
    {"choices": ["4"]},
    {"choices": [None]},
    {"id": "1"},
    {},
    [],
    [GOOD],
    "4",
    4,
    None,
    {"error": "overloaded"},
    {"error": {"message": "no", "code": "what"}},
    {"error": {"message": "overloaded", "code": 503}},
    b"",
    b"<html>Welcome</html>",
    b'{"choices": [{"mess',
    b"\xff\xfe",
    b"[" * 200_000,
    b"1" * 10_000,
]


@pytest.mark.parametrize("reply", NOTHING, ids=lambda reply: str(reply)[:40])
def test_a_reply_without_a_message_is_a_failed_call(tmp_path, reply):
    store = tmp_path / "store.sqlite"
    with OddServer(lambda asked: (200, reply if asked.nth == 1 else GOOD)) as server:
        assert ask(model(server, store=str(store)), "How many?") == ["It has four. The answer is 4."]
    assert len(server.asked) == 2
    stored = [text for (text,) in sqlite3.connect(store).execute("SELECT text FROM steps")]
    assert stored == ["It has four. The answer is 4."]


@pytest.mark.parametrize("reply", [NOTHING[0], NOTHING[8], [GOOD], b"<html>Welcome</html>"])
def test_a_server_that_never_gives_a_message_ends_the_run_in_a_line(tmp_path, reply, capfd):
    store = tmp_path / "store.sqlite"
    with OddServer(always(reply)) as server, pytest.raises(UserError) as error:
        ask(model(server, store=str(store), max_retries=1, max_wait=60), *"abc")
    assert "in the reply" in str(error.value)
    assert "the same command goes on" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(server.asked) < 12
    assert sqlite3.connect(store).execute("SELECT COUNT(*) FROM steps").fetchone() == (0,)
    assert "Traceback" not in capfd.readouterr().err


def test_a_reply_too_large_for_memory_is_not_read(monkeypatch):
    monkeypatch.setattr(http, "LARGEST", 2**20)
    gigabyte = (b"x" * 2**16 for _ in range(2**14))
    with OddServer(lambda asked: (200, gigabyte if asked.nth == 1 else GOOD)) as server:
        assert ask(model(server), "How many?") == ["It has four. The answer is 4."]
        assert server.sent < 64 * 2**20
    whole = always(b'"' + b"x" * 2**21 + b'"')
    with OddServer(whole) as server, pytest.raises(UserError, match="a reply of more than 1 MB"):
        ask(model(server, max_retries=0), "How many?")


SCORES = {
    "token_logprobs": [None, -1.0, -2.0, -0.5],
    "top_logprobs": [None, {"a": -1.0}, {"a": -2.0}, {"a": -0.5}],
}


def scored(*logprobs: Any) -> dict[str, Any]:
    """A reply with the log-probabilities of prompts."""
    return {"choices": [{"index": i, "text": "", "logprobs": each} for i, each in enumerate(logprobs)]}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"choices": []}, None),
        (None, None),
        (scored(SCORES | {"token_logprobs": [None, "x", {}, []]}), None),
        (scored(SCORES | {"top_logprobs": None}), None),
        (without(scored(SCORES), "index"), None),
        (scored(None), "scores no prompts: there are no log-likelihoods in its reply"),
        (scored({}), "scores no prompts: there are no log-likelihoods in its reply"),
    ],
)
def test_log_likelihoods_that_cannot_be_read_are_a_failed_call(tiny_llama, reply, said):
    """Three tokens, the last two of which are scored; the server's own new token comes last."""
    with OddServer(lambda asked: (200, reply if asked.nth == 1 else scored(SCORES))) as server:
        given: dict[str, Any] = {
            "model": str(tiny_llama),
            "tokenizer_backend": "huggingface",
            "max_retries": 3,
        }
        lm = SKEExplicitLM(
            backend="local-completions", method="direct", store="none", base_url=server.base_url, **given
        )
        lm.inner.tok_encode = lambda text, **_: [ord(c) for c in text]
        request = Instance("loglikelihood", {}, ("a", "bc"), 0, metadata=("toy", 0, 1))
        if said:
            with pytest.raises(UserError, match=said):
                lm.loglikelihood([request])
        else:
            assert lm.loglikelihood([request]) == [(-3.0, True)]
            assert len(server.asked) == 2


# One prompt that a filter stops


FILTERED = [
    (400, {"error": {"message": "The response was filtered", "code": "content_filter", "status": 400}}),
    (400, {"error": {"message": "policy", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    (400, {"error": {"message": "... triggering Azure OpenAI's content management policy.", "code": None}}),
    (403, {"error": {"message": "model requires moderation and your input was flagged", "code": 403}}),
    (200, completion(None, "content_filter")),
    (200, completion("An owl is", "content_filter")),
    (200, without(GOOD, message=None, finish_reason="content_filter")),
    (200, {"error": {"message": "The response was filtered: content_filter", "code": 400}}),
]


@pytest.mark.parametrize("answer", FILTERED, ids=lambda answer: json.dumps(answer)[:60])
def test_a_filtered_prompt_is_empty_counted_named_and_sent_again(tmp_path, answer, capfd):
    store = tmp_path / "store.sqlite"
    with OddServer(lambda asked: answer if "owl" in asked.prompt else (200, GOOD)) as server:
        for run in range(2):
            before = len(server.asked)
            lm = model(server, store=str(store))
            assert ask(lm, "A cat?", "An owl, a bee?", "A dog?") == [GOOD_TEXT, "", GOOD_TEXT]
            assert counts(lm)["filtered"] == counts(lm)["empty"] == 1
            said = capfd.readouterr().err
            assert f"1 of {1 if run else 3} prompts were stopped by the server's content filter" in said
            assert "An owl, a bee?" in said
            assert len(server.asked) - before == (1 if run else 3)


GOOD_TEXT = "It has four. The answer is 4."


def test_filtered_prompts_in_both_steps_of_a_whole_evaluation(tmp_path):
    """Knowledge of one item, and the answer of another: lm-eval's table has all twelve."""

    def behaviour(asked: Asked) -> Sent:
        first = "Write down the knowledge" in asked.prompt
        stopped = "an owl" if first else "a cat"
        return FILTERED[0] if f"has {stopped}?" in asked.prompt.replace("a owl", "an owl") else (200, GOOD)

    with OddServer(behaviour) as server:
        lm = model(server, method="explicit")
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=["toy_write"],
            task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
            apply_chat_template=True,
            bootstrap_iters=0,
        )
    answers = {sample["doc"]["question"]: sample["resps"][0][0] for sample in results["samples"]["toy_write"]}
    assert len(answers) == 12
    assert [question for question, answer in answers.items() if not answer] == ["How many legs has a cat?"]
    assert answers["How many legs has a owl?"].trace["knowledge"] == ""
    assert [counts(lm, step)["filtered"] for step in ("knowledge", "answer")] == [1, 1]


# Parameters that some models do not take


def refuses(**refused: str) -> Callable[[Asked], Sent]:
    """A server that takes none of some parameters, and says so in its words."""

    def behaviour(asked: Asked) -> Sent:
        for name, words in refused.items():
            if name in asked.body:
                return 400, {"error": {"message": words, "type": "invalid_request_error"}}
        return 200, GOOD

    return behaviour


O1 = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. "
    "Use 'max_completion_tokens' instead.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default "
    "(1) value is supported.",
    "stop": "Unsupported parameter: 'stop' is not supported with this model.",
}


@pytest.mark.parametrize(
    ("refused", "given"),
    [
        (O1, {"max_completion_tokens": 24}),
        ({"seed": "Unrecognized request argument: seed"}, {"max_tokens": 24, "temperature": 0.0}),
        ({"seed": "body.seed: Extra inputs are not permitted"}, {"max_tokens": 24}),
    ],
)
def test_what_a_model_does_not_take_is_left_out_from_then_on(refused, given, capfd):
    with OddServer(refuses(**refused)) as server:
        lm = model(server, num_concurrent=1)
        assert ask(lm, *"abcdef", until=("\n\n",)) == [GOOD_TEXT] * 6
        assert ask(lm, *"ghi", until=("\n\n",)) == [GOOD_TEXT] * 3
    assert len(server.asked) == 9 + len(refused)
    last = server.asked[-1].body
    assert not last.keys() & refused.keys()
    assert given.items() <= last.items()
    assert capfd.readouterr().err.count("does not take") == len(refused)


def test_another_400_ends_the_run_at_once():
    long = "This model's maximum context length is 200 tokens. However, you requested 512 output tokens"
    refused = always({"error": {"message": long, "code": 400}}, 400)
    said = r"refuses, status 400: This model's maximum .*lower the token limits"
    with OddServer(refused) as server, pytest.raises(UserError, match=said):
        ask(model(server, num_concurrent=1), *"abc")
    assert len(server.asked) == 1


# Keys


@pytest.mark.parametrize(
    "said",
    [
        f"Incorrect API key provided: {KEY}.",
        f"Incorrect API key provided: {KEY[:6]}***{KEY[-4:]}.",
        f"Bearer {KEY}",
        f"key {KEY[8:20]}...",
        json.dumps({"key": KEY}),
        f"a{KEY}b{KEY}",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_no_part_of_a_key_that_a_server_repeats_is_shown(said, status, capfd):
    refused = always({"error": {"message": said, "code": 401}}, status)
    with OddServer(refused) as server, pytest.raises(UserError) as error:
        ask(model(server, max_retries=0), "How many?")
    shown = str(error.value) + capfd.readouterr().err
    assert "<key>" in shown
    assert not [KEY[at : at + 4] for at in range(len(KEY) - 3) if KEY[at : at + 4] in shown]


def test_user_and_password_of_an_address_are_sent_and_not_shown(capfd):
    with OddServer(always(GOOD)) as server:
        lm = model(server, base_url=f"http://me:p%40ssword@{server.address}/v1")
        assert ask(lm, "How many?") == [GOOD_TEXT]
    assert server.asked[0].headers["Authorization"] == "Basic bWU6cEBzc3dvcmQ="
    refused = always({"detail": "not for me:p@ssword, bWU6cEBzc3dvcmQ="}, 403)
    with OddServer(refused) as server, pytest.raises(UserError, match="refuses, status 403") as error:
        ask(model(server, base_url=f"http://me:p%40ssword@{server.address}/v1"), "How many?")
    shown = str(error.value) + capfd.readouterr().err
    assert not [secret for secret in ("ssword", "bWU6") if secret in shown]


def test_what_a_header_holds_is_not_shown(capfd):
    header = {"X-Key": "hunter2hunter2", "Authorization": "Bearer other-key"}

    def refused(asked: Asked) -> Sent:
        return 401, {"error": f"{asked.headers['X-Key']} {asked.headers['Authorization']}"}

    with OddServer(refused) as server, pytest.raises(UserError, match="status 401") as error:
        ask(model(server, header=header), "How many?")
    shown = str(error.value) + capfd.readouterr().err
    assert not [secret for secret in ("hunter2", "other-key") if secret in shown]


# What cannot be written


def test_half_of_a_surrogate_pair_does_not_end_a_run(tmp_path):
    store = tmp_path / "store.sqlite"
    with OddServer(lambda asked: (200, completion(f"About {asked.prompt[:8]} \udc00."))) as server:
        for _ in range(2):
            lm = model(server, store=str(store), method="explicit")
            [answer] = ask(lm, "Is \ud83d a bee?")
            assert answer.endswith("\ufffd.")
            assert isinstance(answer, Answer)
            (answer + str(answer.trace)).encode()
    assert len(server.asked) == 2, "the second run has both texts from the store"


# Arguments


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"num_concurrent": 0}, "num_concurrent=0: a whole number of at least 1"),
        ({"num_concurrent": -1}, "num_concurrent=-1: a whole number"),
        ({"num_concurrent": 1.5}, "num_concurrent=1.5: a whole number"),
        ({"num_concurrent": "many"}, "num_concurrent=many: a whole number"),
        ({"max_retries": -1}, "max_retries=-1: a number from 0 on"),
        ({"max_retries": "x"}, "max_retries=x: a number from 0 on"),
        ({"max_wait": -3}, "max_wait=-3: a number from 0 on"),
        ({"max_wait": float("inf")}, "max_wait=inf: a number from 0 on"),
        ({"max_wait": float("nan")}, "max_wait=nan: a number from 0 on"),
        ({"timeout": 0}, "timeout=0: a number above 0"),
        ({"timeout": "soon"}, "timeout=soon: a number above 0"),
        (
            {"base_url": "localhost:8000/v1"},
            "base_url: 'localhost:8000/v1' is no address; write one as in http://",
        ),
        ({"base_url": "ftp://a/v1"}, "'ftp://a/v1' is no address"),
        ({"base_url": "http://"}, "is no address"),
        ({"base_url": "http://a:99999/v1"}, "is no address"),
        ({"base_url": "http://[::1/v1"}, "is no address"),
        ({"base_url": "http://a/v1;nonsense"}, "'nonsense' is no address"),
        ({"base_url": "htp://me:pass@a/v1"}, r"'htp://<key>@a/v1' is no address"),
        ({"base_url": ";"}, "base_url: the server's address is needed"),
        ({"base_url": 8000}, "'8000' is no address"),
        ({"header": "X-Key: 1"}, "header: a mapping is needed"),
        ({"header": {"X-Key": "a\nb"}}, "header: has characters that no key has"),
        ({"header": {"X-Key": "é"}}, "header: has characters that no key has"),
    ],
)
def test_a_mistake_in_an_argument_is_a_line(args, said):
    with OddServer(always(GOOD)) as server, pytest.raises(UserError, match=said) as error:
        ask(model(server, **args), "How many?")
    assert "\n" not in str(error.value)
    assert not server.asked
