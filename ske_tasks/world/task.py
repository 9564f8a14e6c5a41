"""The lm-eval tasks `ske_world`, `ske_world_held_out` (test people) and `ske_world_dev` (development people).

    lm_eval --model ske_explicit --tasks ske_world_dev

Prompts and settings are chosen on `ske_world_dev` only. The questions are made here, nothing is downloaded.
"""

from __future__ import annotations

from typing import Any

import datasets

from ske_models.records import Answer
from ske_tasks.world import default_world, oracle, questions

# How many questions of each kind. Changing them changes the task's version.
SIZES = {
    "test": dict(zip(questions.KINDS, (350, 500, 500, 400, 400, 350), strict=True)),
    "dev": dict(zip(questions.KINDS, (120, 180, 180, 140, 140, 120), strict=True)),
}
HELD_OUT = {
    "one_hop": 100,
    "two_hop": 100,
    "three_hop": 100,
    "four_hop": 100,
    "multiple_choice": 100,
    "comparison": 60,
}
MULTI_HOP = ("two_hop", "three_hop", "four_hop")


def load_test(**_: Any) -> dict[str, datasets.Dataset]:
    """2,500 distinct questions about the 100 test people."""
    return _load("test", SIZES["test"])


def load_dev(**_: Any) -> dict[str, datasets.Dataset]:
    """880 distinct questions about the 40 development people."""
    return _load("dev", SIZES["dev"])


def load_held_out(**_: Any) -> dict[str, datasets.Dataset]:
    """Questions about the test people by templates that are in no training data."""
    return _load("test", HELD_OUT, held_out=True)


def _load(split: str, sizes: dict[str, int], held_out: bool = False) -> dict[str, datasets.Dataset]:
    rows = questions.sample(default_world(), split, sizes, seed=0, held_out=held_out)
    return {"test": datasets.Dataset.from_list([to_doc(row) for row in rows])}


def to_doc(row: questions.Question) -> dict[str, Any]:
    """A question as a task's doc. `knowledge`: the true needed facts, for analysis; no prompt shows it."""
    return {
        "id": row.id,
        "kind": row.kind,
        "hops": row.hops,
        "chain": list(row.chain),
        "template": row.template,
        "people": list(row.people),
        "question": row.stem,
        "options": list(row.options),
        "gold": row.gold,
        "knowledge": row.knowledge,
        "ske_question": row.question,
        "ske_ending": "",
        "ske_cluster": row.people[0],  # what an interval is taken over
        "ske_world": default_world().hash,
    }


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """`acc`, `acc_<kind>` of the doc's kind, `acc_multi_hop` (open questions of 2 to 4 hops), `unanswered`;
    of a method that writes knowledge also `extraction`: all needed facts are in it, and nothing false.

    A key that is not of the doc's kind is left out: its mean and standard error are over its own docs.
    """
    said = oracle.answer_in(results[0])
    right = float(said == doc["gold"])
    scores = {"acc": right, f"acc_{doc['kind']}": right, "unanswered": float(said is None)}
    if doc["kind"] in MULTI_HOP:
        scores["acc_multi_hop"] = right
    if isinstance(results[0], Answer):
        doc["ske"] = results[0].trace
        if results[0].trace["knowledge"] is not None:
            scores["extraction"] = float(oracle.is_enough(doc["knowledge"], results[0].trace["knowledge"]))
    return scores
