"""lm-eval on a checkpoint of a run: each task of the recipe by each method, with one load of the model.

All texts of all tasks and methods are written in the same calls, so that the last long ones of one overlap
with the others' texts; then lm-eval evaluates each, and finds them in the store.

    python -m training.stage evaluate runs/mine 2        # M2

The same numbers come from the stock command, which any checkpoint of a run can be given to:

    lm_eval --model ske_explicit --model_args pretrained=runs/mine/M2 --tasks ske_quick \\
            --apply_chat_template
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ske_tasks
from ske_models.errors import UserError
from ske_models.files import write_json, write_jsonl
from ske_models.records import Answer
from training.data.objects import RESULT, read_object
from training.recipe import SERVED, Evaluate, Recipe
from training.run_folder import RunFolder
from training.serving.where import ALONE, of_checkpoint
from training.settings.secret import revealed
from training.stages import Stage, checkpoint_files, part, prompting

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from ske_models.lm_eval.model import SKEExplicitLM

TASKS = str(Path(ske_tasks.__file__).parent / "tasks")


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Evaluates M`n`; returns {"TASK.METHOD": accuracy}. What a killed try left is not done again."""
    from lm_eval.tasks import TaskManager

    from ske_models.lm_eval.backend import placed
    from ske_models.lm_eval.model import SKEExplicitLM
    from training import card

    settings, results = folder.recipe.evaluate, folder.results(n)
    pairs = _pairs(settings)
    files = {pair: results / f"{pair[0]}.{pair[1]}.json" for pair in pairs}
    missing = [pair for pair in pairs if not _is_there(files[pair])]
    if missing:
        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # else pages of remarks on each task
        # lm-eval's own tasks are thousands of files, which take longer to index than small ones to run
        ours = all(task.startswith("ske_") for task in settings.tasks)
        tasks = TaskManager(include_path=TASKS if ours else None, include_defaults=not ours)
        _check(settings.tasks, tasks.all_subtasks, tasks.all_tasks)
        model = SKEExplicitLM(
            backend=settings.backend,
            method=missing[0][1],
            prompts=folder.recipe.prompts,
            layout=folder.recipe.layout,
            think=folder.recipe.generation.think or "default",
            store=str(results / "store.sqlite"),
            pretrained=str(folder.checkpoint(n)),
            **_where(folder, n) | placed(settings.backend, revealed(settings.args)),
        )
        write_json(results / "cost.json", _write(model, tasks, missing, settings.limit))
        for task, method in missing:
            model.ask_by(method)
            _evaluate(model, tasks, task, settings.limit, results / f"{task}.{method}")
    for suffix in ("", "-wal", "-shm"):  # every answer is in the samples by now
        (results / f"store.sqlite{suffix}").unlink(missing_ok=True)
    card.write(folder, n)
    return {
        f"{task}.{method}": read_object(file, RESULT, "delete it to evaluate again")["metrics"].get("acc")
        for (task, method), file in files.items()
    }


def _pairs(settings: Evaluate) -> list[tuple[str, str]]:
    return [(task, method) for task in settings.tasks for method in settings.methods]


def _is_there(file: Path) -> bool:
    """Whether a task is evaluated by a method: its result and its samples."""
    return file.is_file() and file.with_suffix(".samples.jsonl").is_file()


def _where(folder: RunFolder, n: int) -> dict[str, Any]:
    """Whom the backend prompts, where it is one for servers: those that have M`n`, by its name."""
    if not _by_servers(folder.recipe.evaluate):
        return {}
    from training.engine import endpoints

    where = {"model": f"M{n}", "base_url": ";".join(revealed(endpoints(folder, n)))}
    if folder.recipe.evaluate.backend == "local-completions":
        where["tokenizer"] = str(folder.checkpoint(n))
    return where


def _by_servers(settings: Evaluate) -> bool:
    return settings.backend in SERVED and "base_url" not in settings.args


def check(recipe: Recipe) -> None:
    """Raises UserError for a task of this project that there is not; lm-eval's take seconds to be listed."""
    files = {path.stem: path for path in Path(TASKS).glob("ske*.yaml")}
    groups = {name for name, path in files.items() if path.read_text(encoding="utf-8").startswith("group:")}
    named = [name for name in recipe.evaluate.tasks if name in groups or name.startswith("ske_")]
    _check(named, files.keys() - groups, groups)


def _check(names: Iterable[str], single: Collection[str], groups: Collection[str]) -> None:
    """Raises UserError unless they are `single` tasks of lm-eval or of this project."""
    for name in set(names) - set(single):
        if name in groups:
            raise UserError(f"evaluate.tasks: {name} is a group; name its tasks")
        near = difflib.get_close_matches(name, single, n=3)
        raise UserError(
            f"evaluate.tasks: {name}: no such task" + (f"; did you mean {' or '.join(near)}?" if near else "")
        )


