"""A run that manages its servers writes what a run against servers that somebody has started does; SIGKILL of
it at any moment leaves no process behind and costs no text.

SKE_KILLS=10 pytest -q -s tests/e2e/test_rounds_served.py     # more of them, and where they hit

Real `vllm serve` on TinyWorld's model.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from small_runs import ROOT, SCRIPT, environment, small, texts, write

from ske_models import embedded
from ske_models.files import read_jsonl

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("SKE_KILLS", "2"))
AFTER = 10.0  # seconds after which nothing of a killed command may be left
OPTIONS = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512}
MARK = "SKE_TEST_RUN"  # an environment variable, by which all processes of a command are found
SERVED = b"M0: served"  # what a run says when its servers answer
TEXTS = 12 * 2 + 20 * 2 * 2 + 60  # of evaluation and synthesis, and most verdicts
AT_A_TIME = 4  # calls that a server has


def recipe(file: Path, **generation: Any) -> Path:
    """M0 is evaluated, writes and judges itself: three stages with one checkpoint."""
    served = {"backend": "local-chat-completions", "args": {"num_concurrent": AT_A_TIME, "max_retries": 2}}
    content = small(evaluate={"methods": ["explicit"], "limit": 12})
    content["generation"] |= {"max_reasoning_tokens": 48, "max_verdict_tokens": 48, "window": 8}
    content["generation"] |= served | generation
    content["evaluate"] |= served
    content["rounds"] = [{"judge": "self", "questions": 20, "mix": {}}]
    return write(file, content)


def command(recipe_: Path, folder: Path) -> list[str]:
    arguments = ["--recipe", str(recipe_), "--run", str(folder), "--until", "judge"]
    return [sys.executable, str(SCRIPT), *arguments]


def answered(folder: Path) -> dict[str, bytes]:
    """What the model wrote, wherever it is in a run."""
    samples = folder / "results" / "M0" / "ske_world_dev.explicit.samples.jsonl"
    rows = [{name: row[name] for name in ("doc_id", "answer", "knowledge")} for row in read_jsonl(samples)]
    return texts(folder) | {"samples": json.dumps(rows).encode()}


def left(mark: str) -> list[str]:
    """The processes that a command with this mark, or anything below it, has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if marked and state != "Z":
            found.append(f"{process.name} {line}")
    return found


@contextmanager
def by_hand(log: Path) -> Iterator[str]:
    """The base URL of a `vllm serve` that the test starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [str(Path(sys.executable).with_name("vllm")), "serve", str(embedded.path()), "--port", str(port)]
    line += ["--served-model-name", "M0", "--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    with (
        log.open("wb") as said,
        subprocess.Popen(
            line, stdout=said, stderr=said, env=os.environ | SMALL_CACHE, start_new_session=True
        ) as server,
    ):
        try:
            while not healthy(f"http://127.0.0.1:{port}/health"):
                assert server.poll() is None, log.read_text(errors="replace")[-2000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGKILL)


SMALL_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def distinct(watched: Path) -> int:
    """How many different requests were answered so far."""
    lines = watched.read_text().splitlines() if watched.is_file() else []
    return len({line.partition(",")[2] for line in lines})


def killed(
    line: list[str], log: Path, env: dict[str, str], watched: Path, texts_: int, rng: random.Random
) -> str | None:
    """Starts a command and kills it when its servers have answered so many different requests.

    What it was doing, or None where it had ended before.
    """
    with log.open("wb") as stderr:
        process = subprocess.Popen(line, stderr=stderr, env=env, start_new_session=True)
    while process.poll() is None and (distinct(watched) < texts_ or SERVED not in log.read_bytes()):
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0, 0.5))
        assert process.returncode == 0, log.read_text(errors="replace")
        return None
    if rng.random() < 0.3:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return re.findall(r"^round \d, (\w+) \.\.\.$", log.read_text(errors="replace"), re.MULTILINE)[-1]


def test_sigkill_leaves_nothing_and_the_texts_are_those_of_other_servers(tmp_path):
    pytest.importorskip("vllm")
    rng = random.Random(os.environ.get("SKE_KILLS_SEED", "0"))
    watched = tmp_path / "answered.jsonl"
    mark = str(tmp_path)
    env = environment(
        **SMALL_CACHE, **{MARK: mark}, WATCH_SERVED=str(watched), PYTHONPATH=f"{ROOT / 'tests'}:{ROOT}"
    )
    serve = {"args": OPTIONS | {"middleware": "watch_served.Watch"}}
    one = recipe(tmp_path / "one.yaml", serve=serve)
    two = recipe(tmp_path / "two.yaml", serve=serve | {"data_parallel": 2})
    folder, kills, hit = tmp_path / "run", [], Counter[str]()
    for number in range(KILLS):
        texts_ = int(TEXTS * (number + rng.random()) / KILLS)
        doing = killed(command(one, folder), tmp_path / "log", env, watched, texts_, rng)
        kills.append(time.time())
        if doing is None:
            break
        hit[doing] += 1
        while left(mark) and time.time() < kills[-1] + AFTER:
            time.sleep(0.2)
        assert left(mark) == []
        print(f"kill {number + 1}: {doing}, nothing left after {time.time() - kills[-1]:.1f} s", flush=True)
    print(f"{sum(hit.values())} kills:", ", ".join(f"{count} in {where}" for where, count in hit.items()))
    done = subprocess.run(command(two, folder), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert left(mark) == []
    assert sum(hit.values()) >= KILLS / 2, "too few commands were killed before they ended"
    assert done.stderr.count("M0: served") <= 1, "its servers were started for each stage"
    assert {file.name for file in (folder / "servers").iterdir()} == {"M0.0.log", "M0.1.log"}

    requests = read_jsonl(watched)
    bodies = Counter(json.dumps(row["body"], sort_keys=True) for row in requests)
    # when each was answered for the first time
    first = {json.dumps(row["body"], sort_keys=True): row["at"] for row in reversed(requests)}
    again = [first[body] for body, count in bodies.items() if count > 1]
    assert len(bodies) >= TEXTS
    # only what was under way, or on its way back, when the command was killed
    near = Counter(min(kills, key=lambda kill: abs(kill - at)) for at in again)
    assert all(abs(at - min(kills, key=lambda kill: abs(kill - at))) < AFTER for at in again)
    assert max(near.values(), default=0) <= AT_A_TIME, "a text that was finished was generated again"

    with by_hand(tmp_path / "by_hand.log") as url:
        other = recipe(tmp_path / "other.yaml", endpoints=[url])
        done = subprocess.run(
            command(other, tmp_path / "other"), env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    ours, theirs = answered(folder), answered(tmp_path / "other")
    assert set(ours) == set(theirs)
    assert len(ours) >= 4
    assert [name for name in ours if ours[name] != theirs[name]] == []
