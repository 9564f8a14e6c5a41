"""Servers as backends: `transformers serve`, killed and started again, and one that misbehaves.

The same answers as the hf backend, whatever happens to the server; nothing lost, and nothing asked twice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from judge_server import FAULTS, JudgeServer, verdict
from judge_server import Call as Asked
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from ske_models.engines.completion import read, with_thought
from ske_models.engines.faults import StopError
from ske_models.engines.http import Call, Dispatcher
from ske_models.engines.servers import Servers, checked
from ske_models.errors import UserError
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.lm_eval.served import address
from ske_models.store import Store

TASKS = Path(__file__).parents[1] / "tasks"
KEY = "sk-proj-0123456789abcdefSECRET"


class TransformersServer:
    """A `transformers serve` on a port of its own, which can be killed and started again."""

    def __init__(self, model: Path) -> None:
        self.model = model
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [str(Path(sys.executable).parent / "transformers"), "serve", str(self.model)]
        command += ["--port", str(self.port), "--device", "cpu", "--dtype", "float32"]
        env = os.environ | {"HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        while not self._listens():
            assert self.process is not None
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.25)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tiny_llama) -> Iterator[TransformersServer]:
    server = TransformersServer(tiny_llama)
    server.start()
    server.wait()
    yield server
    server.kill()


def evaluate(task: str = "toy_write", **args: Any) -> tuple[list, SKEExplicitLM]:
    """The answers with their knowledge, and the model that gave them."""
    model = SKEExplicitLM(max_knowledge_toks=24, **args)
    results = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": 24},
    )
    answers = [sample["resps"][0][0] for sample in results["samples"][task]]
    return [(str(answer), answer.trace["knowledge"]) for answer in answers], model


@pytest.fixture(scope="module")
def expected(tiny_llama) -> list:
    return evaluate(pretrained=str(tiny_llama), device="cpu", batch_size=4, store="none")[0]


def steps(model: SKEExplicitLM) -> dict[str, dict[str, int]]:
    return model.get_model_info()["ske"]["steps"]


def how_often(store: Path) -> list[int]:
    """How often each text in the store was written."""
    return [row[0] for row in sqlite3.connect(store).execute("SELECT written FROM steps")]


# The same answers as hf -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "more"),
    [
        ("local-chat-completions", {"window": 3}),
        # transformers' server takes no token ids
        ("local-completions", {"tokenized_requests": False}),
    ],
)
def test_a_server_gives_the_answers_of_the_process(server, expected, tiny_llama, backend, more):
    args = {"model": str(tiny_llama), "base_url": server.url, "store": "none", **more}
    answers, model = evaluate(backend=backend, **args)
    assert answers == expected
    for step in steps(model).values():
        # the server says how long its texts are
        assert (step["generated"], step["unknown_length"]) == (12, 0)
        assert 0 < step["output_tokens"] <= 12 * 24
        assert step["prompt_tokens"] > 0


# A server that dies -----------------------------------------------------------------------------------


@pytest.fixture
def dies(server, monkeypatch) -> Callable[[float | None], None]:
    """dies(again): the server is killed at the fifth text, and started again after so many seconds."""

    def dies(again: float | None) -> None:
        stored, put = Counter[str](), Store.put

        def put_and_kill(store: Store, *text: Any) -> None:
            put(store, *text)
            stored["texts"] += 1
            if stored["texts"] == 5:
                server.kill()
                if again is not None:
                    threading.Timer(again, server.start).start()

        monkeypatch.setattr(Store, "put", put_and_kill)

    return dies


def test_a_server_that_dies_and_comes_back(server, dies, expected, tiny_llama, tmp_path, capfd):
    store = tmp_path / "store.sqlite"
    args = {"model": str(tiny_llama), "base_url": server.url, "backend": "local-chat-completions"}
    dies(1.0)
    answers, model = evaluate(**args, store=str(store), num_concurrent=2)
    assert answers == expected
    assert how_often(store) == [1] * 24
    assert [step["generated"] for step in steps(model).values()] == [12, 12]
    said = [line for line in capfd.readouterr().err.replace("\r", "\n").split("\n") if "ske-learn" in line]
    assert len(said) == 2, said
    assert "waiting for it, up to 600 s" in said[0]
    assert "answers again, after" in said[1]


def test_a_server_that_stays_away_and_the_same_command_later(server, dies, expected, tiny_llama, tmp_path):
    store = tmp_path / "store.sqlite"
    args = {"model": str(tiny_llama), "base_url": server.url, "backend": "local-chat-completions"}
    args |= {"store": str(store), "num_concurrent": 2, "max_wait": 1}
    dies(None)
    with pytest.raises(UserError, match=r"no answer for 1 s \(.*\); what was written is kept") as error:
        evaluate(**args)
    assert "\n" not in str(error.value)
    kept = len(how_often(store))
    assert 5 <= kept <= 5 + 2
    server.start()
    server.wait()
    answers, model = evaluate(**args)
    assert answers == expected
    assert how_often(store) == [1] * 24
    assert sum(step["generated"] for step in steps(model).values()) == 24 - kept
    assert sum(step["reused"] for step in steps(model).values()) == kept


# A server that misbehaves --------------------------------------------------------------------------


def calls(n: int) -> list[Call]:
    return [
        Call(
            {"model": "m", "temperature": 0.0, "messages": [{"role": "user", "content": f"question {i}"}]},
            lambda reply: reply["choices"][0]["message"]["content"],
        )
        for i in range(n)
    ]


def ask(servers: list[str], asked: list[Call], **settings: Any) -> Counter[str]:
    """How often each call was answered."""
    heard: Counter[str] = Counter()

    def answered(call: Call) -> list[Call]:
        heard[call.payload["messages"][0]["content"]] += 1
        return []

    with tqdm(total=len(asked), disable=True) as bar:
        urls = [f"{url}/chat/completions" for url in servers]
        asyncio.run(Dispatcher(Servers(urls, **settings), asked, answered, bar).run())
    return heard


def each_fault_once(call: Asked) -> str:
    """Every second prompt meets a fault, and is then answered."""
    known = [fault for fault in FAULTS if not fault.endswith(("text", "choices", "seconds", "date"))]
    number = int(call.prompt.split()[1])
    return known[number // 2 % len(known)] if number % 2 and call.nth == 1 else "ok"


def test_every_call_is_answered_once_whatever_happens():
    asked = calls(60)
    with JudgeServer(each_fault_once) as server:
        heard = ask([server.base_url], asked, concurrent=16, timeout=0.5)
    assert set(heard.values()) == {1}
    assert len(heard) == 60
    assert all(call.answer == verdict(call.payload["messages"][0]["content"]) for call in asked)


def test_several_servers_share_the_calls_and_one_may_die(capfd):
    with JudgeServer(delay=0.02) as one, JudgeServer(delay=0.02) as other:
        ask([one.base_url, other.base_url], calls(40), concurrent=4)
        assert len(one.calls) + len(other.calls) == 40
        assert min(len(one.calls), len(other.calls)) >= 4  # the places of each are filled
        assert max(one.most_at_once, other.most_at_once) <= 4
        lost = JudgeServer()
        lost.__enter__()
        url = lost.base_url
        lost.__exit__()
        assert ask([url, other.base_url], calls(100), concurrent=4, max_wait=0.5).total() == 100
    assert capfd.readouterr().err.count("waiting for it") <= 1


@pytest.mark.parametrize("poison", ["status 500", "closed"])
def test_a_prompt_that_always_fails_is_asked_last_and_ends_the_run(poison):
    asked = calls(20)
    with (
        JudgeServer(lambda call: poison if call.prompt == "question 0" else "ok") as server,
        pytest.raises(StopError, match="one prompt failed 3 times"),
    ):
        ask([server.base_url], asked, concurrent=2, max_retries=2)
    assert [call.answer is None for call in asked] == [True] + [False] * 19


def test_a_server_that_has_no_room_is_given_time():
    began = time.monotonic()
    with JudgeServer(lambda call: "429 seconds" if call.nth == 1 else "ok") as server:
        ask([server.base_url], calls(3), concurrent=3, max_retries=0)
    assert 1 <= time.monotonic() - began < 4
    assert len(server.calls) <= 6


# Mistakes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"base_url": None}, "base_url: the server's address is needed"),
        ({"base_url": "http://a..b/v1"}, "base_url: 'http://a..b/v1' is no address"),
        ({"base_url": "http://.com/v1"}, "base_url: 'http://.com/v1' is no address"),
        ({"base_url": f"http://{'n' * 64}.com/v1"}, "base_url: 'http://n{64}.com/v1' is no address"),
        ({"num_concurent": 8}, "unexpected keyword argument 'num_concurent'"),
        ({"model": "unknown"}, "refuses, status 404: .*<key>"),
        ({"task": "toy_choice"}, "Loglikelihood is not supported for chat completions"),
        ({"key": "two\nlines"}, "OPENAI_API_KEY: has characters that no key has"),
        ({"key": None, "backend": "openai-chat-completions"}, "OPENAI_API_KEY"),
    ],
)
def test_a_mistake_is_one_line_and_tells_no_key(args, said, monkeypatch):
    given = {"model": "m", "backend": "local-chat-completions", "key": KEY, "store": "none"} | args
    key = given.pop("key")
    if key is None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with JudgeServer() as server:
        given = {"base_url": server.base_url} | given
        if given["base_url"] is None:
            del given["base_url"]
        with pytest.raises(UserError, match=said) as error:
            evaluate(**given)
        assert len({call.prompt for call in server.calls}) == len(server.calls), "asked again"
    assert KEY not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mistake_that_shows_in_the_middle_of_a_run_is_one_line(monkeypatch, capfd):
    def full(*_: Any) -> None:
        raise UserError("store: no room")

    monkeypatch.setattr(Store, "put", full)
    with JudgeServer() as server, pytest.raises(UserError, match="store: no room"):
        evaluate(backend="local-chat-completions", model="m", base_url=server.base_url, store="none")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "chat", "posted"),
    [
        ("http://a:8000/v1", True, "http://a:8000/v1/chat/completions"),
        ("http://a:8000/v1/", False, "http://a:8000/v1/completions"),
        ("https://b/x/completions?version=1", False, "https://b/x/completions?version=1"),
    ],
)
def test_address(given, chat, posted):
    assert address(given, chat) == posted


@pytest.mark.parametrize("url", ["http://[::1]:8000/v1", "http://ä.example/v1", "https://a_b.example./v1"])
def test_addresses_that_can_be_looked_up(url):
    assert checked("base_url", url) == url


@pytest.mark.parametrize("proxy", ["garbage://x", "localhost:3128", "socks5://127.0.0.1:1080", "http://"])
def test_a_proxy_that_is_none_is_named(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(
        UserError, match="http_proxy: '.*' is no address; write one as in http://HOST:3128"
    ) as e:
        Servers(["http://10.1.2.3:8000/v1/completions"])
    assert "\n" not in str(e.value)
    Servers(["https://10.1.2.3:8000/v1/completions"])  # goes another way
    monkeypatch.setenv("no_proxy", "10.1.2.3")
    Servers(["http://10.1.2.3:8000/v1/completions"])


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "use `<think>` tags", "reasoning_content": "How?"}, "<think>\nHow?\n</think>\n\nuse `<"),
        ({"content": "\n<think>Hm.</think>4", "reasoning_content": "How?"}, "\n<think>Hm.</think>4"),
        ({"content": "4", "reasoning_content": "", "reasoning": "How?"}, "<think>\nHow?\n</think>\n\n4"),
        ({"content": "4", "reasoning_content": " \n", "reasoning": "How?"}, "<think>\nHow?\n</think>\n\n4"),
    ],
)
def test_a_thought_that_comes_apart_is_kept_once(message, text):
    reply = read({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    whole = with_thought(reply, reply.text)
    assert whole.startswith(text)
    assert whole.endswith(message["content"])


def test_a_key_in_an_address_is_in_no_message():
    servers = Servers(["http://a/v1/completions?access_token=abcdefgh&version=2024"])
    assert servers.secrets == ["abcdefgh"]
