"""Questions that are in no test set, to choose prompts and settings on: never choose them on the benchmarks.

    python -c "from ske_tasks.six.validation import questions; print(questions('mmlu', 2))"

MMLU and ARC have validation splits, BBH its own CoT examples (three per task), NQ a training split. AGIEval
has neither: `stem` (OpenBookQA train, SciQ validation) takes its place, with other questions than AGIEval's.
Rows are those of `ske_tasks.six.rows`. A question that is also in the benchmark's test split is left out.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from ske_models.errors import UserError
from ske_tasks.answers.reply import plain
from ske_tasks.six.bbh import read_bbh
from ske_tasks.six.hub import fetch
from ske_tasks.six.load import read
from ske_tasks.six.rows import Row, letter_of, make_row

SETS = ("mmlu", "arc_e", "arc_c", "bbh", "nq", "stem")
SEED = 20261125


def questions(name: str, n: int) -> list[Row]:
    """The first n of a set in a fixed order; so those of a smaller n are among those of a larger one.

    Subsets (subjects of MMLU, tasks of BBH) take turns. Fewer than n where a set has no more.
    Raises UserError: no such set, or its data is not available.
    """
    return list(_ordered(name)[:n])


@cache
def _ordered(name: str) -> tuple[Row, ...]:
    if name not in SETS:
        raise UserError(f"no validation set {name!r}; there are {', '.join(SETS)}")
    rows = {"mmlu": _mmlu, "bbh": lambda: read_bbh().shots, "nq": _nq, "stem": _stem}.get(name)
    found = rows() if rows else _arc(name)
    asked = _test_questions(name)
    fresh = [row for row in found if plain(row["ske_question"]) not in asked]
    draw = random.Random(SEED)
    draw.shuffle(fresh)
    by_subset: dict[str, list[Row]] = {}
    for row in fresh:
        by_subset.setdefault(row["subset"], []).append(row)
    turns = max(map(len, by_subset.values()))
    return tuple(rows[turn] for turn in range(turns) for rows in by_subset.values() if turn < len(rows))


def _test_questions(name: str) -> set[str]:
    tests = ("arc_e", "arc_c") if name in ("arc_e", "arc_c", "stem") else (name,)
    return {plain(row["ske_question"]) for test in tests for row in read(test).test}


def _mmlu() -> list[Row]:
    columns = ["question", "subject", "choices", "answer"]
    return [
        _choice("mmlu", item["subject"], f"validation/{n}", item["question"], item["answer"], item["choices"])
        for n, item in enumerate(fetch("cais/mmlu", "all", "validation", columns))
    ]


def _arc(name: str) -> list[Row]:
    config = {"arc_e": "ARC-Easy", "arc_c": "ARC-Challenge"}[name]
    columns = ["id", "question", "choices", "answerKey"]
    rows = []
    for item in fetch("allenai/ai2_arc", config, "validation", columns):
        choices = item["choices"]
        gold = [item["answerKey"]]
        rows.append(
            make_row(
                name, config, item["id"], "choice", item["question"], gold, choices["label"], choices["text"]
            )
        )
    return rows


def _nq() -> list[Row]:
    data = fetch("google-research-datasets/nq_open", None, "train", ["question", "answer"])
    return [  # after those that are few-shot examples of the task
        make_row(
            "nq", "nq_open", f"train/{n}", "open", item["question"].strip().rstrip("?") + "?", item["answer"]
        )
        for n, item in enumerate(data)
        if n >= 64
    ]


def _stem() -> list[Row]:
    columns = ["id", "question", "choices", "answer", "source"]
    return [
        _choice("stem", item["source"], item["id"], item["question"], item["answer"], item["choices"])
        for item in fetch("local/stem_questions", None, "train", columns)
        if not item["source"].startswith("ARC")
    ]


def _choice(benchmark: str, subset: str, name: str, question: str, gold: int, options: list[Any]) -> Row:
    letters = [letter_of(place) for place in range(len(options))]
    return make_row(benchmark, subset, name, "choice", question, [letter_of(gold)], letters, options)
