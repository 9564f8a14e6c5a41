"""The servers that a run manages: `vllm serve` of each model that is prompted, for as long as it is.

    with RunServers(folder) as servers:
        servers.use("M0")                             # starts them, and returns when they answer
        servers.run([..., "-m", "training.stage", ...])   # a stage, which finds them (where.py)
        servers.use(ALONE)                            # before training

`data_parallel` copies of a model are so many `vllm serve`, and not one with `--data-parallel-size`: the one
dispatcher (ske_models/engines/http.py) shares the calls anyway, and puts back into the queue what a dead
server had; one that dies takes no other with it; each has a front end of its own, which with eight engines
behind it would be the bottleneck; and a dense model's engines have nothing to say to each other. (vLLM can
start them on several ports, too, but gives each a process group of its own, which nobody could end.)

Two models are never there together: GPUs are full with one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any

from ske_models.engines.overheard import last_error
from ske_models.errors import UserError
from training import stopping
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.serving import keeper
from training.serving.settings import Serve, flags
from training.serving.where import ALONE, JUDGE, VARIABLE
from training.settings.judge import OpenAIJudge

HOST = "127.0.0.1"
# Below those that systems hand out by themselves (from 32768 on): vLLM takes some of these for its own use,
# and might take one that another server has been told to listen on and does not yet.
PORTS = range(20_000, 30_000)
LONGEST = 3_600.0  # seconds that a model may take to load
LOOK = 0.25  # seconds between two looks at whether it answers


def settings(recipe: Recipe) -> dict[str, Serve]:
    """The recipe's servers: "generation" and "judge", those that there are."""
    found = {"generation": recipe.generation.serve}
    found["judge"] = recipe.judge.serve if isinstance(recipe.judge, OpenAIJudge) else None
    return {name: serve for name, serve in found.items() if serve}


def check(recipe: Recipe) -> None:
    """Raises UserError if the recipe's servers cannot be started here: no vLLM, too few GPUs."""
    for name, serve in settings(recipe).items():
        if sys.platform != "linux":
            raise UserError(f"{name}.serve: vllm is for Linux; name servers elsewhere ({INSTEAD})")
        _program()
        _shares(name, serve)


class RunServers:
    """The servers of a run's folder; at most one model's at a time. They end with this process, whatever
    ends it (keeper.py). Their output is in RUN/servers."""

    def __init__(self, folder: RunFolder, say: Any) -> None:
        self.folder = folder
        self.say = say
        self.name: str = ALONE
        self.urls: list[str] = []
        self.logs: list[Path] = []
        self.keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RunServers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def use(self, name: str | None) -> None:
        """Has the servers of M1, ..., or of JUDGE, and no others; ALONE: none. None: leaves them as they are.

        Returns when they answer. Raises UserError if they end before they do.
        """
        if name is None or name == self.name:
            return
        self.stop()
        if name == ALONE:
            return
        model, served_as, serve = self._what(name)
        orders = self._orders(name, model, served_as, serve)
        began, self.name = time.monotonic(), name
        self.say(f"{name}: {_count(serve)} being started; what it says is in {self.logs[0].parent} ...")
        try:
            self._start({"name": name, "servers": orders})
            for url in self.urls:
                self._wait(url, served_as, began)
            self._order("answers")
        except BaseException:
            self.stop()
            raise
        self.say(f"{name}: served, after {time.monotonic() - began:.0f} s")

    def stop(self) -> None:
        """Ends them, and returns when they have ended."""
        process, self.keeper = self.keeper, None
        self.name, self.urls = ALONE, []
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3 * keeper.GRACE)
        process.kill()
        process.wait()
        keeper.end(process.pid)  # what is left if somebody has killed it
        process.stdout.close()

    def run(self, command: Sequence[str], env: Mapping[str, str]) -> int:
        """As `stopping.run`, for a command that prompts them. Raises UserError if they die for good."""
        if self.keeper is None:
            return stopping.run(command, env)
        return stopping.run(command, {**env, **self.environment()}, self.check)

    def environment(self) -> dict[str, str]:
        """What a stage is told of them. No proxy is to be asked for what is on this machine."""
        direct = {
            name: ",".join(filter(None, (os.environ.get(name), HOST))) for name in ("NO_PROXY", "no_proxy")
        }
        return {VARIABLE: json.dumps({self.name: self.urls}), **direct}

    def check(self) -> None:
        """Raises UserError if they have ended, and will not be started again."""
        if self.keeper is None or self.keeper.poll() is None:
            return
        assert self.keeper.stdout is not None
        line = self.keeper.stdout.readline()
        name = self.name
        self.stop()  # the rest of them
        if not line:
            raise UserError(f"{name}: the process that keeps its servers was killed; {AGAIN}")
        said = json.loads(line)
        when = "once more" if said["restarted"] else "before it answered"
        why = _why(Path(said["log"]), said["status"])
        raise UserError(f"{name}: vllm serve ended {when}: {why}; see {said['log']}; {AGAIN}")

    def _what(self, name: str) -> tuple[str, str, Serve]:
        """(folder or hub name of a model, what it is called, how it is served)."""
        recipe = self.folder.recipe
        if name == JUDGE:
            assert isinstance(recipe.judge, OpenAIJudge)
            assert recipe.judge.serve is not None
            return recipe.judge.model, recipe.judge.model, recipe.judge.serve
        assert recipe.generation.serve is not None
        checkpoint = self.folder.path / name
        if not (checkpoint / "config.json").is_file():
            raise UserError(f"{checkpoint}: no checkpoint; it is made by round {name[1:]}")
        return str(checkpoint), name, recipe.generation.serve

    def _orders(self, name: str, model: str, served_as: str, serve: Serve) -> list[dict[str, Any]]:
        """What the keeper is to start; sets urls and logs."""
        section = JUDGE if name == JUDGE else "generation"
        where = self.folder.path / "servers"
        where.mkdir(exist_ok=True)
        shares = _shares(section, serve)
        ports = _free_ports(len(shares))
        self.logs = [(where / f"{name}.{i}.log").absolute() for i in range(len(shares))]
        self.urls = [f"http://{HOST}:{port}/v1" for port in ports]
        line = [*_program(), model, "--served-model-name", served_as, "--host", HOST]
        line += ["--tensor-parallel-size", str(serve.tensor_parallel), *flags(serve.args)]
        return [
            {"command": [*line, "--port", str(port)], "env": share, "log": str(log)}
            for port, share, log in zip(ports, shares, self.logs, strict=True)
        ]

    def _start(self, orders: dict[str, Any]) -> None:
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "training.serving.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            close_fds=False,  # the run's lock is held until the last of them has ended
            start_new_session=True,  # which no Ctrl-C in the terminal reaches, and which `keeper.end` ends
            env={name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"},
        )
        self._order(json.dumps(orders))

    def _order(self, line: str) -> None:
        assert self.keeper is not None
        assert self.keeper.stdin is not None
        try:
            self.keeper.stdin.write(f"{line}\n".encode())
            self.keeper.stdin.flush()
        except BrokenPipeError:
            self.keeper.wait()
            self.check()

    def _wait(self, url: str, name: str, began: float) -> None:
        """Until a server answers for a model of that name."""
        while not _serves(url, name):
            self.check()
            if time.monotonic() - began > LONGEST:
                raise UserError(f"{name}: no answer within {LONGEST:.0f} s; see {self.logs[0].parent}")
            time.sleep(LOOK)


