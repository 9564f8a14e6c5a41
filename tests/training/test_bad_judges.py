"""Judges that reply in odd ways, and mistakes in their settings: no verdict is lost, wrong or paid for twice.

Each mistake ends in the line that stands beside it, before anything is sent.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from odd_server import USAGE, Asked, OddServer, Sent, completion, without
from test_judge import ask, new_run, openai_judge, some

from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from training import recipe
from training.judges import openai
from training.settings.judge import OpenAIJudge
from training.stages import judge
from training.stages.judge import prompt

KEY = "sk-proj-0123456789abcdefSECRET"
GOOD = completion("It is right.\nScore: 8")
PRICES = {"input": 1.0, "output": 2.0}
WORLD = (recipe.FOLDER / "world.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)


def total(folder: Path) -> tuple[int, int, int]:
    """(input, output, calls whose tokens are confirmed) of a run's ledger."""
    with sqlite3.connect(folder / "judge.sqlite") as ledger:
        return ledger.execute("SELECT SUM(input), SUM(output), SUM(confirmed) FROM calls").fetchone()


# Replies


@pytest.mark.parametrize(
    ("reply", "text", "score"),
    [
        (completion("<think>\nScore: 3?\n</think>\n\nRight.\nScore: 8"), "Right.\nScore: 8", 8),
        (completion("[THINK]Score: 3.[/THINK]Right.\nScore: 8"), "Right.\nScore: 8", 8),
        (completion("Right.\nScore: 8", reasoning_content="Score: 3"), "Right.\nScore: 8", 8),
        (
            completion([{"type": "text", "text": "Right.\n"}, {"type": "text", "text": "Score: 8"}]),
            "Right.\nScore: 8",
            8,
        ),
        (without(completion("Score: 8"), "index"), "Score: 8", 8),
        (without(completion("Score: 8"), "finish_reason"), "Score: 8", 8),
        (completion("Half \udc00.\nScore: 8"), "Half \ufffd.\nScore: 8", 8),
        (completion("<think>\nScore: 3.\nScore: 8"), "", None),
        (completion(None, "length", reasoning_content="Score: 8"), "", None),
        (completion("Score: 1", "length"), "Score: 1", None),
        (completion("Score: 8", "content_filter"), "Score: 8", None),
        (completion(None), "", None),
    ],
)
def test_a_verdict_is_the_reply_without_its_thought(tmp_path, reply, text, score):
    with OddServer(lambda asked: (200, reply)) as server:
        run = new_run(tmp_path, openai_judge(server.base_url))
        [verdict] = ask(run, some(1)).verdicts
        assert ask(run, some(1)).verdicts == [verdict]
    assert (verdict.text, verdict.score) == (text, score)
    assert len(server.asked) == (1 if score else 2), "known verdicts are not sent again"


def test_the_scores_that_are_trained_on_hold_no_thought(tmp_path):
    said = completion("<think>\nSECRET\n</think>\n\nRight.\nScore: 8", reasoning_content="SECRET")
    with OddServer(lambda asked: (200, said)) as server:
        run = new_run(tmp_path, openai_judge(server.base_url))
        row = {"id": "q0", "sample": 0, "question": "1 + 1?", "ending": "", "tokens": {}}
        texts = {"knowledge": "<think>SECRET</think>1 + 1 = 2.", "reasoning": "[THINK]SECRET[/THINK]It is 2."}
        cut = {"truncated": {"knowledge": False, "reasoning": False}}
        lost = {"knowledge": "1 + 1 = 2.", "reasoning": "<think>SECRET"}
        write_jsonl(run.round(1) / "written.jsonl", [row | texts | cut, row | lost | cut])
        counts = judge.run(run, 1)
    assert (counts["scored"], counts["skipped"]) == (2, 2), (
        "a thought without a reply is nothing to be judged"
    )
    assert "SECRET" not in str(read_jsonl(run.round(1) / "scores.jsonl"))
    assert not [asked for asked in server.asked if "SECRET" in asked.prompt]
    assert sum("It is 2." in asked.prompt for asked in server.asked) == 1, "both were under way at once"


