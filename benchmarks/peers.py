"""Is `explicit` faster than the same two steps written for other tools, on one `vllm serve`?

    python -m venv .peers && .peers/bin/pip install -r benchmarks/peers/requirements.txt
    HF_ENDPOINT=... python benchmarks/peers.py evaluation --python .peers/bin/python --model FOLDER
    HF_ENDPOINT=... python benchmarks/peers.py synthesis --python .peers/bin/python --model FOLDER

A job is: real benchmark questions, the two templates of `prompts/default.yaml`, token limits, and how many
requests may be under way. Each system in `peers/` does it in its own process, as its documentation shows.
Evaluation, with a score and a log of all samples:

    ours_evaluation       lm_eval --model ske_explicit
    lm_eval_twice         stock lm-eval, --predict_only, then a second task on the logged samples
    inspect_chain         an Inspect AI task with a chain of two solvers
    dspy_program          a DSPy module that asks twice, under dspy.Evaluate
    openai_loop           no tool: asyncio and the `openai` client, which logs and keeps nothing (lower bound)

Synthesis, which writes texts and scores nothing:

    ours_synthesis        the stage `synthesize` of a round
    distilabel_pipeline   a distilabel pipeline of two TextGeneration tasks
    openai_loop

All must send the same prompts and limits: step 1 to the letter, step 2 with the knowledge that the system has
got. In fp32 all must have the same answers; in bf16 a text depends on what else is in the engine's batch, and
the share of equal answers is printed. The prefix cache is emptied before every turn, and one short turn of
each system is not counted. With --work FOLDER the turns of several calls (--against: of some systems only)
are added up; each is compared with our turn of the same call.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks.report import VLLM, as_run, commit, publish
from benchmarks.toy import rows, toy
from benchmarks.turns import PEERS, Turn, run, server
from ske_models.errors import UserError
from ske_models.files import read_jsonl
from ske_models.prompts import FOLDER as PROMPTS

STAGES = {  # ours is the first of each
    "evaluation": ("ours_evaluation", "lm_eval_twice", "inspect_chain", "dspy_program", "openai_loop"),
    "synthesis": ("ours_synthesis", "distilabel_pipeline", "openai_loop"),
}
PATTERN = r"The answer is \(([A-Z])\)"
SHORT = 12  # questions of the turns that are not counted
HEADER = [
    *("system", "end to end, s", "over ours", "start, s", "generating, s", "over ours", "rest, s"),
    *("client's processor time, s", "server's, s", "under way", "tokens read (cached)", "written"),
    *("requests as they should be", "same answers"),
]

Turns = dict[str, dict[str, Turn]]  # by system, by the number of the turn


def _pairs(turns: Turns, system: str, ours: str) -> list[tuple[Turn, Turn]]:
    """Of each turn of a system, itself and ours beside it."""
    return [(turn, turns[ours][number]) for number, turn in turns[system].items() if number in turns[ours]]


def _over(pairs: Sequence[tuple[Turn, Turn]], what: Callable[[Turn], float]) -> str:
    found = [what(one) / what(other) for one, other in pairs]
    return f"{statistics.median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"


def _row(turns: Turns, system: str, ours: str) -> list[str]:
    mine = list(turns[system].values())
    pairs = _pairs(turns, system, ours)
    equal = [
        sum(one.answers[key] == answer for key, answer in other.answers.items()) / len(other.answers)
        for one, other in pairs
    ]

    def median(what: Callable[[Turn], float], digits: int = 1) -> str:
        return f"{statistics.median(map(what, mine)):,.{digits}f}"

    return [
        system,
        median(lambda turn: turn.total),
        "1" if system == ours else _over(pairs, lambda turn: turn.total),
        median(lambda turn: turn.before),
        median(lambda turn: turn.generating),
        "1" if system == ours else _over(pairs, lambda turn: turn.generating),
        median(lambda turn: turn.rest),
        median(lambda turn: turn.cpu),
        median(lambda turn: turn.server_cpu),
        median(lambda turn: turn.flight, 0),
        f"{median(lambda turn: turn.prompt_tokens, 0)} ({median(_cached)} %)",
        median(lambda turn: turn.output_tokens, 0),
        f"{sum(turn.step1 + turn.step2 for turn in mine)} of {sum(turn.sent for turn in mine)}",
        f"{statistics.median(equal):.1%}",
    ]


def _cached(turn: Turn) -> float:
    return 100 * turn.cached_tokens / turn.prompt_tokens


def check(turns: Turns, ours: str, items: int, dtype: str) -> None:
    """Raises UserError if a system did something else than ours."""
    for system, mine in turns.items():
        for turn in mine.values():
            if (turn.step1, turn.step2, turn.sent) != (items, items, 2 * items):
                raise UserError(
                    f"{system}: of {turn.sent} requests, {turn.step1} of step 1 and {turn.step2} of step 2 "
                    f"are as they should be, not {items} of each"
                )
        other = [a for a, b in _pairs(turns, system, ours) if a.answers != b.answers]
        if other and dtype == "float32":
            raise UserError(f"{system}: other answers than ours in {len(other)} turns")


def main() -> None:
    """The command."""
    args = _arguments()
    systems = [STAGES[args.stage][0], *(args.against or STAGES[args.stage][1:])]
    dtype = args.dtype or ("bfloat16" if args.model else "float32")
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        model = args.model or toy(work / "toy")
        name = f"{args.stage}_{args.items}_{args.tokens}_{args.concurrent}_{model.name}_{dtype}.jsonl"
        if args.repeats:
            with server(model, dtype, work / "requests.jsonl") as served:
                _measure(systems, args, work, work / name, served)
        lines = read_jsonl(work / name)
    turns: Turns = {system: {} for system in STAGES[args.stage]}
    for line in lines:
        turns[line["system"]][line["number"]] = Turn(**line["turn"])
    turns = {system: mine for system, mine in turns.items() if mine}
    _publish(args, turns, model, dtype, sorted({line["commit"] for line in lines}))
    check(turns, systems[0], args.items, dtype)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--python", required=True, help="of the environment with peers/requirements.txt")
    parser.add_argument("--model", type=Path, help="a checkpoint's folder; the toy of toy.py otherwise")
    parser.add_argument("--dtype", help="of the server: bfloat16 for a model, float32 for the toy")
    parser.add_argument("--against", nargs="+", help="of the stage's systems, these beside ours")
    parser.add_argument("--items", type=int, default=192)
    parser.add_argument("--concurrent", type=int, default=64, help="requests under way at a time")
    parser.add_argument("--tokens", type=int, default=64, help="limit of each step")
    parser.add_argument("--repeats", type=int, default=3, help="0: only the table of the turns in --work")
    parser.add_argument("--work", type=Path, help="folder to keep; a temporary one otherwise")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/peers_STAGE.md")
    return parser.parse_args()


def _measure(systems: Sequence[str], args: argparse.Namespace, work: Path, kept: Path, served: Any) -> None:
    """Adds the turns of this call to the file `kept`; every second one goes backwards."""
    began = time.strftime("%Y%m%dT%H%M%S")
    short, job = (_job(work, n, args.tokens, args.concurrent) for n in (SHORT, args.items))
    for system in systems:
        run(system, args.python, short, work / "runs" / system, served)
    for number in range(args.repeats):
        for system in systems[:: -1 if number % 2 else 1]:
            turn = run(system, args.python, job, work / "runs" / system, served)
            print(f"{system}: {turn.total:.1f} s, generating {turn.generating:.1f} s", file=sys.stderr)
            line = {"system": system, "number": f"{began}/{number}", "commit": commit(), "turn": asdict(turn)}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _publish(args: argparse.Namespace, turns: Turns, model: Path, dtype: str, commits: Sequence[str]) -> None:
    wanted = (PEERS / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition(" #")[0].replace("==", " ") for line in wanted if "==" in line]
    ours = STAGES[args.stage][0]
    numbers = ", ".join(f"{len(mine)} of {system}" for system, mine in turns.items())
    publish(
        f"peers_{args.stage}" + ("" if args.items == 192 else f"_{args.items}"),
        f"{args.stage.capitalize()}: is `explicit` faster than the same two steps written for other tools?",
        as_run(),
        HEADER,
        [_row(turns, system, ours) for system in turns],
        [
            f"{args.items} questions of all six benchmarks, {2 * args.items} requests, at most "
            f"{args.concurrent} at a time, at most {args.tokens} tokens a step. Interleaved turns at commit "
            f"{', '.join(commits)}: {numbers}; medians, and median and range of the ratios to our turn "
            "beside each.",
            f"One `vllm serve` ({model.name}, {dtype}, prefix caching on, empty before each turn) on the "
            "same cores as the clients.",
            "Start: before the first request. Rest: between the two runs of lm_eval_twice, and after the "
            "last reply (scores, logs). openai_loop scores with one regular expression, and keeps nothing.",
            f"Of the peers' environment: {', '.join(pinned)}.",
        ],
        [VLLM, "lm_eval", "transformers", "torch"],
        args.save,
    )


def _job(work: Path, items: int, tokens: int, concurrent: int) -> dict[str, Any]:
    """What every system is given, as files in `work`."""
    prompts = yaml.safe_load((PROMPTS / "default.yaml").read_text(encoding="utf-8"))
    prompts["limits"]["knowledge"] = tokens
    (work / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    with (work / f"items{items}.jsonl").open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows(items)):
            item = {"id": str(number), "question": row["ske_question"], "ending": row["ske_ending"]}
            file.write(json.dumps(item | {"gold": row["gold"][0]}) + "\n")
    return {
        "items": str(work / f"items{items}.jsonl"),
        "prompts": str(work / "prompts.yaml"),
        "extract": prompts["extract"],
        "reason": prompts["reason"],
        "knowledge_tokens": tokens,
        "answer_tokens": tokens,
        "concurrent": concurrent,
        "pattern": PATTERN,
    }


if __name__ == "__main__":
    main()
