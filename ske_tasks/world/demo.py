"""The embedded model on held-out TinyWorld questions: answering directly, step by step, and knowledge first.

    python -m ske_tasks.world.demo            # `make demo` does the set-up, then this

Runs the stock `lm_eval` command once per method, and prints one table, then a few items in full. Killed and
started again, it continues where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ske_models import embedded
from ske_models.errors import UserError
from ske_models.fingerprint import weights
from ske_tasks.intervals import Interval, interval
from ske_tasks.world.questions import KINDS

TASK = "ske_world"
METHODS = ("direct", "cot", "explicit")
MULTI_HOP = ("two_hop", "three_hop", "four_hop")


@dataclass(frozen=True)
class Run:
    """What one method wrote: lm-eval's logged samples by doc_id, and what its steps cost."""

    samples: dict[int, dict[str, Any]]
    steps: dict[str, dict[str, float]]

    def hits(self, kinds: tuple[str, ...]) -> dict[int, float]:
        """doc_id -> 1 if right, for the questions of these kinds."""
        return {i: sample["acc"] for i, sample in self.samples.items() if sample["doc"]["kind"] in kinds}

    def people(self, docs: dict[int, float]) -> list[str]:
        """Whom each of these questions is about (a comparison: the first person)."""
        return [self.samples[i]["doc"]["people"][0] for i in docs]


def evaluate(method: str, folder: Path, limit: int | None) -> Run:
    """Runs lm_eval with one method and reads what it left. Raises UserError if it fails."""
    output = folder / method
    command = ["lm_eval", "--model", "ske_explicit", "--model_args"]
    command += [f"method={method},store={folder / 'store.sqlite'}", "--tasks", TASK, "--device", "cpu"]
    command += ["--output_path", str(output), "--log_samples"] + (["--limit", str(limit)] if limit else [])
    print("$", " ".join(command), file=sys.stderr, flush=True)
    # the lm_eval of this environment, whatever else is on PATH
    command[0] = str(Path(sys.executable).with_name("lm_eval"))
    quiet = {"LMEVAL_LOG_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, env={**os.environ, **quiet}, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise UserError(f"lm_eval ended with status {done.returncode}; its last lines above say why")
    results = json.loads(newest(output, "results_*.json").read_text(encoding="utf-8"))
    with newest(output, f"samples_{TASK}_*.jsonl").open(encoding="utf-8") as lines:
        samples = {sample["doc_id"]: sample for sample in map(json.loads, lines)}
    return Run(samples, results["config"]["ske"]["steps"])


def newest(folder: Path, pattern: str) -> Path:
    """The file of the latest run; lm-eval puts the time into the name."""
    return max(folder.rglob(pattern), key=lambda path: path.name)


def accuracy(run: Run, kinds: tuple[str, ...]) -> Interval:
    """The accuracy on these kinds, with its interval over people."""
    hits = run.hits(kinds)
    return interval(list(hits.values()), run.people(hits))


def gain(run: Run, other: Run, kinds: tuple[str, ...]) -> Interval:
    """How much better a run is than another one, in points, question by question."""
    mine, theirs = run.hits(kinds), other.hits(kinds)
    return interval([mine[i] - theirs[i] for i in mine], run.people(mine))


def show_accuracies(console: Console, runs: dict[str, Run]) -> None:
    """The table: a row per kind of question, a column per method; then what the methods cost."""
    table = Table(title="Accuracy in percent on held-out TinyWorld questions [95 % interval over people]")
    table.add_column("questions")
    for name in ("n", *METHODS):
        table.add_column(name, justify="right")
    rows = {kind.replace("_", " "): (kind,) for kind in KINDS}
    for name, kinds in (rows | {"multi-hop (2 to 4)": MULTI_HOP, "all": KINDS}).items():
        if not runs["direct"].hits(kinds):  # with --limit
            continue
        cells = [accuracy(run, kinds) for run in runs.values()]
        table.add_row(name, f"{cells[0].n:,}", *map(str, cells), end_section=kinds in (KINDS[-1:], KINDS))
    table.add_row("tokens written per question", "", *(f"{tokens(run):.1f}" for run in runs.values()))
    table.add_row("seconds", "", *(seconds(run) for run in runs.values()))
    console.print(table)
    for other in ("direct", "cot"):
        points = gain(runs["explicit"], runs[other], MULTI_HOP)
        console.print(
            f"explicit - {other}, multi-hop, question by question: {points} points", highlight=False
        )


def tokens(run: Run) -> float:
    """Mean of the tokens that the model wrote for a question, knowledge included."""
    written = [sum(filter(None, sample["doc"]["ske"]["tokens"].values())) for sample in run.samples.values()]
    return sum(written) / len(written)


def seconds(run: Run) -> str:
    """Time in the engine; after a restart also for how many texts, as the others were stored."""
    asked, generated = (sum(step[key] for step in run.steps.values()) for key in ("asked", "generated"))
    spent = sum(step["seconds"] for step in run.steps.values())
    if not generated:
        return "all stored"
    return f"{spent:.1f}" if generated == asked else f"{spent:.1f} ({generated:,} of {asked:,})"


def show_items(console: Console, runs: dict[str, Run]) -> None:
    """The first question of every kind but the simplest, with all that the three methods wrote."""
    first: dict[str, int] = {}
    for i, sample in sorted(runs["explicit"].samples.items()):
        first.setdefault(sample["doc"]["kind"], i)
    for kind, i in first.items():
        if kind == "one_hop":
            continue
        doc = runs["explicit"].samples[i]["doc"]
        console.rule(f"{kind.replace('_', ' ')}, item {i}")
        console.print(doc["ske_question"], markup=False, highlight=False)
        console.print(
            f"truth:     {doc['knowledge']} -> {doc['gold']}", style="dim", markup=False, highlight=False
        )
        for method, run in runs.items():
            sample = run.samples[i]
            if method == "explicit":
                console.print(
                    f"knowledge: {sample['doc']['ske']['knowledge']}", markup=False, highlight=False
                )
            verdict = "right" if sample["acc"] else "wrong"
            answer = " ".join(sample["resps"][0][0].split())
            console.print(f"{method + ':':<10} {answer}   ({verdict})", markup=False, highlight=False)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare the three methods on the embedded model.")
    parser.add_argument("--limit", type=int, help="only the first N of the 2,500 questions")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where lm-eval's files go")
    args = parser.parse_args()
    folder = args.out / weights(str(embedded.path()))  # another model is another run
    runs = {method: evaluate(method, folder, args.limit) for method in METHODS}
    console = Console(width=None if sys.stdout.isatty() else 120)
    show_accuracies(console, runs)
    show_items(console, runs)


if __name__ == "__main__":
    main()
