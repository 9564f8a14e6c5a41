"""Reads an OpenCompass run: `results/MODEL/*.json` with details, beside `predictions`.

from ske_tasks.compare.opencompass_runs import read
run = read(Path("outputs/ske/20261126_120000/results/M0-explicit"))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import read_json
from ske_models.fingerprint import digest
from ske_tasks.compare.items import Item, Run, cost

GROUPS = {"lukaemon_mmlu_": "mmlu", "agieval-": "agieval", "bbh-": "bbh"}


def read(folder: Path, texts: bool) -> Run:
    """TIME/results/MODEL: a file per dataset, with a verdict per question in its details. texts: keep them.

    Raises UserError: a file that is cut, or has no verdict per question.
    """
    run = Run(str(folder))
    for file in sorted(folder.glob("*.json")):
        found = read_json(file)
        details = found.get("details")
        if not details:
            raise UserError(f"{file}: no verdict per question; run opencompass with --dump-eval-details")
        predictions = read_json(folder.parents[1] / "predictions" / folder.name / file.name)
        prefix = next((p for p in GROUPS if file.stem.startswith(p)), None)
        task = GROUPS[prefix] if prefix else re.sub(r"_\d+$", "", file.stem)
        rows = details if isinstance(details, list) else [details[key] for key in details if key.isdigit()]
        for number, (row, said) in enumerate(zip(rows, predictions.values(), strict=True)):
            ske = _ske_turn(said["origin_prompt"])
            run.settings |= {
                f"{task}: {key}": ske[key] for key in ("method", "layout", "prompts") if key in ske
            }
            item = _item(task, f"{file.stem}/{number}", row, said, ske, texts)
            run.items[task, item.name] = item
        stated, read_off = (
            found.get("accuracy", found.get("score")),
            100 * sum(map(_verdict, rows)),
        )
        if stated is None or abs(stated - read_off / len(rows)) > 0.01:
            raise UserError(
                f"{file}: its evaluator gives no verdicts per question that add up to its score; leave the "
                "dataset out, or run opencompass with another evaluator"
            )
    run.settings["harness"] = "OpenCompass"
    return run


def _verdict(row: Mapping[str, Any]) -> float:
    """Of a question; where an evaluator only counts, a prediction that is its reference is right."""
    if "correct" not in row:
        return float(row["predictions"] == row["references"])
    return float(row["correct"][0] if isinstance(row["correct"], list) else row["correct"])


def _ske_turn(prompt: Any) -> Mapping[str, Any]:
    """What `SKEExplicit` adds to a prompt: how the answer came about."""
    turns = prompt if isinstance(prompt, list) else []
    return next((turn for turn in turns if turn.get("role") == "SKE"), {})


def _item(
    task: str,
    name: str,
    row: Mapping[str, Any],
    said: Mapping[str, Any],
    ske: Mapping[str, Any],
    texts: bool,
) -> Item:
    prompt = said["origin_prompt"]
    turns = [prompt] if isinstance(prompt, str) else [t["prompt"] for t in prompt if t.get("role") != "SKE"]
    question = turns[-1] if turns else ""
    same = digest([question, said.get("gold")])
    item = Item(task, name, task, same, _verdict(row), name.rsplit("/", 1)[0], name)
    item.tokens, item.truncated, item.looped = cost(ske)
    if texts:
        item.texts = {
            "question": question,
            "gold": str(said.get("gold", "")),
            "knowledge": str(ske.get("knowledge") or ""),
            "answer": str(said["prediction"]),
            "prediction": str(row.get("pred", "")),
        }
    return item
