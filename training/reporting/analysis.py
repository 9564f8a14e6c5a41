"""The meta-skill analysis (paper, section "Analysis"): the judge scores what every checkpoint writes.

    python -m training.reporting.analysis RUN   # results/*/*.explicit.samples.jsonl -> analysis.jsonl

The same `analysis.items` items per task for every checkpoint; their knowledge and reasoning are judged as in
round 1. A judge that is a model also scores as many texts of each round that the checkpoint scored itself, so
that the two can be compared; where the truth is known, the stage `select` has compared them all.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import Row, read_jsonl, write_json, write_jsonl
from ske_models.reply import reply_of
from ske_tasks.intervals import Interval, interval
from training import domains
from training.data.texts import replies
from training.reporting.tables import Result, results, scale_mean
from training.run_folder import RunFolder
from training.stages.judge import KINDS, Judged, judge_texts

Means = dict[tuple[str, str], dict[int, Interval]]  # (task, kind) -> checkpoint -> mean score


def run(folder: RunFolder) -> dict[str, Any]:
    """Writes RUN/analysis.jsonl, a row per judged text, and RUN/analysis.json; returns the latter's counts.

    Rows: kind, question, knowledge, reasoning, score (None: unscored), verdict, why; of a checkpoint's text
    also checkpoint, task, doc_id, cluster and hit, of a round's text round, id, sample and the score `self`.
    Raises UserError: nothing is evaluated by `explicit` yet, or what `judge_texts` raises.
    """
    started = time.monotonic()
    skipped: Counter[str] = Counter()
    texts = [*_tested(folder, skipped), *_self_scored(folder)]
    if not texts and not skipped:
        raise UserError(
            f"{folder.path}: nothing to analyse: no task is evaluated by the method explicit yet; "
            "add it to evaluate.methods, or do a round first"
        )
    items = [
        Judged(_name(text), kind, text["question"], text["knowledge"], text["reasoning"] if whole else None)
        for text in texts
        for kind, whole in zip(KINDS, (False, True), strict=True)
    ]
    path = folder.path / "analysis.jsonl"
    judging = judge_texts(folder, "judge", 0, items, path, "analysis")
    rows = []
    for i, (item, verdict) in enumerate(zip(items, judging.verdicts, strict=True)):
        text = dict(texts[i // len(KINDS)])
        own = text.pop("scores", None)
        said = {"score": verdict.score, "verdict": verdict.text, "why": verdict.why}
        rows.append({**text, "kind": item.kind, **({"self": own[item.kind]} if own else {}), **said})
    write_jsonl(path, rows)
    counts = {
        "texts": len(texts),
        "unscored": sum(row["score"] is None for row in rows),
        "skipped": dict(skipped),
        **judging.counts,
    }
    record = {
        "stage": "analysis",
        "seconds": round(time.monotonic() - started, 1),
        "counts": counts,
        "recipe": folder.recipe.hash,
    }
    write_json(folder.path / "analysis.json", record)
    return counts


def means(rows: Iterable[Row]) -> Means:
    """The mean score of each checkpoint's texts, by task and kind; unscored texts are left out."""
    found: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for row in rows:
        if "checkpoint" in row and row["score"] is not None:
            series = found.setdefault((row["task"], row["kind"]), {})
            series.setdefault(row["checkpoint"], []).append(row)
    return {
        key: {
            k: scale_mean([row["score"] for row in some], [row["cluster"] for row in some])
            for k, some in series.items()
        }
        for key, series in found.items()
    }


