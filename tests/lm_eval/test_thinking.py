"""Models that think first: what step 2, the harness, the store and the counts get of their texts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from lm_eval.tasks import TaskManager

from ske_models.errors import UserError
from ske_models.lm_eval import served
from ske_models.lm_eval.model import SKEExplicitLM

TASKS = Path(__file__).parents[1] / "tasks"
KNOWLEDGE = "<think>Is it four?\n\nThe answer is (A).</think>\n\nA cat has four legs."
ANSWER = "<think>Four,\n\nsurely.</think>\n\n4\n\nQuestion: another"


def evaluate(model: SKEExplicitLM, task: str = "toy_write", **options: Any) -> list[Any]:
    """The answers to two questions."""
    settings = {"max_gen_toks": 200} if task == "toy_write" else None
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        limit=2,
        **({"gen_kwargs": settings} | options),
    )
    return [sample["resps"][0][0] for sample in results["samples"][task]]


class Thinker:
    """A `ske_explicit` whose hf backend writes what a test says. prompts: what it was sent."""

    def __init__(self, folder: Path, store: Path, say: Callable[[str], str], **args: Any) -> None:
        self.prompts: list[str] = []
        self.model = SKEExplicitLM(
            pretrained=str(folder), device="cpu", store=str(store), max_knowledge_toks=200, **args
        )
        inner: Any = self.model.inner
        encode = inner.tokenizer.encode

        def generate(context: torch.Tensor, **_: Any) -> torch.Tensor:
            rows = []
            for row in context.tolist():
                self.prompts.append(inner.tokenizer.decode(row))
                rows.append([*encode(say(self.prompts[-1]), add_special_tokens=False), inner.eot_token_id])
            longest = max(map(len, rows))
            new = [row + [inner.tokenizer.pad_token_id] * (longest - len(row)) for row in rows]
            return torch.cat([context, torch.tensor(new)], dim=1)

        inner._model_generate = generate

    def stored(self) -> set[str]:
        rows = self.model.pipeline.store._db.execute("SELECT text FROM steps")
        return {row[0] for row in rows}

    def counts(self, step: str) -> dict[str, int]:
        return self.model.get_model_info()["ske"]["steps"][step]


@pytest.fixture
def thinker(tiny_llama, tmp_path):
    def make(knowledge: str = KNOWLEDGE, answer: str = ANSWER, **args: Any) -> Thinker:
        written: list[str] = []

        def say(prompt: str) -> str:
            written.append(prompt)
            return knowledge if len(written) <= 2 else answer  # two questions, step 1 first

        return Thinker(tiny_llama, tmp_path / "s.sqlite", say, **args)

    return make


def test_step_2_sees_the_reply_and_the_store_keeps_the_whole_text(thinker):
    model = thinker()
    answers = evaluate(model.model)
    assert len(model.prompts) == 4
    assert all("A cat has four legs." in prompt for prompt in model.prompts[2:])
    assert not any("The answer is (A)" in prompt or "<think>" in prompt for prompt in model.prompts)
    assert KNOWLEDGE in model.stored()
    assert [answer.trace["knowledge"] for answer in answers] == ["A cat has four legs."] * 2
    assert (model.counts("knowledge")["empty"], model.counts("knowledge")["unfinished_thought"]) == (0, 0)


def test_scored_options_see_the_reply_too(thinker, monkeypatch):
    model = thinker()
    seen: list[str] = []

    def score(requests: Any) -> Any:
        seen.extend(request.args[0] for request in requests)
        return [(0.0, True)] * len(requests)

    monkeypatch.setattr(model.model.inner, "score", score)
    evaluate(model.model, "toy_choice")
    contexts = [context for context in seen if context]
    assert contexts
    assert all("A cat has four legs." in context and "think>" not in context for context in contexts)


@pytest.mark.parametrize(
    ("knowledge", "empty", "unfinished"),
    [("<think>It has, well, let me see", 2, 2), ("<think>Nothing.</think>", 2, 0), ("", 2, 0)],
)
def test_empty_knowledge_and_unfinished_thoughts_are_counted(thinker, knowledge, empty, unfinished):
    model = thinker(knowledge)
    evaluate(model.model)
    counts = model.counts("knowledge")
    assert (counts["empty"], counts["unfinished_thought"]) == (empty, unfinished)
    assert all("let me see" not in prompt for prompt in model.prompts)


def test_without_think_end_token_the_harness_gets_what_the_bare_backend_gives_it(thinker):
    answers = evaluate(thinker(method="direct").model)
    assert answers == ["<think>Is it four?"] * 2, "lm-eval's hf cuts a thought at the task's stop string, too"


@pytest.mark.parametrize("mark", ["</think>", "</plan>"])
def test_with_think_end_token_the_harness_gets_the_reply_cut_at_the_stop_strings(thinker, mark):
    knowledge, answer = KNOWLEDGE.replace("</think>", mark), ANSWER.replace("</think>", mark)
    model = thinker(knowledge, answer, think_end_token=mark)
    assert evaluate(model.model) == ["4", "4"]
    whole = answer.removesuffix("\n\nQuestion: another")
    assert {knowledge, whole} == model.stored()
    tokens = model.model.engine.count_tokens(whole)
    assert (model.counts("answer")["output_tokens"], model.counts("answer")["truncated"]) == (2 * tokens, 0)
    assert all("The answer is (A)" not in prompt for prompt in model.prompts)
    again = thinker(knowledge, answer, think_end_token=mark)
    assert evaluate(again.model) == ["4", "4"]
    assert again.prompts == [], "the whole texts are in the store"


def test_a_thought_that_fills_the_limit_is_truncated_and_its_reply_is_empty(thinker):
    endless = "<think>" + "and so on " * 200
    model = thinker(endless, endless, think_end_token="</think>")
    assert evaluate(model.model) == ["", ""]
    for step in ("knowledge", "answer"):
        assert (model.counts(step)["truncated"], model.counts(step)["empty"]) == (2, 2)


def test_a_special_token_may_end_a_thought(thinker):
    model = thinker("Hm.<|system|>A cat has four legs.", "So.<|system|>4", think_end_token=3)
    assert model.model.inner.tokenizer.decode([3]) == "<|system|>"
    assert evaluate(model.model) == ["4", "4"]
    assert model.stored() == {"Hm.<|system|>A cat has four legs.", "So.<|system|>4"}
    assert all("Hm." not in prompt for prompt in model.prompts[2:])


def test_the_marks_can_be_named_or_switched_off(thinker):
    model = thinker(think="off")
    evaluate(model.model)
    assert all(KNOWLEDGE in prompt for prompt in model.prompts[2:])


def test_settings_for_chat_servers_are_refused_where_they_reach_nothing(thinker):
    with pytest.raises(
        UserError, match="chat_template_kwargs: for chat servers; a local model takes enable_thin"
    ):
        evaluate(thinker().model, gen_kwargs={"chat_template_kwargs": {"enable_thinking": False}})


class Chat(BaseHTTPRequestHandler):
    """A chat server that keeps what it is sent."""

    payloads: list[dict[str, Any]]

    def do_POST(self) -> None:
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.payloads.append(payload)
        message = {"role": "assistant", "content": "text"}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def chat() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    Chat.payloads = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", Chat.payloads
    server.shutdown()
    server.server_close()


def test_settings_that_switch_thinking_off_reach_both_steps_and_are_part_of_the_key(chat, tmp_path):
    url, payloads = chat
    args = {"backend": "local-chat-completions", "model": "M", "base_url": url}
    for thinking, sent in ((False, 4), (True, 8), (False, 8)):
        model = SKEExplicitLM(store=str(tmp_path / "s.sqlite"), **args)
        evaluate(model, gen_kwargs={"chat_template_kwargs": {"enable_thinking": thinking}})
        assert len(payloads) == sent, "what was written with thinking is not reused without"
    assert [p["chat_template_kwargs"]["enable_thinking"] for p in payloads] == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    ("whole", "kept"),
    [
        ("Sure.\n<think>SECRET</think>\nFACT.", None),
        ("<think>a</think>one <think>b</think>two", None),
        ("<|begin_of_thought|>t<|end_of_thought|>\n<|begin_of_solution|>FACT.<|end_of_solution|>", None),
        ("<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>FACT.<|return|>", None),
        ("<think>STOP</think>\n\nFACT. STOP and more", "<think>STOP</think>\n\nFACT. "),
        ("Sure.\n<think>STOP</think>\nFACT. STOP and more", "Sure.\n<think>STOP</think>\nFACT. "),
        ("FACT.", None),
    ],
)
def test_a_server_text_is_cut_at_a_stop_string_of_its_reply_and_else_stays_as_it_is(whole, kept):
    assert served._cut(whole, []) == whole
    assert served._cut(whole, ["STOP"]) == (kept or whole)
