"""One turn of a system in benchmarks/peers.py, as `vllm serve` has seen it, and the server itself.

    with server(model, "bfloat16", log) as served:
        turn = run("inspect_chain", ".peers/bin/python", job, folder, served)

The server notes every request (peers/watch.py), so all systems are timed alike: from the start of the process
to the first request (`before`), with at least one request at the server (`generating`), and the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import requests
from jinja2 import Template

from benchmarks.report import children, processor
from ske_models.errors import UserError
from ske_models.files import read_jsonl

PEERS = Path(__file__).parent / "peers"
OWN = ("ours_evaluation", "lm_eval_twice", "ours_synthesis")  # run in this environment
MODEL = "served"
PORT = 8437
OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Served:
    """A server that runs. url: its base URL. log: what watch.py writes."""

    url: str
    log: Path
    process: psutil.Process


@dataclass(frozen=True)
class Turn:
    """One run of one system.

    Seconds: before, generating, total; cpu and server_cpu (of the processor). flight: mean of the requests
    under way. Tokens: prompt_tokens, of them cached_tokens; output_tokens. step1, step2: how many requests of
    each step were sent exactly as they should, step 2 with the knowledge that this very system has got.
    answers: text by question.
    """

    before: float
    generating: float
    total: float
    cpu: float
    server_cpu: float
    flight: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    sent: int
    step1: int
    step2: int
    answers: dict[str, str]

    @property
    def rest(self) -> float:
        """Seconds between two phases of requests, and after the last one."""
        return self.total - self.before - self.generating


@contextmanager
def server(model: Path, dtype: str, log: Path) -> Iterator[Served]:
    """A `vllm serve` with prefix caching. Raises UserError if it ends before it answers."""
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model), "--served-model-name", MODEL]
    command += ["--port", str(PORT), "--dtype", dtype, "--enforce-eager", "--middleware", "watch.Watch"]
    command += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    env = os.environ | {"PEERS_LOG": str(log), "PYTHONPATH": str(PEERS)}
    env |= {"VLLM_SERVER_DEV_MODE": "1"}  # for /reset_prefix_cache
    env.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GB
    said = log.with_suffix(".server")
    with said.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=env) as process:
        try:
            while not _answers(f"http://127.0.0.1:{PORT}/health"):
                if process.poll() is not None:
                    raise UserError(f"vllm serve: ended with {process.returncode}; see {said}")
                time.sleep(0.5)
            yield Served(f"http://127.0.0.1:{PORT}/v1", log, psutil.Process(process.pid))
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def run(system: str, python: str, job: dict[str, Any], folder: Path, served: Served) -> Turn:
    """One system does the job, with an empty prefix cache. Raises UserError if it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "job.json"
    file.write_text(json.dumps(job | {"folder": str(folder), "url": served.url, "model": MODEL}))
    reset = f"http://127.0.0.1:{PORT}/reset_prefix_cache"
    requests.post(reset, timeout=60).raise_for_status()
    seen = served.log.stat().st_size if served.log.exists() else 0
    env = os.environ | OFFLINE | {"HOME": str(folder.parent)}
    used = [children(), processor(served.process)]
    began = time.monotonic()
    with (folder / "said.txt").open("w") as said:
        done = subprocess.run(
            [sys.executable if system in OWN else python, str(PEERS / f"{system}.py"), str(file)],
            stdout=said,
            stderr=said,
            env=env,
            check=False,
        )
    ended = time.monotonic()
    used = [
        after - before for after, before in zip([children(), processor(served.process)], used, strict=True)
    ]
    if done.returncode:
        raise UserError(f"{system}: ended with {done.returncode}; see {folder / 'said.txt'}")
    with served.log.open(encoding="utf-8") as lines:
        lines.seek(seen)
        notes = [json.loads(line) for line in lines]
    failed = sum(note["status"] != HTTPStatus.OK for note in notes)
    if failed:
        raise UserError(f"{system}: the server refused {failed} of {len(notes)} requests; see {served.log}")
    return Turn(
        **_seen(notes, began),
        **_sent(notes, job),
        total=ended - began,
        cpu=used[0],
        server_cpu=used[1],
        answers=json.loads((folder / "answers.json").read_text()),
    )


def _seen(notes: Sequence[dict[str, Any]], began: float) -> dict[str, Any]:
    """Times and tokens of all requests."""
    busy, until = 0.0, 0.0
    for note in sorted(notes, key=lambda note: note["came"]):
        busy += max(note["went"] - max(note["came"], until), 0.0)
        until = max(until, note["went"])
    usage = [json.loads(note["reply"])["usage"] for note in notes]
    return {
        "before": min(note["came"] for note in notes) - began,
        "generating": busy,
        "flight": sum(note["went"] - note["came"] for note in notes) / busy,
        "prompt_tokens": sum(used["prompt_tokens"] for used in usage),
        "cached_tokens": sum((used["prompt_tokens_details"] or {})["cached_tokens"] for used in usage),
        "output_tokens": sum(used["completion_tokens"] for used in usage),
    }


def _sent(notes: Sequence[dict[str, Any]], job: dict[str, Any]) -> dict[str, int]:
    """How many requests there were, and how many of each step were as the job has them."""
    replies: dict[str, list[str]] = {}
    sent: Counter[str] = Counter()
    for note in notes:
        body = json.loads(note["body"])
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        key = _key(body["messages"], limit, body["temperature"])
        sent[key] += 1
        message = json.loads(note["reply"])["choices"][0]["message"]
        replies.setdefault(key, []).append(message["content"] or "")
    extract, reason = Template(job["extract"]), Template(job["reason"])
    found = {"sent": len(notes), "step1": 0, "step2": 0}
    for row in read_jsonl(Path(job["items"])):
        first = _key(_user(extract.render(**row)), job["knowledge_tokens"], 0)
        if not replies.get(first):
            continue
        found["step1"] += 1
        prompt = reason.render(**row, knowledge=replies[first].pop())
        second = _key(_user(prompt), job["answer_tokens"], 0)
        found["step2"] += sent[second] > 0
        sent[second] -= 1
    return found


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _key(messages: Any, limit: int, temperature: float) -> str:
    return json.dumps([messages, limit, float(temperature)], sort_keys=True)