def reaching(rows: Iterable[Row], task: str, kind: str, threshold: int) -> dict[int, Interval]:
    """checkpoint -> percent of its scored texts with at least `threshold`."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        if row.get("task") == task and row["kind"] == kind and row["score"] is not None:
            found.setdefault(row["checkpoint"], []).append(row)
    return {
        k: interval([row["score"] >= threshold for row in some], [row["cluster"] for row in some])
        for k, some in found.items()
    }


def agreement(rows: Iterable[Row]) -> dict[int, dict[str, list[list[int]]]]:
    """round -> kind -> [[self-given score, the judge's score, texts], ...]."""
    pairs: dict[int, dict[str, Counter[tuple[int, int]]]] = {}
    for row in rows:
        if "round" in row and row["score"] is not None:
            of_round = pairs.setdefault(row["round"], {kind: Counter() for kind in KINDS})
            of_round[row["kind"]][row["self"], row["score"]] += 1
    return {
        n: {
            kind: sorted([*pair, texts] for pair, texts in counter.items()) for kind, counter in kinds.items()
        }
        for n, kinds in pairs.items()
    }


def _tested(folder: RunFolder, skipped: Counter[str]) -> list[Row]:
    """The drawn items of every evaluated task, as each checkpoint wrote them."""
    drawn: dict[str, list[int]] = {}
    texts = []
    for (task, method, k), result in results(folder).items():
        if method != "explicit":
            continue
        if task not in drawn:
            ids = sorted(result.rows)
            rng = random.Random(f"{folder.recipe.seed}-analysis-{task}")
            drawn[task] = sorted(rng.sample(ids, min(folder.recipe.analysis.items, len(ids))))
        texts += _of_checkpoint(folder, task, k, result, drawn[task], skipped)
    return texts


def _of_checkpoint(
    folder: RunFolder, task: str, k: int, result: Result, drawn: Sequence[int], skipped: Counter[str]
) -> list[Row]:
    texts = []
    domain = domains.named(folder.recipe.judge.kind)
    truth = domain.truth if domain else None
    for doc_id in drawn:
        row = result.rows[doc_id]
        answer = reply_of(row["answer"], folder.marks)
        question = row["doc"].get("ske_question", row["doc"].get("question"))
        if any((row["truncated"] or {}).values()):
            skipped["truncated"] += 1
        elif not (row["knowledge"] or "").strip() or not answer.strip():
            skipped["empty"] += 1
        elif question is None or (truth is not None and truth(question, "", "") is None):
            skipped["question_unknown"] += 1
        else:
            texts.append(
                {
                    "checkpoint": k,
                    "task": task,
                    "doc_id": doc_id,
                    "cluster": row["cluster"],
                    "hit": row["hit"],
                    "question": question,
                    "knowledge": row["knowledge"],
                    "reasoning": answer,
                }
            )
    return texts


def _self_scored(folder: RunFolder) -> list[Row]:
    """Drawn texts of the rounds whose checkpoint scored itself, for a judge that is a model."""
    texts: list[Row] = []
    for n in range(1, folder.rounds + 1):
        scored = folder.round(n) / "scores.jsonl"
        if (
            domains.named(folder.recipe.judge.kind) is not None
            or folder.settings(n).judge != "self"
            or folder.recipe.analysis.self_scored  # the stage `judge` has compared them
            or not scored.is_file()
        ):
            continue
        scores: dict[tuple[str, int], dict[str, int]] = {}
        for row in read_jsonl(scored):
            if row["score"] is not None:
                scores.setdefault((row["id"], row["sample"]), {})[row["kind"]] = row["score"]
        written = read_jsonl(folder.round(n) / "written.jsonl")
        whole = [row for row in written if len(scores.get((row["id"], row["sample"]), ())) == len(KINDS)]
        rng = random.Random(f"{folder.recipe.seed}-analysis-round{n}")
        for row in rng.sample(whole, min(folder.recipe.analysis.items, len(whole))):
            reply = replies(row, folder.marks)
            shown = {key: reply[key] for key in ("id", "sample", "question", "knowledge", "reasoning")}
            texts.append({"round": n, **shown, "scores": scores[row["id"], row["sample"]]})
    return texts


def _name(text: Row) -> str:
    if "round" in text:
        return f"round {text['round']}, {text['id']}, sample {text['sample']}"
    return f"M{text['checkpoint']}, {text['task']}, item {text['doc_id']}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.reporting.analysis")
    parser.add_argument("run", type=Path, help="the run's folder")
    counts = run(RunFolder.open(parser.parse_args().run))
    print(f"analysis: {counts['texts']:,} texts of the checkpoints, {counts['unscored']:,} scores missing")


if __name__ == "__main__":
    main()
