"""Reads what lm-eval, OpenCompass or the training rounds have left of a run, item by item.

    from ske_tasks.compare.runs import read
    for run in read(Path("out")): print(run.name, len(run.items))

lm-eval: `samples_*.jsonl` beside `results_*.json` (--log_samples --output_path). OpenCompass:
`results/MODEL/*.json` with details, beside `predictions`. Rounds: `TASK.METHOD.samples.jsonl` in
RUN/results/M1. A folder may hold several runs: several models, methods or prompt sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.fingerprint import digest

METRICS = (
    "acc_micro",
    "acc",
    "exact_match",
    "acc_norm",
)  # the first of these that a sample has is its verdict
OPENCOMPASS_GROUPS = {"lukaemon_mmlu_": "mmlu", "agieval-": "agieval", "bbh-": "bbh"}
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # lm-eval notes some functions as <function shots at 0x7fcc314677e0>
PASSAGE = 100  # characters: AGIEval's questions that begin with the same ones are about one passage


@dataclass(slots=True)
class Item:
    """One question of a run. None: the run does not say.

    group: the row of the table it counts for, its task if nothing else is wanted. same: a digest of question
    and gold answer.
    """

    task: str
    name: str
    group: str
    same: str
    right: float
    subset: str
    cluster: str
    tokens: int | None = None
    unanswered: bool | None = None
    truncated: bool | None = None
    looped: bool | None = None
    leaked: bool | None = None
    texts: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """Items by (task, name). `label`: the method, where it is known.

    settings: what a run was, by name, to find what differs between runs.
    seconds: time in the engine, and for how many of the texts (others came from a store); None: not known.
    """

    name: str
    label: str = ""
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    seconds: tuple[float, int, int] | None = None


def read(path: Path, texts: bool = False, by: str | None = None) -> list[Run]:
    """The runs in a folder. texts: keep question, knowledge and answer of every item (for the page).

    by: the field of a task's rows that groups its items ("subset", TinyWorld's "kind"), instead of the task.
    Raises UserError: nothing there, or nothing of a kind that is known.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the folder of a run (lm_eval's --output_path)")
    if any(path.rglob("samples_*.jsonl")):
        return list(_lm_eval(path, texts, by))
    if any(path.glob("*.samples.jsonl")):
        return list(_rounds(path, texts, by))
    models = sorted(folder for folder in path.rglob("results/*") if folder.is_dir())
    if models:
        return [_opencompass(folder, texts) for folder in models]
    raise UserError(
        f"{path}: no run of lm-eval (--log_samples --output_path) or OpenCompass, no round's RUN/results/M1"
    )


# lm-eval ------------------------------------------------------------------------------------------


def _lm_eval(path: Path, texts: bool, by: str | None) -> Iterator[Run]:
    """Each method and prompt set in each folder is a run; of a task that ran twice the later one counts."""
    runs: dict[tuple[str, ...], Run] = {}
    for results in sorted(path.rglob("results_*.json"), key=lambda file: file.name):
        about = json.loads(results.read_text("utf-8"))
        stamp = results.stem.removeprefix("results_")
        ske = about["config"].get("ske") or {}
        ways = [
            str(ske[key]) for key in ("method", "layout", "prompts_hash", "knowledge_control") if ske.get(key)
        ]
        folder = results.parent
        name = str(folder.parent if folder != path else folder)
        run = runs.setdefault((str(folder), *ways), Run(name, ske.get("method", "")))
        _note_settings(run, about, ske)
        for file in sorted(folder.glob(f"samples_*_{stamp}.jsonl")):
            task = file.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
            run.items = {key: item for key, item in run.items.items() if key[0] != task}
            _samples(run, task, file, texts, by)
    if not runs:
        raise UserError(f"{path}: samples without results_*.json; give lm_eval's whole --output_path")
    yield from (run for run in runs.values() if run.items)


def _samples(run: Run, task: str, file: Path, texts: bool, by: str | None) -> None:
    first = None
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            sample = json.loads(line)
            first = first or sample["filter"]
            if sample["filter"] != first:
                continue  # the same texts, read in another way
            metric = next((name for name in METRICS if name in sample), sample["metrics"][0])
            run.settings[f"{task}: metric"] = metric if first == "none" else f"{metric}, {first}"
            doc = sample["doc"]
            answer = sample["resps"][0][0] if sample["resps"] else ""
            item = _item(task, doc, sample["doc_id"], sample[metric], answer, texts, by)
            if "unanswered" in sample:
                item.unanswered = bool(sample["unanswered"])
            if "ske_question" not in doc:
                question = next(iter(sample["arguments"].values())) if sample["arguments"] else ""
                item.same = digest([doc, sample["target"]])
                item.texts |= {"question": str(question), "gold": str(sample["target"])} if texts else {}
            if "extraction" in doc:
                run.settings[f"{task}: extraction"] = doc["extraction"]
            run.items[task, item.name] = item


def _item(
    task: str, doc: Mapping[str, Any], number: int, verdict: Any, answer: Any, texts: bool, by: str | None
) -> Item:
    """An item of lm-eval, of our tasks or of others."""
    name = str(doc.get("id", number))
    item = Item(
        task=task,
        name=name,
        group=str(doc.get(by, task)) if by else task,
        same=digest([doc.get("ske_question"), doc.get("gold")]),
        right=float(verdict[1] if isinstance(verdict, list | tuple) else verdict),
        subset=str(doc.get("subset", "")),
        cluster=_cluster(task, name, doc),
    )
    trace = doc.get("ske") or {}
    item.tokens, item.truncated, item.looped = _cost(trace)
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


def _cost(trace: Mapping[str, Any]) -> tuple[int | None, bool | None, bool | None]:
    """Of both steps: (tokens written, whether one reached its limit, whether `stop_loops` has ended one).

    None where it is not known; the last one also where it is not so, as most runs end no text.
    """
    written = [tokens for tokens in (trace.get("tokens") or {}).values() if tokens is not None]
    cut = [value for value in (trace.get("truncated") or {}).values() if value is not None]
    looped = True in (trace.get("looped") or {}).values() or None
    return sum(written) if written else None, any(cut) if cut else None, looped


def _cluster(task: str, name: str, doc: Mapping[str, Any]) -> str:
    """Items that are not independent: TinyWorld's about one person, AGIEval's about one passage."""
    if doc.get("people"):
        return str(doc["people"][0])
    question = doc.get("question")
    if doc.get("benchmark") == "agieval" and isinstance(question, str) and len(question) > 4 * PASSAGE:
        return digest([doc["subset"], question[:PASSAGE]])
    return f"{task}/{name}"


def _note_settings(run: Run, about: Mapping[str, Any], ske: Mapping[str, Any]) -> None:
    """What the run was, by name; two runs that differ in one of them are told apart."""
    config = about["config"]
    run.settings |= {
        "harness": f"lm-eval {about.get('lm_eval_version')}",
        "model": str(about.get("model_name")),
        "chat template": str(about.get("chat_template_sha")),
        "system instruction": str(about.get("system_instruction_sha")),
        "generation settings": json.dumps(config.get("gen_kwargs") or {}, sort_keys=True),
    }
    if ske:
        run.settings |= {
            "method": ske["method"],
            "prompt set": f"{ske['prompts']} ({ske['prompts_hash']})",
            "layout": ske["layout"],
            "knowledge limit": str(ske["knowledge_limit"]),
            "texts that only repeat themselves": "ended" if ske.get("stop_loops") else "whole",
            "knowledge from": str(ske.get("knowledge_control") or ske.get("knowledge_file") or "the model"),
        }
        steps = ske["steps"].values()
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


# Rounds, and OpenCompass --------------------------------------------------------------------------


def _rounds(path: Path, texts: bool, by: str | None) -> Iterator[Run]:
    """RUN/results/M1: each method is a run."""
    runs: dict[str, Run] = {}
    for file in sorted(path.glob("*.samples.jsonl")):
        about = json.loads(file.with_name(file.name.replace(".samples.jsonl", ".json")).read_text("utf-8"))
        task, ske = about["task"], about["ske"]
        run = runs.setdefault(about["method"], Run(str(path), about["method"]))
        run.settings |= {
            "method": about["method"],
            "prompt set": f"{ske['prompts']} ({ske['prompts_hash']})",
            "layout": ske["layout"],
            f"{task}: version": str(about["versions"].get(task)),
        }
        with file.open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                item = _item(task, row["doc"], row["doc_id"], row["hit"], row["answer"], texts, by)
                item.cluster = row["cluster"]
                run.items[task, item.name] = item
    yield from runs.values()


def _opencompass(folder: Path, texts: bool) -> Run:
    """TIME/results/MODEL: a file per dataset, with a verdict per question in its details."""
    run = Run(str(folder))
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text("utf-8"))
        details = found.get("details")
        if not details:
            raise UserError(f"{file}: no verdict per question; run opencompass with --dump-eval-details")
        predictions = json.loads(
            (folder.parents[1] / "predictions" / folder.name / file.name).read_text("utf-8")
        )
        prefix = next((p for p in OPENCOMPASS_GROUPS if file.stem.startswith(p)), None)
        task = OPENCOMPASS_GROUPS[prefix] if prefix else re.sub(r"_\d+$", "", file.stem)
        rows = details if isinstance(details, list) else [details[key] for key in details if key.isdigit()]
        for number, (row, said) in enumerate(zip(rows, predictions.values(), strict=True)):
            ske = _ske_turn(said["origin_prompt"])
            run.settings |= {
                f"{task}: {key}": ske[key] for key in ("method", "layout", "prompts") if key in ske
            }
            item = _opencompass_item(task, f"{file.stem}/{number}", row, said, ske, texts)
            run.items[task, item.name] = item
        stated, read_off = (
            found.get("accuracy", found.get("score")),
            100 * sum(map(_opencompass_verdict, rows)),
        )
        if stated is None or abs(stated - read_off / len(rows)) > 0.01:
            raise UserError(
                f"{file}: its evaluator gives no verdicts per question that add up to its score; leave the "
                "dataset out, or run opencompass with another evaluator"
            )
    run.settings["harness"] = "OpenCompass"
    return run


def _opencompass_verdict(row: Mapping[str, Any]) -> float:
    """Of a question; where an evaluator only counts, a prediction that is its reference is right."""
    if "correct" not in row:
        return float(row["predictions"] == row["references"])
    return float(row["correct"][0] if isinstance(row["correct"], list) else row["correct"])


def _ske_turn(prompt: Any) -> Mapping[str, Any]:
    """What `SKEExplicit` adds to a prompt: how the answer came about."""
    turns = prompt if isinstance(prompt, list) else []
    return next((turn for turn in turns if turn.get("role") == "SKE"), {})


def _opencompass_item(
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
    item = Item(task, name, task, same, _opencompass_verdict(row), name.rsplit("/", 1)[0], name)
    item.tokens, item.truncated, item.looped = _cost(ske)
    if texts:
        item.texts = {
            "question": question,
            "gold": str(said.get("gold", "")),
            "knowledge": str(ske.get("knowledge") or ""),
            "answer": str(said["prediction"]),
            "prediction": str(row.get("pred", "")),
        }
    return item