@pytest.mark.parametrize(
    "reply",
    [
        without(GOOD, message=None),
        without(GOOD, message="Score: 8"),
        completion(8),
        {"choices": []},
        [GOOD],
        completion([{"type": "image_url"}]),
        {"error": {"message": "overloaded", "code": 503}},
        b"<html>",
    ],
    ids=lambda reply: str(reply)[:40],
)
def test_a_reply_without_a_message_is_sent_again(tmp_path, reply):
    with OddServer(lambda asked: (200, reply if asked.nth == 1 else GOOD)) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, usd_per_million=PRICES))
        judging = ask(run, some(2))
    assert [(verdict.score, verdict.attempts) for verdict in judging.verdicts] == [(8, 1)] * 2
    assert sum(judging.counts["faults"].values()) == 2
    assert judging.counts["tokens"] == {"input": 200, "output": 20}


def test_one_text_whose_replies_hold_nothing_stays_unscored(tmp_path):
    def behaviour(asked: Asked) -> Sent:
        return 200, {"choices": []} if "What is 1 + 1?" in asked.prompt else GOOD

    with OddServer(behaviour) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, max_retries=2, concurrency=1))
        for calls in (3 + 3, 3):  # a second start sends what was not answered, and nothing else
            before = len(server.asked)
            judging = ask(run, some(4))
            assert [verdict.score for verdict in judging.verdicts] == [8, None, 8, 8]
            assert str(judging.verdicts[1].why).startswith("failed: no completion in the reply")
            assert len(server.asked) - before == calls


def test_an_endpoint_that_never_gives_a_verdict_is_not_asked_for_long(tmp_path, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY")  # the key is "none" then, which is no secret to be masked
    with OddServer(lambda asked: (200, b"<html>Welcome</html>")) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, max_retries=1, concurrency=4))
        with pytest.raises(
            UserError, match="none of which can be read .no JSON in the reply.*; 0 of 20 verdicts"
        ):
            ask(run, some(20))
    assert len(server.asked) < 12


def test_a_filtered_text_is_unscored_and_named(tmp_path):
    refused = {"error": {"message": "The response was filtered", "code": "content_filter"}}
    with OddServer(lambda asked: (400, refused) if "2 + 1?" in asked.prompt else (200, GOOD)) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, usd_per_million=PRICES))
        verdicts = ask(run, some(4)).verdicts
    assert [verdict.score for verdict in verdicts] == [8, 8, None, 8]
    assert verdicts[2].why == "filtered: status 400: The response was filtered"
    assert total(tmp_path) == (300, 30, 3), "a refused call costs nothing"


# Usage


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "many",
        {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0},
        {"prompt_tokens": 100.0, "completion_tokens": 10.5},
        {"prompt_tokens": "100", "completion_tokens": "10"},
        {"input_tokens": 100, "output_tokens": 10},
        {"prompt_tokens": 10**30, "completion_tokens": 10},
        {"prompt_tokens": -100, "completion_tokens": -10},
        {"prompt_tokens": 100, "completion_tokens": -(10**6)},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 100, "completion_tokens": 0},
        {"prompt_tokens": 100},
    ],
)
def test_odd_usage_keeps_the_verdict_and_counts_at_its_most(tmp_path, usage):
    with OddServer(lambda asked: (200, completion("Right.\nScore: 8", usage=usage))) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, usd_per_million=PRICES))
        for _ in range(2):
            judging = ask(run, some(2))
            assert [verdict.score for verdict in judging.verdicts] == [8, 8]
    assert len(server.asked) == 2
    most = sum(len(prompt(run.prompts, item)) + 64 for item in some(2))
    assert total(tmp_path) == (most, 2 * 512, 0)
    assert judging.counts["usd"] == 0
    assert judging.counts["usd_unconfirmed"] == pytest.approx((most + 2 * 2 * 512) / 1e6)


def test_odd_usage_never_makes_room_under_the_cap(tmp_path):
    negative = {"prompt_tokens": -(10**6), "completion_tokens": -(10**6)}
    with OddServer(lambda asked: (200, completion("Score: 8", usage=negative))) as server:
        most = max(
            len(prompt(new_run(tmp_path, openai_judge("http://a/v1")).prompts, item)) for item in some(9)
        )
        price = (most + 64 + 2 * 512) / 1e6
        change = {"usd_per_million": PRICES, "max_usd": 3.5 * price}
        run = new_run(tmp_path, openai_judge(server.base_url, **change))
        with pytest.raises(UserError, match="max_usd is .*; 3 of 9 verdicts are kept"):
            ask(run, some(9))
    assert len(server.asked) == 3


