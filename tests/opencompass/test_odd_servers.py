"""OpenCompass' OpenAI class over a real HTTP server that answers as real ones were seen to.

A reply without a message is a failed call, never an empty text; no thought reaches step 2; no key is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opencompass")

from odd_server import Asked, OddServer, Sent, completion, without
from opencompass.models import OpenAISDK
from opencompass.utils.prompt import PromptList

from ske_models.errors import UserError
from ske_models.opencompass import SKEExplicit, conclusion
from ske_models.opencompass.api import ContinuousOpenAI

KEY = "sk-proj-0123456789abcdefSECRET"
THOUGHT = "Perhaps the answer is (A). SECRET-THOUGHT."


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def is_first_step(asked: Asked) -> bool:
    return "Write down the knowledge" in asked.prompt


def text_of(asked: Asked) -> str:
    return "FACT: water boils at 100 degrees." if is_first_step(asked) else "It follows. The answer is (B)."


def model(server: OddServer, tokenizer: Path, method: str = "explicit", **llm: Any) -> SKEExplicit:
    config = {"type": OpenAISDK, "path": "m", "openai_api_base": server.base_url, "retry": 2}
    config |= {"tokenizer_path": str(tokenizer), "max_workers": 4, "timeout": 20}
    return SKEExplicit(config | llm, method=method, store="none", prompts="default")


def ask(model: SKEExplicit, *questions: str) -> list[Any]:
    return model.generate([PromptList([{"role": "HUMAN", "prompt": text}]) for text in questions], 64)


GOOD = {
    "parts": lambda text: completion([{"type": "text", "text": text}]),
    "thought in marks": lambda text: completion(f"<think>\n{THOUGHT}\n</think>\n\n{text}"),
    "thought in brackets": lambda text: completion(f"[THINK]{THOUGHT}[/THINK]{text}"),
    "thought in channels": lambda text: completion(
        f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{text}"
    ),
    "thought apart": lambda text: completion(text, reasoning_content=THOUGHT),
    "no usage": lambda text: completion(text, usage=None),
    "odd usage": lambda text: completion(text, usage={"prompt_tokens": None, "completion_tokens": -3}),
    "no index": lambda text: without(completion(text), "index"),
    "no finish_reason": lambda text: without(completion(text), "finish_reason"),
    "end of turn": lambda text: completion(f"{text}<|im_end|>\n<|im_start|>user"),
    "half a character": lambda text: completion(f"{text} \ud83d"),
    "other line ends": lambda text: completion(f"{text}\u2028Next\x85line"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_what_holds_a_message_is_read(kind, tiny_llama):
    with OddServer(lambda asked: (200, GOOD[kind](text_of(asked)))) as server:
        lm = model(server, tiny_llama)
        assert isinstance(lm.inner, ContinuousOpenAI)
        answers = ask(lm, "Which (A) or (B)?", "And which?")
    for answer in answers:
        assert conclusion(answer).startswith("The answer is (B).")
        assert "SECRET" not in conclusion(answer)
        assert answer.trace["knowledge"].startswith("FACT: water boils")
    assert lm.pipeline.counts["answer"].truncated == 0
    assert all("SECRET-THOUGHT" not in str(asked.body) for asked in server.asked)


@pytest.mark.parametrize(
    "reply",
    [
        completion(f"<think>\n{THOUGHT}", "length"),
        completion(None, "length", reasoning_content=THOUGHT),
        without(completion("", "length"), message={"role": "assistant", "reasoning_content": THOUGHT}),
    ],
    ids=["no end", "null content", "no content"],
)
def test_a_thought_that_does_not_end_is_an_empty_text_and_counted(reply, tiny_llama):
    with OddServer(lambda _: (200, reply)) as server:
        lm = model(server, tiny_llama)
        [answer] = ask(lm, "Which?")
    assert conclusion(answer) == ""
    assert THOUGHT in answer  # the whole text is what OpenCompass saves
    for step in lm.pipeline.counts.values():
        assert (step.truncated, step.empty) == (1, 1)
    assert all("SECRET-THOUGHT" not in str(asked.body) for asked in server.asked)


@pytest.mark.parametrize(
    ("status", "reply", "line"),
    [
        (200, {"id": "1", "choices": []}, "no completion in the reply"),
        (200, [completion("x")], "no completion in the reply"),
        (200, without(completion("x"), message=None), "no message in the reply"),
        (429, {"error": {"message": "No quota", "code": "insufficient_quota"}}, "no credit"),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY[:8]}***{KEY[-4:]}"}}, "a valid key"),
        (400, {"error": {"message": "maximum context length is 200 tokens"}}, "longer context"),
    ],
    ids=["no choices", "a list", "no message", "no quota", "wrong key", "too long"],
)  # fmt: skip
def test_what_holds_none_ends_in_a_line(status, reply, line, tiny_llama):
    with OddServer(lambda _: (status, reply)) as server, pytest.raises(UserError) as error:
        ask(model(server, tiny_llama, "direct"), "Which?")
    assert line in str(error.value)
    assert KEY[:8] not in str(error.value)
    assert KEY[-4:] not in str(error.value)


def test_one_filtered_prompt_does_not_end_the_run(tiny_llama, capfd):
    refusal = {"error": {"message": "content management policy", "code": "content_filter"}}

    def behaviour(asked: Asked) -> Sent:
        return (400, refusal) if "poison" in asked.prompt else (200, completion(text_of(asked)))

    with OddServer(behaviour) as server:
        lm = model(server, tiny_llama, "direct")
        answers = ask(lm, "good one", "poison", "good two")
    assert [conclusion(answer) for answer in answers] == ["The answer is (B).", "", "The answer is (B)."]
    assert lm.pipeline.counts["answer"].filtered == 1
    assert "1 of 3 prompts were stopped by the server's content filter" in capfd.readouterr().err


def test_what_a_reasoning_model_does_not_take(tiny_llama):
    """The o-series: `max_completion_tokens`, no temperature; here by a name that does not give it away."""

    def behaviour(asked: Asked) -> Sent:
        for name in ("max_tokens", "temperature"):
            if name in asked.body:
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
        return 200, completion(text_of(asked))

    with OddServer(behaviour) as server:
        [answer] = ask(model(server, tiny_llama, "direct"), "Which?")
    assert conclusion(answer) == "The answer is (B)."
    assert server.asked[-1].body["max_completion_tokens"] == 64


def test_settings_that_switch_thinking_off_reach_both_steps(tiny_llama):
    with OddServer(lambda asked: (200, completion(text_of(asked)))) as server:
        lm = model(server, tiny_llama, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
        ask(lm, "Which?")
    assert [is_first_step(asked) for asked in server.asked] == [True, False]
    assert all(asked.body["chat_template_kwargs"] == {"enable_thinking": False} for asked in server.asked)


def test_no_key_and_no_password_is_kept(tiny_llama, tmp_path):
    with OddServer(lambda asked: (200, completion(text_of(asked)))) as server:
        secret = server.base_url.replace("://", "://user:pa55word@")
        store = tmp_path / "s.sqlite"
        config = {"type": OpenAISDK, "path": "m", "openai_api_base": secret, "key": KEY}
        lm = SKEExplicit(config | {"tokenizer_path": str(tiny_llama)}, method="direct", store=str(store))
        ask(lm, "Which?")
        assert server.asked[0].headers["Authorization"].startswith("Basic ")
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"The answer is (B)" in kept
    for word in (KEY.encode(), b"pa55word"):
        assert word not in kept
