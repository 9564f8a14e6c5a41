"""Is `explicit` faster than the same two steps written for other tools, on one `vllm serve`?

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers/requirements.txt
    HF_ENDPOINT=... python benchmarks/peers.py evaluation --python .peers/bin/python
    HF_ENDPOINT=... python benchmarks/peers.py synthesis --python .peers/bin/python

A job is: real benchmark questions, the two templates of `prompts/default.yaml`, token limits, and how many
requests may be under way. Each system in `peers/` does it in its own process, as its documentation shows.
Evaluation, with a score and a log of all samples:

    ours_evaluation       lm_eval --model ske_explicit
    lm_eval_twice         stock lm-eval, --predict_only, then a second task on the logged samples
    inspect_chain         an Inspect AI task with a chain of two solvers
    dspy_program          a DSPy module that asks twice, under dspy.Evaluate

Synthesis, which writes texts and scores nothing:

    ours_synthesis        the stage `synthesize` of a round
    distilabel_pipeline   a distilabel pipeline of two TextGeneration tasks

The server notes every request (peers/watch.py), so all are timed alike: from the start of the process to the
first request (`start`), with at least one request at the server (`generating`), and the rest. All must send
the same prompts and limits, and have the same answers. The prefix cache is emptied before every run.
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
from http import HTTPStatus
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
STAGES = {  # ours is the first of each
    "evaluation": ("ours_evaluation", "lm_eval_twice", "inspect_chain", "dspy_program"),
    "synthesis": ("ours_synthesis", "distilabel_pipeline"),
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
    failed = sum(note["status"] != HTTPStatus.OK for note in notes)
    if failed:
        raise UserError(f"{system}: the server refused {failed} of {len(notes)} requests; see {log}")
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
        asked[json.dumps([body["messages"], limit, body["temperature"]])] += 1
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


def _row(system: str, ours: str, turns: dict[str, list[Turn]]) -> list[str]:
    mine = turns[system]
    shown = {}
    for name in ("total", "generating"):
        seconds = {which: [getattr(turn, name) for turn in turns[which]] for which in (system, ours)}
        middle, low, high = ratios(seconds, system, ours)
        shown[name] = "1" if system == ours else f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    asked = sum(mine[-1].asked.values())
    wanted, answers = turns[ours][-1].asked, turns[ours][-1].answers
    return [
        system,
        f"{_median(mine, 'total'):.1f}",
        shown["total"],
        f"{_median(mine, 'before'):.1f}",
        f"{_median(mine, 'generating'):.1f}",
        shown["generating"],
        f"{statistics.median(turn.total - turn.before - turn.generating for turn in mine):.1f}",
        f"{_median(mine, 'cpu'):.1f}",
        f"{_median(mine, 'flight'):.0f}",
        f"{(mine[-1].asked & wanted).total()} of {asked}",
        f"{sum(mine[-1].answers[key] == answer for key, answer in answers.items())} of {len(answers)}",
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--python", required=True, help="of the environment with peers/requirements.txt")
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--concurrent", type=int, default=64, help="requests under way at a time")
    parser.add_argument("--tokens", type=int, default=128, help="limit of each step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, help="folder to keep; a temporary one otherwise")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/peers_STAGE.md")
    args = parser.parse_args()
    systems = STAGES[args.stage]
    turns: dict[str, list[Turn]] = {system: [] for system in systems}
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        job = _job(work, args.items, args.tokens, args.concurrent)
        log = work / "requests.jsonl"
        with server(toy(work / "toy"), log) as url:

            def one(system: str) -> None:
                folder = work / "runs" / system
                turns[system].append(run(system, args.python, job | {"url": url}, folder, log))
                print(f"{system}: {turns[system][-1].total:.1f} s", file=sys.stderr)

            interleaved({system: lambda system=system: one(system) for system in systems}, args.repeats)
    counted = {system: found[1:] for system, found in turns.items()}
    first = counted[systems[0]][-1]
    wanted = (PEERS / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.replace("==", " ") for line in wanted if "==" in line]
    publish(
        f"peers_{args.stage}",
        f"{args.stage.capitalize()}: is `explicit` faster than the same two steps written for other tools?",
        f"python benchmarks/peers.py {args.stage} --items {args.items} --repeats {args.repeats}",
        [
            *("system", "end to end, s", "over ours", "start, s", "generating, s", "over ours", "rest, s"),
            *("client's CPU, s", "under way", "same requests", "same answers"),
        ],
        [_row(system, systems[0], counted) for system in systems],
        [
            f"{args.items} questions of all six benchmarks, {first.asked.total()} requests, at most "
            f"{args.concurrent} at a time; {first.output_tokens:,} tokens written, at most {args.tokens} a "
            f"step. Medians of {args.repeats} interleaved turns, and the range of the ratios.",
            "One `vllm serve` (fp32, the small Llama of toy.py) on the same cores as the clients: its engine "
            "has a core of its own, its front end shares the other with the client. With a real model "
            "generating takes longer, and the same start weighs less.",
            f"Of the peers' environment: {', '.join(pinned)}.",
            "Rest: between the two runs of lm_eval_twice, and after the last reply (scores, logs).",
        ],
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
