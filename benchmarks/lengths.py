"""How long the texts of a run were: tokens of prompts and texts, as results/lengths_NAME.csv.

    python -m ske_models.lm_eval.methods ... --max-answer 768 --out RUN \\
           --ways default:direct default:cot notes:explicit:single
    python benchmarks/lengths.py RUN MODEL NAME        # MODEL: the checkpoint whose tokenizer counts

A row per question, by three methods. Used by benchmarks/tail.py.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.report import RESULTS
from ske_models.files import read_jsonl
from ske_models.method import Question, answer_messages, knowledge_messages
from ske_models.prompts import load

COLUMNS = ("task", "direct_prompt", "direct", "cot_prompt", "cot", "extract_prompt", "knowledge",
           "reason_prompt", "reason")  # fmt: skip
WAYS = {"direct": "default_direct", "cot": "default_cot", "explicit": "notes_explicit_single"}  # folders
LIMITS = {"knowledge": 96, "answer": 768}  # tokens that a text may have


def recorded(name: str) -> list[dict[str, str]]:
    """The rows of a file of lengths, by column."""
    with (RESULTS / f"lengths_{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lengths(run: Path, model: str) -> list[dict[str, Any]]:
    """The rows of a run's lengths: its lm-eval samples, counted with the model's tokenizer."""
    tokenizer, notes, default = AutoTokenizer.from_pretrained(model), load("notes"), load("default")

    def tokens(turns: Sequence[dict[str, str]]) -> int:
        return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])

    samples = {way: _samples(run / folder) for way, folder in WAYS.items()}
    rows = []
    for key, sample in samples["explicit"].items():
        doc = sample["doc"]
        text, ending = doc["ske_question"], doc["ske_ending"]
        asked = f"{text}\n\n{ending}" if ending else text
        question = Question((), asked, text, ending, stem=doc.get("ske_stem", ""))
        wrote = {way: samples[way][key]["doc"]["ske"]["tokens"] for way in WAYS}
        known = doc["ske"]["knowledge"]
        prompts = (
            answer_messages(question, default, "direct", "single", None),
            answer_messages(question, default, "cot", "single", None),
            knowledge_messages(question, notes),
            answer_messages(question, notes, "explicit", "single", known),
        )
        texts = (
            wrote["direct"]["answer"], wrote["cot"]["answer"],
            wrote["explicit"]["knowledge"], wrote["explicit"]["answer"],
        )  # fmt: skip
        limits = [LIMITS["answer"], LIMITS["answer"], LIMITS["knowledge"], LIMITS["answer"]]
        counts = []
        for prompt, count, limit in zip(prompts, texts, limits, strict=True):
            # tokenized again, a text may have a few tokens more than were written; an empty one is a step
            counts += [tokens(prompt), max(min(count, limit), 1)]
        rows.append(dict(zip(COLUMNS, [doc["benchmark"], *counts], strict=True)))
    return rows


def _samples(folder: Path) -> dict[tuple[str, int], Any]:
    """By task and doc_id, the newest of each."""
    found: dict[tuple[str, int], Any] = {}
    for path in sorted(folder.glob("*/samples_*.jsonl"), key=lambda path: path.name[-32:]):
        for sample in read_jsonl(path):
            found[sample["doc"]["benchmark"], sample["doc_id"]] = sample
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("name")
    args = parser.parse_args()
    rows = lengths(args.run, args.model)
    with (RESULTS / f"lengths_{args.name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