AGAIN = "the same command continues"
INSTEAD = "generation.endpoints, judge.base_url"


def _program() -> list[str]:
    """The beginning of the command. Raises UserError if vLLM is not installed."""
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.is_file() else shutil.which("vllm")
    if found is None:
        raise UserError(
            "serve: vllm is not installed here; pip install 'ske-learn[vllm]', or name servers that run "
            f"({INSTEAD})"
        )
    return [found, "serve"]


def _shares(section: str, serve: Serve) -> list[dict[str, str]]:
    """The environment of each copy: with its own GPUs; with its own cores where there is no GPU.

    Raises UserError if there are too few of them.
    """
    if serve.gpus == 1:
        return [{}]
    import torch

    copies, each = serve.data_parallel, serve.tensor_parallel
    found = torch.cuda.device_count()
    if found == 0:
        return _cores(section, serve)
    variable = "HIP_VISIBLE_DEVICES" if torch.version.hip else "CUDA_VISIBLE_DEVICES"
    visible = os.environ.get(variable)
    names = visible.split(",") if visible else [str(i) for i in range(found)]
    if serve.gpus > min(found, len(names)):
        raise UserError(
            f"{section}.serve: data_parallel {copies} x tensor_parallel {each} needs {serve.gpus} GPUs, and "
            f"{found} are visible; lower data_parallel"
        )
    return [{variable: ",".join(names[i * each : (i + 1) * each])} for i in range(copies)]


def _cores(section: str, serve: Serve) -> list[dict[str, str]]:
    cores = sorted(os.sched_getaffinity(0))
    if serve.tensor_parallel > 1 or serve.data_parallel > len(cores):
        raise UserError(
            f"{section}.serve: no GPU is visible here, and on {len(cores)} CPU cores at most "
            f"data_parallel: {len(cores)} and tensor_parallel: 1 are possible"
        )
    if "VLLM_CPU_OMP_THREADS_BIND" in os.environ:
        return [{} for _ in range(serve.data_parallel)]
    each = len(cores) // serve.data_parallel
    shares = [cores[i * each : (i + 1) * each] for i in range(serve.data_parallel)]
    return [{"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, share))} for share in shares]


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    free: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        free.append(port)
        if len(free) == count:
            return free
    raise UserError(f"no port of {HOST} is free between {PORTS.start} and {PORTS.stop}")


def _serves(url: str, name: str) -> bool:
    """Whether a server answers. Raises UserError if it has another model."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/models", timeout=5) as reply:
            models = [model["id"] for model in json.load(reply)["data"]]
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return False  # it does not listen yet, or is not ready
    if name not in models:
        raise UserError(f"{url}: serves {', '.join(models)}, not {name}; {AGAIN}")
    return True


def _count(serve: Serve) -> str:
    """What is started, in words."""
    gpus = f", {serve.tensor_parallel} GPUs each" if serve.tensor_parallel > 1 else ""
    return f"{serve.data_parallel} x vllm serve{gpus}"


def _why(log: Path, status: int) -> str:
    """The last error in what a server has said since its last start, or else how it ended."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith(keeper.BEGINS))
    said = deque(lines[start + 1 :], maxlen=2000)
    of_options = [line for line in said if line.startswith("vllm serve: error: ")]
    return last_error(said) or (of_options[-1] if of_options else keeper.name_of(status))
