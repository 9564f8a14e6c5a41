"""A run's folder with made-up numbers, as far as a real run would have come: for the tests of the report.

from synthetic_run import make
make(tmp_path, rounds_done=2)
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from ske_models.files import write_json, write_jsonl
from training.recipe import FOLDER
from training.run_folder import RunFolder

Row = dict[str, Any]
# the share of right answers of made-up M0 ... M4
SHARES = {
    "direct": (0.34, 0.33, 0.33, 0.32, 0.33),
    "cot": (0.50, 0.55, 0.62, 0.66, 0.69),
    "explicit": (0.57, 0.66, 0.79, 0.86, 0.91),
}
STAGES = ("questions", "synthesize", "judge", "select", "mix", "sft")


def make(
    folder: Path, rounds_done: int = 4, tasks: tuple[str, ...] = ("made_up",), items: int = 40
) -> RunFolder:
    """M0 ... M`rounds_done` evaluated, of 4 rounds; a quarter of the items is about one of 10 people."""
    recipe = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
    recipe |= {"name": "made-up", "evaluate": {"tasks": list(tasks)}}
    write_json(folder / "recipe.json", recipe)
    run = RunFolder.open(folder)
    for n in range(1, rounds_done + 1):
        _round(run, n)
    for k in range(rounds_done + 1):
        for task in tasks:
            for method, shares in SHARES.items():
                evaluated(run, k, task, method, shares[k], items)
        record(run, k, "evaluate", 14.0, {f"{task}.explicit": SHARES["explicit"][k] for task in tasks})
    return run


def evaluated(run: RunFolder, k: int, task: str, method: str, share: float, items: int) -> None:
    """One evaluation; the same items every time."""
    rng = random.Random(f"{task}-{method}-{k}")
    rows: list[Row] = []
    for i in range(items):
        written = method == "explicit"
        rows.append(
            {
                "doc_id": i,
                "hit": float(rng.random() < share),
                "cluster": f"person{i // 4}",
                "answer": f"So <b>it</b> is {i}. The answer is {i}.",
                "knowledge": f"Knowledge {i} of M{k}." if written else None,
                "truncated": {"knowledge": False if written else None, "answer": False},
                "extraction": float(rng.random() < share) if written else None,
                "doc": {
                    "ske_question": f"Question {i}?",
                    "question": f"Question {i}?",
                    "gold": str(i),
                    "kind": ("one_hop", "two_hop")[i % 2],
                },
            }
        )
    write_jsonl(run.results(k) / f"{task}.{method}.samples.jsonl", rows)
    accuracy = sum(row["hit"] for row in rows) / len(rows)
    write_json(
        run.results(k) / f"{task}.{method}.json",
        {
            "task": task,
            "method": method,
            "n": len(rows),
            "metrics": {"acc": accuracy},
            "ske": {},
            "versions": {},
        },
    )


def record(run: RunFolder, n: int, stage: str, seconds: float, counts: Row) -> None:
    """The record of a stage that is done."""
    write_json(
        run.round(n) / f"{stage}.json",
        {
            "stage": stage,
            "round": n,
            "seconds": seconds,
            "counts": counts,
            "inputs": {},
            "settings": {"prompts": run.prompts.hash},
            "recipe": run.recipe.hash,
            "versions": {"torch": "2.13.0", "trl": "1.16.0"},
        },
    )


def _round(run: RunFolder, n: int) -> None:
    rng = random.Random(n)
    written, scores, selected = [], [], []
    for i in range(30):
        for sample in range(2):
            row: Row = {"id": f"q{i}", "sample": sample, "question": f"Question {i} of round {n}?"}
            row |= {
                "knowledge": f"Fact {i} & {sample}.",
                "reasoning": f"As {i} < {i + 1}. The answer is {i}.",
            }
            pair = [rng.choice((10, 10, 7, 5, 2, None)), rng.choice((10, 10, 10, 6, 2))]
            written.append({**row, "ending": "", "truncated": {"knowledge": False, "reasoning": False}})
            for kind, score in zip(("knowledge", "reasoning"), pair, strict=True):
                verdict = f"Critique {i}-{sample}. Score: {score}" if score else "I am not sure."
                scores.append({**row, "kind": kind, "score": score, "verdict": verdict, "attempts": 1})
            if all(score is not None and score >= 8 for score in pair):
                selected.append({**row, "scores": dict(zip(("knowledge", "reasoning"), pair, strict=True))})
    folder = run.round(n)
    write_jsonl(folder / "written.jsonl", written)
    write_jsonl(folder / "scores.jsonl", scores)
    write_jsonl(folder / "selected.jsonl", selected)
    for stage, seconds in zip(STAGES, (0.4, 11.0, 9.5, 0.3, 0.2, 31.0), strict=True):
        record(run, n, stage, seconds * (2 if n == 1 else 1), _counts(stage, n, scores, len(selected)))


def _counts(stage: str, n: int, scores: list[Row], selected: int) -> Row:
    if stage == "mix":
        kinds = {
            "knowledge": selected,
            "reasoning": selected,
            "scoring_knowledge": 17,
            "scoring_reasoning": 13,
        }
        kinds["general"] = 1_023
        return {
            "kinds": {kind: {"examples": n} for kind, n in kinds.items()},
            "examples": sum(kinds.values()),
        }
    if stage != "select":
        return {"tokens": {"input": 12_345, "output": 678}} if stage in ("synthesize", "judge") else {}
    by_kind = {
        kind: [row["score"] for row in scores if row["kind"] == kind] for kind in ("knowledge", "reasoning")
    }
    histogram = {kind: [values.count(score) for score in range(1, 11)] for kind, values in by_kind.items()}
    return {
        "written": 60,
        "scored": 60 - by_kind["knowledge"].count(None),
        "unscored": by_kind["knowledge"].count(None),
        "equal": 0,
        "passed": selected,
        "passed_equal": 0,
        "share_passed": selected / (60 - by_kind["knowledge"].count(None)),
        "dropped_by_quota": 0,
        "questions": 30,
        "questions_selected": 18,
        "selected": selected,
        "by": "score",
        "threshold": 8,
        "histogram": histogram,
        "warnings": [],
        "truth": {
            "all": {"n": 60, "base_rate": 0.4 + n / 10, "precision": 0.8 + n / 25, "recall": 0.9},
            "distinct": {"n": 44, "base_rate": 0.3 + n / 10, "precision": 0.7 + n / 25, "recall": 0.85},
            "selected": {"n": selected, "right": selected - 3},
        },
        "agreement": {
            kind: [[10, 10, 30 + n], [10, 5, 6], [5, 5, 9], [2, 2, 5], [2, 5, 3], [7, 7, 5]]
            for kind in ("knowledge", "reasoning")
        },
    }