def _write(
    model: SKEExplicitLM, tasks: TaskManager, pairs: Sequence[tuple[str, str]], limit: int | None
) -> dict[str, Any]:
    """All texts that they need and that the store has not; what each method's steps have cost."""
    from ske_models.lm_eval.methods import Collector
    from ske_models.pipeline import Scheduler
    from ske_models.together import Together

    collector = Collector(model)
    _lm_eval(collector, tasks, list(dict.fromkeys(task for task, _ in pairs)), limit)
    items = [model._item(request) for request in collector.seen]
    pipelines = {}
    for method in dict.fromkeys(method for _, method in pairs):
        model.ask_by(method)
        pipelines[method] = model.pipeline
    if items:  # none where only options are scored
        Together([Scheduler(p, items, p.writes_knowledge, answers=True) for p in pipelines.values()]).run()
    return {method: pipeline.report()["steps"] for method, pipeline in pipelines.items()}


def _lm_eval(model: SKEExplicitLM, tasks: TaskManager, names: list[str], limit: int | None) -> dict[str, Any]:
    import lm_eval

    return lm_eval.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=tasks,
        limit=limit,
        apply_chat_template=True,
        bootstrap_iters=0,
        log_samples=True,
    )


def _evaluate(model: SKEExplicitLM, tasks: TaskManager, task: str, limit: int | None, stem: Any) -> None:
    import lm_eval

    evaluated = _lm_eval(model, tasks, [task], limit)
    metrics = {
        name.removesuffix(",none"): value
        for name, value in evaluated["results"][task].items()
        if name.endswith(",none") and isinstance(value, int | float)
    }
    rows = [_row(sample) for sample in sorted(evaluated["samples"][task], key=lambda s: s["doc_id"])]
    write_jsonl(stem.with_name(f"{stem.name}.samples.jsonl"), rows)
    write_json(
        stem.with_name(f"{stem.name}.json"),
        {
            "task": task,
            "method": model.pipeline.method,
            "n": len(rows),
            "metrics": metrics,
            "ske": model.report,
            "versions": {task: evaluated["versions"].get(task), "lm-eval": lm_eval.__version__},
        },
    )


def _row(sample: dict[str, Any]) -> dict[str, Any]:
    """A sample of lm-eval as the report reads it."""
    doc, answer = sample["doc"], sample["resps"][0][0]
    trace = answer.trace if isinstance(answer, Answer) else {}
    hit = sample["acc"] if "acc" in sample else sample[sample["metrics"][0]]
    return {
        "doc_id": sample["doc_id"],
        "hit": float(hit[1] if isinstance(hit, tuple | list) else hit),
        "cluster": doc.get("ske_cluster", str(sample["doc_id"])),
        "answer": str(answer),
        "knowledge": trace.get("knowledge"),
        "truncated": trace.get("truncated"),
        "extraction": sample.get("extraction"),
        "doc": doc,
    }


def _prompts(folder: RunFolder, n: int) -> str | None:
    return of_checkpoint(folder, n) if _by_servers(folder.recipe.evaluate) else ALONE


def _outputs(folder: RunFolder, _n: int) -> tuple[str, ...]:
    names = (f"results/M{{n}}/{task}.{method}" for task, method in _pairs(folder.recipe.evaluate))
    return tuple(name + suffix for name in names for suffix in (".json", ".samples.jsonl"))


def _settings(folder: RunFolder, _n: int) -> dict[str, Any]:
    return part(folder, "evaluate") | prompting(folder) | {"think": folder.recipe.generation.think}


def _says(counts: dict[str, Any]) -> str:
    """The accuracy of each method; of several tasks the average, in which each counts the same."""
    by_method: dict[str, list[float]] = {}
    for name, value in counts.items():
        if value is not None:
            by_method.setdefault(name.rpartition(".")[2], []).append(value)
    said = ", ".join(f"{method} {sum(some) / len(some):.1%}" for method, some in by_method.items())
    tasks = list(dict.fromkeys(name.rpartition(".")[0] for name in counts))
    return f"{said} ({tasks[0] if len(tasks) == 1 else f'average of {len(tasks)} tasks'})" if said else "-"


STAGE = Stage(
    name="evaluate",
    inputs=checkpoint_files,
    settings=_settings,
    outputs=_outputs,
    work="results/M{n}",
    run=run,
    says=_says,
    prompts=_prompts,
)