# Models that take other parameters


def test_a_judge_that_takes_no_temperature_and_calls_its_limit_otherwise(tmp_path, capfd):
    words = {
        "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "temperature": "Unsupported value: 'temperature' does not support 0 with this model.",
    }

    def behaviour(asked: Asked) -> Sent:
        for name, said in words.items():
            if name in asked.body:
                return 400, {"error": {"message": said, "param": name, "code": "unsupported_parameter"}}
        return 200, completion("Well.") if "0 + 1?" in asked.prompt else GOOD

    with OddServer(behaviour) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, concurrency=1, usd_per_million=PRICES))
        assert [verdict.score for verdict in ask(run, some(5)).verdicts] == [None, 8, 8, 8, 8]
        assert len(server.asked) == 2 + 5 + 1
        assert [verdict.score for verdict in ask(run, some(5)).verdicts] == [None, 8, 8, 8, 8]
    assert len(server.asked) == 2 + 5 + 1, "the key of a call does not depend on what its server takes"
    assert server.asked[-1].body.keys() == {"messages", "model", "max_completion_tokens"}
    assert capfd.readouterr().err.count("does not take") == 2
    assert total(tmp_path) == (600, 60, 6)


# Settings


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (
            "usd_per_million: {input: -1.0, output: 2.0}",
            "usd_per_million.input: input should be greater than or equal to 0",
        ),
        (
            "usd_per_million: {input: .nan, output: 2.0}",
            "usd_per_million.input: input should be a finite number",
        ),
        (
            "usd_per_million: {input: 1.0, output: .inf}",
            "usd_per_million.output: input should be a finite number",
        ),
        (
            "usd_per_million: {input: 1.0, output: -.inf}",
            "usd_per_million.output: input should be a finite number",
        ),
        (
            "usd_per_million: {input: cheap, output: 2.0}",
            "usd_per_million.input: input should be a valid number",
        ),
        ("usd_per_million: {in: 1.0, output: 2.0}", "usd_per_million"),
        ("usd_per_million: 3.0", "usd_per_million: input should be a valid dictionary"),
        ("max_usd: 0, usd_per_million: {input: 1.0, output: 1.0}", "max_usd: input should be greater than 0"),
        ("max_usd: -5, usd_per_million: {input: 1.0, output: 1.0}", "max_usd: input should be greater than"),
        (
            "max_usd: .nan, usd_per_million: {input: 1.0, output: 1.0}",
            "max_usd: input should be a finite number",
        ),
        ("max_usd: 5.0", "max_usd needs usd_per_million"),
        ("max_usd: 5.0, usd_per_million: {input: 1.0}", "max_usd needs usd_per_million"),
        ("concurrency: 0", "concurrency: input should be greater than 0"),
        ("concurrency: -4", "concurrency: input should be greater than 0"),
        ("concurrency: 1.5", "concurrency: input should be a valid integer"),
        ("timeout_s: 0", "timeout_s: input should be greater than 0"),
        ("timeout_s: .nan", "timeout_s: input should be a finite number"),
        ("timeout_s: .inf", "timeout_s: input should be a finite number"),
        ("deadline_s: -1", "deadline_s: input should be greater than 0"),
        ("deadline_s: .inf", "deadline_s: input should be a finite number"),
        ("max_retries: -1", "max_retries: input should be greater than or equal to 0"),
        ("max_tokens: 0", "max_tokens: input should be greater than 0"),
        ("temperature: -0.5", "temperature: input should be greater than or equal to 0"),
        ("temperature: .nan", "temperature: input should be a finite number"),
        ("temperature: hot", "temperature: input should be a valid number"),
        (
            "base_url: localhost:8000/v1",
            "base_url: no server's address; write one as in http://localhost:8000/v1",
        ),
        ("base_url: ftp://a/v1", "base_url: no server's address"),
        ("base_url: ''", "base_url: no server's address"),
        ("base_url: 'http://a b/v1'", "base_url: no server's address"),
        ("base_url: 'http://me:hunter2@a/v1'", "base_url: `the address` has a password"),
        ("base_url: 7", "base_url: input should be a valid string"),
        ("model: 7", "model: input should be a valid string"),
        ("api_key: sk-hunter2", "api_key is no setting; remove it"),
        ("n: 5", "n is no setting; remove it"),
    ],
)
def test_a_mistake_in_a_judges_settings_is_a_line(tmp_path, setting, said):
    model = "" if setting.startswith("model") else "model: gpt-4, "
    file = tmp_path / "mine.yaml"
    assert "judge: {kind: world}" in WORLD
    judged = f"judge: {{kind: openai, {model}{setting}}}"
    file.write_text(WORLD.replace("judge: {kind: world}", judged), encoding="utf-8")
    with pytest.raises(UserError) as error:
        recipe.load(str(file))
    message = str(error.value)
    assert said in message
    assert "mine.yaml, line" in message
    assert "\n" not in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "set the environment variable JUDGE_KEY"),
        ("", "set the environment variable JUDGE_KEY"),
        ("sk-1\nsk-2", "JUDGE_KEY holds blanks"),
        ("sk-1 sk-2", "JUDGE_KEY holds blanks"),
        ("sk-\u00e9", "JUDGE_KEY holds blanks"),
        ("sk-\u200b1", "JUDGE_KEY holds blanks"),
    ],
)
def test_a_key_that_cannot_be_sent_is_a_line(tmp_path, monkeypatch, value, said):
    monkeypatch.delenv("JUDGE_KEY")
    if value is not None:
        monkeypatch.setenv("JUDGE_KEY", value)
    run = new_run(tmp_path, openai_judge("https://judge.example/v1"))
    with pytest.raises(UserError, match=said) as error:
        ask(run, some(1))
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (
            401,
            {"error": {"message": f"Incorrect API key provided: {KEY[:7]}***{KEY[-4:]}"}},
            "JUDGE_KEY holds a valid key",
        ),
        (402, {"error": {"message": "Insufficient Balance"}}, "no credit left; top it up"),
        (403, {"detail": f"not with {KEY}"}, "see what the key in JUDGE_KEY may do"),
        (
            404,
            {"error": {"message": "The model `x` does not exist"}},
            "does not exist; see base_url and model",
        ),
        (405, b"<html>Method Not Allowed</html>", "status 405: .*see base_url"),
        (
            429,
            {"error": {"message": "quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
            "no credit",
        ),
        (
            400,
            {"error": {"message": "maximum context length is 9 tokens"}},
            "not one text was judged; .*lower the token",
        ),
        (422, {"detail": [{"msg": "field required"}]}, "not one text was judged; the last fault: status 422"),
    ],
)
def test_what_an_endpoint_refuses_is_a_line(tmp_path, status, body, said, capfd):
    with OddServer(lambda asked: (status, body)) as server:
        run = new_run(tmp_path, openai_judge(server.base_url, concurrency=2))
        with pytest.raises(UserError, match=said) as error:
            ask(run, some(5))
    message: Any = str(error.value) + capfd.readouterr().err
    assert "\n" not in str(error.value)
    assert not [KEY[at : at + 4] for at in range(len(KEY) - 3) if KEY[at : at + 4] in message]
    assert len(server.asked) <= 5


def test_usage_as_it_should_be_is_confirmed(tmp_path):
    with OddServer(lambda asked: (200, completion("Score: 8", usage=USAGE))) as server:
        ask(new_run(tmp_path, openai_judge(server.base_url)), some(3))
    assert total(tmp_path) == (300, 30, 3)


def test_a_missing_key_is_named_without_what_the_address_holds(monkeypatch):
    monkeypatch.setenv("SIGNED", "hunter2")
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    settings = OpenAIJudge(kind="openai", model="m", base_url="https://h/v1?key=$SIGNED", key_env="JUDGE_KEY")
    with pytest.raises(UserError, match="no key for https://h/v1: set the environment variable JUDGE_KEY"):
        openai.key(settings)
