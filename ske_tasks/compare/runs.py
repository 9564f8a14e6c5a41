"""Reads what lm-eval, OpenCompass or the training rounds have left of a run, item by item.

    from ske_tasks.compare.runs import read
    for run in read(Path("out")): print(run.name, len(run.items))

A folder may hold several runs: several models, methods or prompt sets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ske_models.errors import UserError
from ske_models.files import read_json, read_jsonl
from ske_tasks.compare import lm_eval_runs, opencompass_runs
from ske_tasks.compare.items import Run
from ske_tasks.compare.lm_eval_runs import item_of


def read(path: Path, texts: bool = False, by: str | None = None) -> list[Run]:
    """The runs in a folder. texts: keep question, knowledge and answer of every item (for the page).

    by: the field of a task's rows that groups its items ("subset", TinyWorld's "kind"), instead of the task.
    Raises UserError: nothing there, nothing of a kind that is known, a damaged file, no question with that
    field.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a run (lm_eval's --output_path)")
    if any(path.rglob("samples_*.jsonl")):
        found = list(lm_eval_runs.read(path, texts, by))
    elif any(path.glob("*.samples.jsonl")):
        found = list(_rounds(path, texts, by))
    elif models := sorted(folder for folder in path.rglob("results/*") if folder.is_dir()):
        found = [opencompass_runs.read(folder, texts) for folder in models]
    else:
        raise UserError(
            f"{path}: no run of lm-eval (--log_samples --output_path) or OpenCompass, no round's "
            "RUN/results/M1"
        )
    for run in found:
        if not run.items:
            tasks = ", ".join(f"{task} ({why})" for task, why in run.left_out.items())
            raise UserError(f"{path}: nothing to compare: {tasks or 'no samples'}")
        if by and all(item.group == item.task for item in run.items.values()):
            raise UserError(f"--by {by}: no question of {path} has this field (subset, kind, ...)")
    return found


def _rounds(path: Path, texts: bool, by: str | None) -> Iterator[Run]:
    """RUN/results/M1: each method is a run."""
    runs: dict[str, Run] = {}
    for file in sorted(path.glob("*.samples.jsonl")):
        about = read_json(file.with_name(file.name.replace(".samples.jsonl", ".json")))
        task, ske = about["task"], about["ske"]
        run = runs.setdefault(about["method"], Run(str(path), about["method"]))
        run.settings |= {
            "method": about["method"],
            "prompt set": f"{ske['prompts']} ({ske['prompts_hash']})",
            "layout": ske["layout"],
            f"{task}: version": str(about["versions"].get(task)),
        }
        for row in read_jsonl(file):
            hit = float(row["hit"])
            item = item_of(task, row["doc"], row["doc_id"], hit, row["answer"], texts, by)
            item.cluster = row["cluster"]
            run.items[task, item.name] = item
    yield from runs.values()
