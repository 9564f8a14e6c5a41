"""The stage `synthesize`, on the embedded model by lm-eval's hf backend and on servers of the OpenAI API."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest
from test_questions import make_run

from ske_models import prompts
from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from ske_models.method import Question, Shot, answer_messages, knowledge_messages
from ske_models.prompts import PromptSet
from training.data.windows import delete_parts
from training.engine import CheckpointEngine, load_engine
from training.run_folder import RunFolder
from training.stages import questions, synthesize

PROMPTS: PromptSet = prompts.load("default")
SHOT = Shot("1+1?", "One and one are two.", "So it is 2. The answer is 2.")
SAMPLED = {"samples": 2, "temperature": 0.8, "window": 4}


def world_run(folder: Path, **generation) -> RunFolder:
    run = make_run(folder, [{"source": "world"}], count=10, generation=SAMPLED | generation)
    questions.run(run, 1)
    return run


def written(run: RunFolder, n: int = 1) -> bytes:
    return (run.round(n) / "written.jsonl").read_bytes()


def test_a_killed_run_ends_with_the_same_texts_and_samples_differ(tmp_path, monkeypatch):
    whole = world_run(tmp_path / "whole")
    counts = synthesize.run(whole, 1)
    rows = read_jsonl(whole.round(1) / "written.jsonl")
    asked = read_jsonl(whole.round(1) / "questions.jsonl")
    assert [(row["id"], row["sample"]) for row in rows] == [(q["id"], s) for q in asked for s in (0, 1)]
    assert {row["question"] for row in rows} == {q["question"] for q in asked}
    for text in ("knowledge", "reasoning"):
        assert 10 < counts[text]["distinct"] <= 20, "both samples of every question are the same"
        assert counts[text]["tokens"] == sum(row["tokens"][text] for row in rows) > 0
        assert counts[text]["truncated"] == sum(row["truncated"][text] for row in rows)

    killed = world_run(tmp_path / "killed")
    generate, calls = CheckpointEngine.generate, []

    def dies_once(self, requests, done):
        calls.append(len(requests))
        if len(calls) == 6:  # a window is 2 samples of 2 steps: in the middle of the second one
            raise KeyboardInterrupt
        return generate(self, requests, done)

    monkeypatch.setattr(CheckpointEngine, "generate", dies_once)
    with pytest.raises(KeyboardInterrupt):
        synthesize.run(killed, 1)
    assert not (killed.round(1) / "written.jsonl").exists()
    assert synthesize.run(killed, 1) == counts
    assert len(calls) == 6 + 8, "the first window was written again"
    assert written(killed) == written(whole)
    assert list(killed.round(1).glob("*.parts-*")), "the stage is not noted as done yet"
    delete_parts(killed.round(1))
    assert not list(killed.round(1).glob("*.parts-*"))


def test_greedy_texts_are_those_of_the_evaluation(tmp_path):
    run = world_run(tmp_path, samples=1, temperature=0.0, window=16)
    synthesize.run(run, 1)
    row = read_jsonl(run.round(1) / "written.jsonl")[3]
    inner = load_engine(run, 0, windows=1)[0].inner
    question = Question((), row["question"], row["question"], row["ending"])

    def alone(messages: list[dict[str, str]], limit: int) -> str:
        prompt = inner.apply_chat_template(messages, add_generation_prompt=True)
        tokens = inner.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        output = inner.model.generate(**tokens, do_sample=False, max_new_tokens=limit)
        return inner.tokenizer.decode(output[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True)

    limits = run.prompts.knowledge_tokens, run.recipe.generation.max_reasoning_tokens
    assert alone(knowledge_messages(question, run.prompts), limits[0]).strip() == row["knowledge"].strip()
    asked = answer_messages(question, run.prompts, "explicit", "single", row["knowledge"])
    assert alone(asked, limits[1]).strip() == row["reasoning"].strip()


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"backend": "hff"}, "generation.backend=hff: unknown"),
        ({"endpoints": ["http://127.0.0.1:9/v1"]}, "backend hf loads the model itself"),
        ({"backend": "local-chat-completions"}, "needs at least one, as in"),
        ({"args": {"devise": "cpu"}}, "devise"),
        ({"max_reasoning_tokens": 4096}, "4096 tokens may be written, but .* has room for"),
    ],
)
def test_bad_generation_settings_are_named(tmp_path, generation, message):
    run = world_run(tmp_path, **generation)
    with pytest.raises(UserError, match=message):
        synthesize.run(run, 1)


def test_questions_that_cannot_be_used_are_named(tmp_path):
    run = make_run(tmp_path, [{"source": "world"}])
    path = run.round(1) / "questions.jsonl"
    write_jsonl(path, [{"id": "a", "question": "b", "ending": ""}, {"id": "c", "question": "d"}])
    with pytest.raises(UserError, match="row 2: ending missing"):
        synthesize.run(run, 1)
    write_jsonl(path, [])
    with pytest.raises(UserError, match="no questions"):
        synthesize.run(run, 1)
    write_jsonl(path, [{"id": "a", "question": "b", "ending": ""}])
    run.checkpoint(0).unlink()
    with pytest.raises(UserError, match="M0: no checkpoint"):
        synthesize.run(run, 1)


def test_an_estimate_needs_no_model(tmp_path):
    run = make_run(tmp_path, [{"source": "world"}], count=10, generation=SAMPLED)
    assert synthesize.estimate(run.recipe, 1) == {
        "questions": 10,
        "texts": 40,
        "output_tokens_at_most": 20 * (run.prompts.knowledge_tokens + 24),
    }


# Few-shot --------------------------------------------------------------------------------------


def roles(messages: list[dict[str, str]]) -> str:
    return "".join(message["role"][0] for message in messages)


def test_examples_stand_before_each_step_in_its_own_form():
    system = {"role": "system", "content": "Be exact."}
    question = Question((system,), "2+2?", "2+2?", "End with N.", shots=(SHOT, SHOT))
    first = knowledge_messages(question, PROMPTS)
    assert roles(first) == "suauau"
    assert first[0] == system
    assert first[1]["content"] == PROMPTS.render("extract", question="1+1?")
    assert first[2]["content"] == SHOT.knowledge
    assert first[-1]["content"] == PROMPTS.render("extract", question="2+2?")

    second = answer_messages(question, PROMPTS, "explicit", "single", "K")
    assert roles(second) == "suauau"
    variables = {"question": "1+1?", "knowledge": SHOT.knowledge, "ending": "End with N."}
    assert second[1]["content"] == PROMPTS.render("reason", **variables)
    assert second[2]["content"] == SHOT.reasoning
    assert "K" in second[-1]["content"]

    second = answer_messages(question, PROMPTS, "explicit", "multiturn", "K")
    assert roles(second) == "s" + "uaua" * 2 + "uau"
    assert [message["content"] for message in second[1:5:3]] == [first[1]["content"], SHOT.reasoning]
    assert second[-2]["content"] == "K"


def test_only_m0_is_shown_the_examples(tmp_path, monkeypatch):
    shots = tmp_path / "shots.yaml"
    shots.write_text("steps: [{question: 'Who is it?', knowledge: Nobody., reasoning: It is nobody.}]\n")
    run = world_run(tmp_path / "run", shots=str(shots), window=16)
    questions.run(run, 2)
    seen: list[str] = []
    generate = CheckpointEngine.generate

    def looks(self, requests, done):
        seen.extend(request.prompt for request in requests)
        return generate(self, requests, done)

    monkeypatch.setattr(CheckpointEngine, "generate", looks)
    synthesize.run(run, 1)
    assert seen
    assert all("Who is it?" in prompt for prompt in seen)
    seen.clear()
    synthesize.run(run, 2)
    assert seen
    assert not any("Who is it?" in prompt for prompt in seen)


# Servers ---------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that repeats what it was asked, and refuses other models than its own."""

    def __init__(self, model: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = model
        self.asked: list[dict] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked | {"path": self.path})
        text = f"{asked.get('seed')}: {asked['messages'][-1]['content'][:40]}"
        body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        self.send_response(200 if asked["model"] == self.server.model else 404)
        payload = json.dumps(body).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        pass


def test_windows_are_shared_out_over_servers_of_the_right_checkpoint(tmp_path):
    servers = [Server("M0"), Server("M0")]
    try:
        served = {"backend": "local-chat-completions", "endpoints": [server.url for server in servers]}
        run = world_run(tmp_path, window=2, **served | {"args": {"max_retries": 1}})
        counts = synthesize.run(run, 1)
        asked = [request for server in servers for request in server.asked]
        assert all(server.asked for server in servers)
        assert len(asked) == 40
        assert {request["path"] for request in asked} == {"/v1/chat/completions"}
        assert {request["temperature"] for request in asked} == {0.8}
        # a seed for each sample of each window, and both steps have it
        assert len({request["seed"] for request in asked}) == 10
        assert counts["knowledge"] == {
            "truncated": 0,
            "unknown_length": 20,
            "empty": 0,
            "distinct": 20,
            "tokens": 0,
        }
        first = written(run)
        synthesize.run(run, 1)
        assert written(run) == first
        questions.run(run, 2)
        with pytest.raises(
            UserError, match=r"http://127\.0\.0\.1:\d+/v1/chat/completions: refuses, status 404"
        ):
            synthesize.run(run, 2)  # they still have M0
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
