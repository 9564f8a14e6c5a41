"""Servers that a run manages: started, found by the stages, started again once, ended whatever happens.

What is tested here is processes, so `vllm serve` is stood in for (tests/stand_in_server.py); the real one is
in tests/e2e/test_rounds_served.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer
from small_runs import ROOT, small

from ske_models import embedded
from ske_models.errors import UserError
from training import recipe
from training.judges import openai
from training.run_folder import RunFolder
from training.serving import keeper, servers, where
from training.serving.servers import RunServers
from training.serving.settings import Serve, flags
from training.settings.judge import OpenAIJudge
from training.stages import evaluate, judge, questions, select, sft, synthesize

STAND_IN = [sys.executable, str(ROOT / "tests" / "stand_in_server.py"), "serve"]
ECHO = [sys.executable, "-c", "import os, sys; sys.exit(os.environ['SKE_SERVED'] != sys.argv[1])"]
JUDGE = {"kind": "openai", "model": "ORG/JUDGE", "serve": {}}
PATIENCE = 10.0  # seconds for all processes to end


def run_folder(path: Path, serve: dict, **changes) -> RunFolder:
    content = small(generation={"backend": "local-chat-completions", "serve": serve}, **changes)
    folder = RunFolder(path, recipe.Recipe.model_validate(content))
    path.mkdir(parents=True, exist_ok=True)
    folder.checkpoint(0).symlink_to(embedded.path())
    return folder


@pytest.fixture
def stand_in(monkeypatch) -> None:
    monkeypatch.setattr(servers, "_program", lambda: STAND_IN)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def serving(tmp_path, stand_in) -> Iterator[RunServers]:
    with RunServers(run_folder(tmp_path / "run", {"data_parallel": 2}), print) as started:
        yield started


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def all_end(pids: set[int]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def processes(managed: RunServers) -> set[int]:
    """The keeper, the servers and their engines."""
    assert managed.keeper is not None
    return keeper.members(managed.keeper.pid)


def server_of(log: Path) -> int:
    """The process that writes a log, by what it was started with."""
    port = re.findall(r"--port (\d+)", log.read_text())[-1]
    [pid] = [
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if f"--port\0{port}\0".encode() in _line(process) and alive(int(process.name))
    ]
    return pid


def _line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def answers(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/models", timeout=5) as reply:
        return [model["id"] for model in json.load(reply)["data"]]


def test_a_stage_finds_them_and_nothing_is_left(serving, tmp_path):
    serving.use("M0")
    assert [answers(url) for url in serving.urls] == [["M0"], ["M0"]]
    assert len(set(serving.urls)) == 2
    assert serving.run([*ECHO, json.dumps({"M0": serving.urls})], os.environ) == 0
    there, urls = processes(serving), serving.urls
    assert len(there) == 1 + 2 + 2
    serving.use("M0")
    serving.use(None)
    assert serving.urls == urls, "they were started again"
    logs = sorted(file.name for file in (tmp_path / "run" / "servers").iterdir())
    assert logs == ["M0.0.log", "M0.1.log"]
    serving.use(where.ALONE)
    assert not any(map(alive, there))
    assert serving.environment()[where.VARIABLE] == json.dumps({"": []})


def test_one_that_dies_is_started_again_once(serving, capfd):
    serving.use("M0")
    before = processes(serving)
    first, second = map(server_of, serving.logs)
    os.kill(first, signal.SIGKILL)  # its engine lives on, and must not keep the memory
    deadline = time.monotonic() + 20
    while "started again" not in capfd.readouterr().err:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    serving._wait(serving.urls[0], "M0", time.monotonic())  # as at the first start
    now = processes(serving)
    assert len(now) == 5
    assert len(now & before) == 3, "the engine of the dead server, or a healthy server, was touched"
    assert alive(second)
    os.kill(server_of(serving.logs[0]), signal.SIGKILL)
    with pytest.raises(UserError, match=r"M0: vllm serve ended once more: SIGKILL; see .*M0\.0\.log"):
        serving.run([sys.executable, "-c", "import time; time.sleep(60)"], os.environ)
    assert all_end(before | now)


def test_one_that_cannot_start_says_why(tmp_path, stand_in):
    folder = run_folder(tmp_path / "run", {"args": {"start_fails": True}})
    with RunServers(folder, print) as managed, pytest.raises(UserError) as raised:
        managed.use("M0")
    said = str(raised.value)
    assert "M0: vllm serve ended before it answered: ValueError: the model has no room in 1 GiB; see " in said
    log = tmp_path / "run" / "servers" / "M0.0.log"
    assert str(log) in said
    [engine] = re.findall(r"engine (\d+)", log.read_text())
    assert all_end({int(engine)}), "and it was not tried again"


def test_another_model_is_refused(tmp_path, stand_in):
    folder = run_folder(tmp_path / "run", {"args": {"calls-itself": "M7"}})
    with RunServers(folder, print) as managed, pytest.raises(UserError, match="serves M7, not M0"):
        managed.use("M0")
    with (
        RunServers(folder, print) as managed,
        pytest.raises(UserError, match="M1: no checkpoint; it is made"),
    ):
        managed.use("M1")


OWNER = """
import os, signal, sys, time
from pathlib import Path
from training.run_folder import RunFolder
from training.serving import servers
servers._program = lambda: sys.argv[2:]
with servers.RunServers(RunFolder.open(Path(sys.argv[1])), print) as managed:
    managed.use("M0")
    print("keeper", managed.keeper.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("killed", ["owner", "keeper"])
def test_sigkill_leaves_nothing(tmp_path, stand_in, killed):
    folder = run_folder(tmp_path / "run", {"data_parallel": 2})
    (folder.path / "recipe.json").write_text(folder.recipe.model_dump_json())
    command = [sys.executable, "-c", OWNER, str(folder.path), *STAND_IN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        line = next(line for line in owner.stdout if line.startswith("keeper"))
        pid = int(line.split()[1])
        there = keeper.members(pid)
        assert len(there) == 5
        if killed == "owner":
            owner.kill()
        else:
            # the command looks while a stage runs, and ends the rest at the end in any case
            os.kill(pid, signal.SIGKILL)
            owner.send_signal(signal.SIGINT)
        owner.wait(20)
        assert all_end(there), "something outlived it"


def test_a_judge_is_served_by_its_name_and_prompted_without_a_key(tmp_path, stand_in, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    content = small() | {"judge": JUDGE | {"serve": {"data_parallel": 2}}}
    folder = RunFolder(tmp_path / "run", recipe.Recipe.model_validate(content))
    folder.path.mkdir()
    judge.check(folder.recipe)
    with RunServers(folder, print) as managed:
        managed.use(where.JUDGE)
        assert [answers(url) for url in managed.urls] == [["ORG/JUDGE"]] * 2
        command = re.findall(r"^--- started \S+ (.*)$", managed.logs[0].read_text(), re.MULTILINE)[0]
        assert "serve ORG/JUDGE --served-model-name ORG/JUDGE" in command
    settings = folder.recipe.judge
    assert isinstance(settings, OpenAIJudge)
    with JudgeServer() as one, JudgeServer() as two:
        with pytest.raises(UserError, match="judge: is served by the run itself"):
            openai.ask(settings, ["a?"], tmp_path / "a.sqlite", "x", "judge")
        monkeypatch.setenv(where.VARIABLE, json.dumps({"judge": [one.base_url, two.base_url]}))
        prompts = [f"text {i}?" for i in range(40)]
        verdicts, _ = openai.ask(settings, prompts, tmp_path / "b.sqlite", "x", "judge")
        assert all(verdict.score for verdict in verdicts)
        assert len(one.calls) + len(two.calls) == 40
        assert one.calls
        assert two.calls
        assert {call.authorization for call in one.calls} == {"Bearer none"}


def test_which_stage_wants_what(tmp_path):
    served = {"backend": "local-chat-completions"}
    run = run_folder(tmp_path / "a", {}, evaluate=served, judge={"kind": "world"})
    stages = (questions, synthesize, judge, select, sft, evaluate)

    def wanted(folder: RunFolder, n: int) -> list[str | None]:
        return [module.STAGE.prompts(folder, n) for module in stages]

    assert wanted(run, 1) == [None, "M0", None, None, "", "M1"]
    assert wanted(run, 2) == [None, "M1", "M1", None, "", "M2"]
    content = small() | {"judge": JUDGE}
    content["generation"] = {"backend": "hf"}
    alone = RunFolder(tmp_path / "b", recipe.Recipe.model_validate(content))
    assert wanted(alone, 1) == [None, "", "judge", None, "", ""]
    assert where.of_judge(alone.recipe) == "judge"
    there = {"backend": "local-chat-completions", "endpoints": ["http://127.0.0.1:1/v1"]}
    content = small(generation=there, evaluate=served)
    other = RunFolder(tmp_path / "c", recipe.Recipe.model_validate(content))
    assert wanted(other, 2) == [None, None, None, None, "", None]


def test_options_as_a_command_line_has_them():
    args: dict[str, Any] = {"max_model_len": 8192, "enforce_eager": True, "enable-prefix-caching": False}
    args |= {"load_format": None, "middleware": ["a.B", "c.D"], "hf_overrides": {"top_k": 1}}
    assert flags(args) == [
        "--max-model-len", "8192", "--enforce-eager", "--no-enable-prefix-caching",
        "--middleware", "a.B", "c.D", "--hf-overrides", '{"top_k": 1}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"generation": {"backend": "hf", "serve": {}}}, "with `serve`, backend is local-chat-completions"),
        ({"generation": {"serve": {}, "endpoints": ["http://a:1/v1"]}}, "or `endpoints`, one of them"),
        ({"generation": {"serve": {}, "args": {"model": "M"}}}, "the run sets model itself; leave it out"),
        ({"generation": {"serve": {"args": {"port": 8000}}}}, "`port` is set by the run itself (a free one"),
        ({"generation": {"serve": {"args": {"data-parallel-size": 8}}}}, "write data_parallel beside args"),
        ({"generation": {"serve": {"args": {"api_key": "$MY_KEY"}}}}, "readable in the list of processes"),
        ({"generation": {"serve": {"engine": "sglang"}}}, "'vllm'"),
        ({"judge": JUDGE | {"base_url": "http://a:1/v1"}}, "or `base_url`, one of them"),
    ],
)
def test_mistakes_in_a_recipe(tmp_path, section, said):
    content = small()
    content["generation"] = {}
    content |= section
    file = tmp_path / "r.yaml"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as raised:
        recipe.load(str(file))
    assert said in str(raised.value)
    assert "line" in str(raised.value)


def test_what_serves_is_no_part_of_what_is_written(tmp_path):
    from training.engine import identity

    managed = run_folder(tmp_path / "a", {"data_parallel": 2, "args": {"dtype": "float32"}})
    there = {"backend": "local-chat-completions", "endpoints": ["http://127.0.0.1:1/v1"]}
    by_hand = RunFolder(tmp_path / "b", recipe.Recipe.model_validate(small(generation=there)))
    by_hand.path.mkdir()
    by_hand.checkpoint(0).symlink_to(embedded.path())
    assert identity(managed, 0) == identity(by_hand, 0)
    for stage in (synthesize, judge, sft):
        assert stage.STAGE.settings(managed, 2) == stage.STAGE.settings(by_hand, 2)


def test_gpus_and_cores_are_shared_out(monkeypatch):
    import torch

    def shares(**serve: Any) -> list[dict[str, str]]:
        return servers._shares("generation", Serve(**serve))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert shares(data_parallel=4, tensor_parallel=2)[1] == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert len(shares(data_parallel=8)) == 8
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert shares(data_parallel=2) == [{"CUDA_VISIBLE_DEVICES": "GPU-a"}, {"CUDA_VISIBLE_DEVICES": "GPU-b"}]
    assert shares() == [{}]
    with pytest.raises(UserError, match="data_parallel 8 x tensor_parallel 1 needs 8 GPUs, and 2 are"):
        shares(data_parallel=8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6, 7, 8})
    cores = [{"VLLM_CPU_OMP_THREADS_BIND": "4,5"}, {"VLLM_CPU_OMP_THREADS_BIND": "6,7"}]
    assert shares(data_parallel=2) == cores
    with pytest.raises(UserError, match="no GPU is visible here, and on 5 CPU cores at most data_"):
        shares(data_parallel=8)
