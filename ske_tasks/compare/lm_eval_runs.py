"""Reads what lm-eval has left of a run: `samples_*.jsonl` beside `results_*.json`.

lm_eval ... --log_samples --output_path out
from ske_tasks.compare.lm_eval_runs import read
runs = list(read(Path("out"), texts=False, by=None))
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import read_json
from ske_models.fingerprint import NOT_IDENTITY, digest
from ske_tasks.compare.items import Item, Run, cost

METRICS = ("acc_micro", "acc", "exact_match", "acc_norm")  # the first that a sample has is its verdict
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # lm-eval notes some functions as <function shots at 0x7fcc314677e0>
PASSAGE = 100  # characters: AGIEval's questions that begin with the same ones are about one passage


def read(path: Path, texts: bool, by: str | None) -> Iterator[Run]:
    """The runs in lm-eval's --output_path: another model, method, prompt set or setting is another run.

    Of a task that ran twice in the same way the later one counts. texts, by: as in ske_tasks/compare/runs.py.
    Raises UserError: a file that is cut, samples without results.
    """
    runs: dict[tuple[str, ...], Run] = {}
    written: dict[tuple[str, ...], list[tuple[dict[str, Any], dict[str, Path]]]] = defaultdict(list)
    for results in sorted(path.rglob("results_*.json"), key=lambda file: file.name):
        about, folder, stamp = read_json(results), results.parent, results.stem.removeprefix("results_")
        settings = _settings(about)
        key = (str(folder), *(settings[name] for name in sorted(settings)))
        name = str(folder.parent if folder != path else folder)
        runs.setdefault(key, Run(name, settings.get("method", ""), settings=settings))
        files = {
            file.stem.removeprefix("samples_").removesuffix(f"_{stamp}"): file
            for file in sorted(folder.glob(f"samples_*_{stamp}.jsonl"))
        }
        written[key].append((about, files))
    if not runs:
        raise UserError(f"{path}: samples without results_*.json; give lm_eval's whole --output_path")
    for key, run in runs.items():
        last = {task: file for _, files in written[key] for task, file in files.items()}
        for about, files in written[key]:
            used = {task: file for task, file in files.items() if last[task] == file}
            if used:
                _note(run, about)
            for task, file in used.items():
                _samples(run, task, file, texts, by)
    yield from (run for run in runs.values() if run.items or run.left_out)


def _settings(about: Mapping[str, Any]) -> dict[str, str]:
    """What was run, by name: two runs that differ in one of them are told apart."""
    config = about["config"]
    ske = config.get("ske") or {}
    arguments = config.get("model_args")
    model = str(about.get("model_name"))  # drawn at random where no argument names it
    if "fingerprint" in ske:
        named = isinstance(arguments, dict) and (arguments.get("pretrained") or arguments.get("model"))
        model = f"{named or 'embedded'} ({ske['fingerprint']})"
    settings = {
        "model": model,
        "chat template": str(about.get("chat_template_sha")),
        "system instruction": str(about.get("system_instruction_sha")),
        "generation settings": json.dumps(config.get("gen_kwargs") or {}, sort_keys=True),
    }
    if not ske and isinstance(arguments, dict):
        kept = {name: value for name, value in arguments.items() if name not in NOT_IDENTITY}
        settings["model arguments"] = json.dumps(kept, sort_keys=True)
    if ske:
        settings |= {
            "method": ske["method"],
            "prompt set": f"{ske['prompts']} ({ske['prompts_hash']})",
            "layout": ske["layout"],
            "knowledge limit": str(ske["knowledge_limit"]),
            "texts that only repeat themselves": "ended" if ske.get("stop_loops") else "whole",
            "knowledge from": str(ske.get("knowledge_control") or ske.get("knowledge_file") or "the model"),
        }
    return settings


def _note(run: Run, about: Mapping[str, Any]) -> None:
    """Adds what these results say of their tasks, and what they cost."""
    run.settings["harness"] = f"lm-eval {about.get('lm_eval_version')}"
    steps = (about["config"].get("ske") or {}).get("steps", {}).values()
    if steps:
        spent, made, needed = run.seconds or (0.0, 0, 0)
        run.seconds = (
            spent + sum(step["seconds"] for step in steps),
            made + sum(step["generated"] for step in steps),
            needed + sum(step["asked"] for step in steps),
        )
    for task, task_config in about["configs"].items():
        for key, value in task_config.items():
            if key != "metadata":  # the model's arguments
                text = value if isinstance(value, str) else json.dumps(value)
                run.settings[f"{task}: {key}"] = ADDRESS.sub("", text)
        run.settings[f"{task}: version"] = str(about["versions"].get(task))
        run.settings[f"{task}: few-shot examples"] = str(about["n-shot"].get(task))


def _samples(run: Run, task: str, file: Path, texts: bool, by: str | None) -> None:
    first = None
    for sample in _lines(file):
        first = first or sample["filter"]
        if sample["filter"] != first:
            continue  # the same texts, read in another way
        metric = next((name for name in METRICS if name in sample), sample["metrics"][0])
        verdict = _verdict(sample[metric])
        if verdict is None:
            run.items = {key: item for key, item in run.items.items() if key[0] != task}
            run.left_out[task] = f"{metric} is no verdict on a question"
            return
        run.settings[f"{task}: metric"] = metric if first == "none" else f"{metric}, {first}"
        doc = sample["doc"]
        answer = sample["resps"][0][0] if sample["resps"] else ""
        item = item_of(task, doc, sample["doc_id"], verdict, answer, texts, by)
        if "unanswered" in sample:
            item.unanswered = bool(sample["unanswered"])
        if "ske_question" not in doc:
            question = next(iter(sample["arguments"].values())) if sample["arguments"] else ""
            item.same = digest([doc, sample["target"]])
            item.texts |= {"question": str(question), "gold": str(sample["target"])} if texts else {}
        if "extraction" in doc:
            run.settings[f"{task}: extraction"] = doc["extraction"]
        if (task, item.name) in run.items:
            raise UserError(f"{file}: {task} has two questions that are called {item.name}; give each an id")
        run.items[task, item.name] = item


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as lines:
        yield from (_sample(line, file, number) for number, line in enumerate(lines, start=1))


def _sample(line: bytes, file: Path, number: int) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{file}, line {number}: cut or damaged ({error}); give the command that wrote it again"
        ) from error


def _verdict(value: Any) -> float | None:
    """From 0 to 1, or None: the metric has none for a question (perplexity, bleu)."""
    of_subset = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)  # ske_tasks' own
    right = value[1] if of_subset else value
    return float(right) if isinstance(right, int | float) and 0 <= right <= 1 else None


def item_of(
    task: str, doc: Mapping[str, Any], number: int, right: float, answer: Any, texts: bool, by: str | None
) -> Item:
    """An item of our tasks (known by the id in its row) or of another task (by its number)."""
    name = str(doc["id"] if "ske_question" in doc and "id" in doc else number)
    item = Item(
        task=task,
        name=name,
        group=str(doc.get(by, task)) if by else task,
        same=digest([doc.get("ske_question"), doc.get("gold")]),
        right=right,
        subset=str(doc.get("subset", "")),
        cluster=_cluster(task, name, doc),
    )
    trace = doc.get("ske") or {}
    item.tokens, item.truncated, item.looped = cost(trace)
    checks = trace.get("checks")
    item.leaked = checks["answer"] is not None if checks else None
    if texts:
        item.texts = {
            "question": str(doc.get("ske_question", "")),
            "gold": ", ".join(doc["gold"]) if isinstance(doc.get("gold"), list) else str(doc.get("gold", "")),
            "knowledge": trace.get("knowledge") or "",
            "answer": str(answer),
            "prediction": str(doc.get("prediction") or ""),
        }
    return item


def _cluster(task: str, name: str, doc: Mapping[str, Any]) -> str:
    """Items that are not independent: TinyWorld's about one person, AGIEval's about one passage."""
    if doc.get("people"):
        return str(doc["people"][0])
    question = doc.get("question")
    if doc.get("benchmark") == "agieval" and isinstance(question, str) and len(question) > 4 * PASSAGE:
        return digest([doc["subset"], question[:PASSAGE]])
    return f"{task}/{name}"
