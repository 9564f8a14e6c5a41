"""Texts of a round from servers that reply in odd ways: the stage `synthesize` over real HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odd_server import Asked, OddServer, Sent, completion, without
from test_questions import make_run

from ske_models.errors import UserError
from ske_models.files import Row, read_jsonl, write_jsonl
from training.run_folder import RunFolder
from training.stages import synthesize

THOUGHT = "SECRET-THOUGHT. The answer is 7."
FACT, ANSWER = "FACT: one and one are two.", "Step by step. The answer is 2."


def text_of(asked: Asked) -> str:
    return FACT if "Write down the knowledge" in asked.prompt else ANSWER


def a_run(folder: Path, server: OddServer, **args: Any) -> RunFolder:
    generation = {
        "backend": "local-chat-completions",
        "endpoints": [server.base_url],
        "args": {"max_retries": 1, "max_wait": 3, **args},
        "samples": 1,
        "temperature": 0.0,
    }
    settings: dict[str, Any] = {"prompts": "default", "generation": generation}
    run = make_run(folder, [{"source": "world"}], count=4, **settings)
    rows = [{"id": f"q{i}", "question": f"What is {i} + 1?", "ending": "The answer is N."} for i in range(4)]
    write_jsonl(run.round(1) / "questions.jsonl", rows)
    return run


def written(run: RunFolder) -> list[Row]:
    return read_jsonl(run.round(1) / "written.jsonl")


@pytest.mark.parametrize(
    "reply",
    [
        lambda text: completion(f"<think>\n{THOUGHT}\n</think>\n\n{text}"),
        lambda text: completion(f"[THINK]{THOUGHT}[/THINK]{text}"),
        lambda text: completion(text, reasoning_content=THOUGHT),
        lambda text: completion([{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": text}]),
        lambda text: completion(
            f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final<|message|>{text}"
        ),
    ],
    ids=["think", "THINK", "reasoning_content", "parts", "harmony"],
)
def test_a_thought_is_kept_and_is_in_no_prompt(tmp_path, reply):
    with OddServer(lambda asked: (200, reply(text_of(asked)))) as server:
        run = a_run(tmp_path, server)
        synthesize.run(run, 1)
    assert len(server.asked) == 8
    assert not [asked for asked in server.asked if "SECRET" in str(asked.body)]
    assert sum(FACT in asked.prompt for asked in server.asked) == 4
    for row in written(run):
        assert FACT in row["knowledge"]
        assert ANSWER in row["reasoning"]
        assert THOUGHT in row["reasoning"], "what a model wrote is kept whole"


def test_a_filtered_prompt_leaves_its_text_empty(tmp_path, capfd):
    filtered = {"error": {"message": "The response was filtered", "code": "content_filter"}}

    def behaviour(asked: Asked) -> Sent:
        return (400, filtered) if "2 + 1?" in asked.prompt else (200, completion(text_of(asked)))

    with OddServer(behaviour) as server:
        run = a_run(tmp_path, server)
        counts = synthesize.run(run, 1)
    assert [row["knowledge"] for row in written(run)] == [FACT, FACT, "", FACT]
    assert [row["reasoning"] for row in written(run)] == [ANSWER, ANSWER, "", ANSWER]
    assert (counts["knowledge"]["empty"], counts["reasoning"]["empty"]) == (1, 1)
    assert "2 of 8 prompts were stopped by the server's content filter" in capfd.readouterr().err


@pytest.mark.parametrize(
    "odd",
    [
        lambda reply: without(reply, message=None),
        lambda reply: {"choices": []},
        lambda reply: [reply],
        lambda reply: {"error": {"message": "overloaded", "code": 503}},
        lambda reply: b"<html>Welcome</html>",
    ],
    ids=["null", "none", "list", "error", "page"],
)
def test_a_reply_without_a_message_is_sent_again_or_ends_in_a_line(
    tmp_path, odd: Callable[[dict[str, Any]], Any]
):
    def once(asked: Asked) -> Sent:
        reply = completion(text_of(asked))
        return 200, odd(reply) if asked.nth == 1 and "1 + 1?" in asked.prompt else reply

    with OddServer(once) as server:
        run = a_run(tmp_path / "once", server)
        synthesize.run(run, 1)
    assert [row["reasoning"] for row in written(run)] == [ANSWER] * 4
    assert len(server.asked) == 10
    with OddServer(lambda asked: (200, odd(completion(text_of(asked))))) as server:
        run = a_run(tmp_path / "always", server)
        with pytest.raises(UserError, match="the same command goes on") as error:
            synthesize.run(run, 1)
    assert "\n" not in str(error.value)
    assert not (run.round(1) / "written.jsonl").exists()


def test_what_a_model_does_not_take_is_remembered_for_the_whole_stage(tmp_path):
    def behaviour(asked: Asked) -> Sent:
        if "max_tokens" in asked.body:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return 400, {"error": {"message": said}}
        return 200, completion(text_of(asked))

    with OddServer(behaviour) as server:
        run = a_run(tmp_path, server, num_concurrent=1)
        synthesize.run(run, 1)
    assert len(server.asked) == 1 + 8
    assert {row["reasoning"] for row in written(run)} == {ANSWER}


def test_a_text_that_cannot_be_written_is_mended(tmp_path):
    with OddServer(lambda asked: (200, completion(text_of(asked) + " \ud83d"))) as server:
        run = a_run(tmp_path, server)
        synthesize.run(run, 1)
    assert {row["reasoning"] for row in written(run)} == {ANSWER + " \ufffd"}
