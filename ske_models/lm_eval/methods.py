"""A task or group of lm-eval by several methods, with one load of the model, as far as the time goes.

    python -m ske_models.lm_eval.methods --model ORG/NAME --backend vllm --tasks ske_quick --out runs/quick
    python -m ske_models.lm_eval.methods ... --ways notes:explicit:single notes:explicit:single:shuffled
    python -m ske_tasks.compare runs/quick/*

A way is SET:METHOD[:LAYOUT[:KNOWLEDGE]] (LAYOUT: single, which is the default, or multiturn; KNOWLEDGE:
shuffled, empty, or a JSONL file, of another model, too). Without `--ways`, the three methods by the default
prompts. All are asked question by question, the tasks in turn, the questions of a task in a random order that
is always the same. After `--minutes`, or Ctrl-C, what is complete is evaluated: the first N of that order
that every way has answered in every task, through lm-eval's `simple_evaluate`, which finds all texts in the
store. The same command continues. The folder of each way is what `lm_eval --output_path` leaves.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from lm_eval.utils import simple_parse_args_string

from ske_models.controls import CONTROLS, EMPTY, SHUFFLED, EmptyKnowledge
from ske_models.errors import UserError, one_of
from ske_models.files import user_path
from ske_models.knowledge import KnowledgeFile
from ske_models.lm_eval.backend import placed
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.method import LAYOUTS, METHODS, Layout, Question
from ske_models.pipeline import Pipeline, Scheduler
from ske_models.prompts import load
from ske_models.records import Item, Request, StepCounts
from ske_models.together import Together

THREE = ["default:direct", "default:cot", "default:explicit"]
SAID_BY = {"pretrained": "--model", "backend": "--backend", "store": "--out"} | dict.fromkeys(
    ("method", "layout", "prompts", "knowledge", "foreign_knowledge"), "--ways"
)
SAID_BY["max_knowledge_toks"] = "`knowledge_tokens` of a prompt set"


class OutOfTimeError(Exception):
    """The minutes are over."""


class Collector(SKEExplicitLM):
    """Takes lm-eval's requests for texts and answers nothing; options are not scored either."""

    def __init__(self, lm: SKEExplicitLM) -> None:
        self.__dict__.update(lm.__dict__)
        self.seen: list[Instance] = []

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        self.seen += requests
        return [""] * len(requests)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(0.0, False)] * len(requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return [0.0] * len(requests)


class Timed(Together):
    """Stops when the time is over; what is written by then is in the store."""

    def __init__(self, schedulers: Sequence[Scheduler], until: float) -> None:
        super().__init__(schedulers)
        self.until = until

    def _written(self, position: int, text: str) -> list[Request]:
        new = super()._written(position, text)
        if time.monotonic() > self.until:
            raise OutOfTimeError
        return new


@dataclass
class Shuffled(Pipeline):
    """Gives each question the donor that it was given first, which is when all questions are asked.

    What is complete after `--minutes` is a part of them: drawn anew, the donors would be others, and texts
    would have to be written.
    """

    donors: dict[tuple[tuple[str, str], str], Question | None] = field(default_factory=dict)

    def _prepared(self, items: Sequence[Item]) -> Sequence[Item]:
        asked = [(item.group, item.question.text) for item in items]
        if not self.donors.keys() >= set(asked):
            items = super()._prepared(items)
            self.donors.update((key, item.donor) for key, item in zip(asked, items, strict=True))
        return [replace(item, donor=self.donors[key]) for key, item in zip(asked, items, strict=True)]


def parts(spec: str) -> tuple[str, str, str, str]:
    """SET, METHOD, LAYOUT and KNOWLEDGE of one of `--ways`. Raises UserError: unknown, or no such file."""
    name, method, layout, knowledge = [*spec.split(":", 3), "", "", ""][:4]
    load(name)
    method, layout = method or "explicit", layout or "single"
    one_of(f"--ways {spec}: method", method, METHODS)
    one_of(f"--ways {spec}: layout", layout, LAYOUTS)
    if knowledge and knowledge not in CONTROLS and not user_path(knowledge, f"--ways {spec}").is_file():
        raise UserError(f"--ways {spec}: no file {knowledge}; give one, or {' or '.join(CONTROLS)}")
    return name, method, layout, knowledge


def way(spec: str, base: Pipeline) -> Pipeline:
    """The pipeline of one of `--ways`. Raises UserError as `parts`, or for a faulty knowledge file."""
    name, method, layout, knowledge = parts(spec)
    prompts = load(name)
    source: KnowledgeFile | EmptyKnowledge | None = None
    if knowledge == EMPTY:
        source = EmptyKnowledge()
    elif knowledge and knowledge not in CONTROLS:
        path = user_path(knowledge, f"--ways {spec}")
        source = KnowledgeFile(path, base.store.fingerprint, prompts.hash, foreign=True)
    limit = prompts.knowledge_tokens
    made = replace(
        base,
        method=method,
        layout=cast("Layout", layout),
        prompts=prompts,
        knowledge_settings=dict(base.knowledge_settings) | {"max_gen_toks": limit},
        knowledge_limit=limit,
        knowledge_file=source,
        shuffled=knowledge == SHUFFLED,
        counts={step: StepCounts() for step in base.counts},
    )
    return Shuffled(**vars(made)) if made.shuffled else made


def model_args(text: str) -> dict[str, Any]:
    """`--model-args`. Raises UserError for what another argument of this command says."""
    found = simple_parse_args_string(text)
    for name in [name for name in found if name in SAID_BY]:
        raise UserError(f"--model-args {name}=...: {SAID_BY[name]} says it here")
    return dict(found)


def accuracy(result: Mapping[str, Any]) -> float | None:
    """The first metric of a task, in percent; None: it has none from 0 to 1."""
    values = [value for name, value in result.items() if "," in name and isinstance(value, float)]
    return round(100 * values[0], 1) if values and 0 <= values[0] <= 1 else None


Places = dict[str, list[int]]  # of questions, by task


def evaluate(lm: SKEExplicitLM, args: argparse.Namespace, places: Places | None = None) -> dict[str, Any]:
    """lm-eval's results, with samples. places: only these questions."""
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=args.tasks,
        limit=None if places else args.limit,
        gen_kwargs={"max_gen_toks": args.max_answer} if args.max_answer else None,
        samples=places,
        task_manager=TaskManager(),
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
    )


def in_turn(lm: SKEExplicitLM, requests: Sequence[Instance]) -> list[tuple[int, Item]]:
    """The questions, tasks in turn, each with its rank in the order of its task."""
    by_task: dict[str, list[Item]] = {}
    for request in requests:
        by_task.setdefault(str(request.task_name), []).append(lm._item(request))
    for items in by_task.values():
        random.Random(0).shuffle(items)
    rounds = zip_longest(*by_task.values())
    return [(rank, item) for rank, row in enumerate(rounds) for item in row if item is not None]


def answer(pipelines: Sequence[Pipeline], asked: list[tuple[int, Item]], minutes: float | None) -> int | None:
    """Writes all that is missing. How many ranks are complete in every task, or None for all."""
    items = [item for _, item in asked]
    schedulers = []
    for pipeline in pipelines:
        given = pipeline._prepared(items)
        schedulers.append(Scheduler(pipeline, given, pipeline.writes_knowledge, answers=True))
    until = time.monotonic() + 60 * (minutes or 1e6)
    try:
        # Shuffled knowledge comes last, out of the store: in the same call each way would write a copy of its
        # own, and in bf16 the copies differ.
        for shuffled in (False, True):
            if now := [one for one in schedulers if one.pipeline.shuffled == shuffled]:
                Timed(now, until).run()
    except (OutOfTimeError, KeyboardInterrupt):
        missing = [asked[n][0] for one in schedulers for n, end in enumerate(one.ends) if end is None]
        return min(missing, default=None)
    return None


def cost(step: str, count: StepCounts) -> str:
    """What a step has cost in this run; the results say what it has read from the store since."""
    prompts = f"{count.prompt_tokens:,} prompt tokens, {count.cached_tokens:,} of them cached"
    return f"{step}: {count.generated} texts, {count.output_tokens:,} tokens, {prompts}"


def folder(spec: str) -> str:
    """The name of a way's folder."""
    return spec.replace(":", "_").replace("/", "_")


def main(argv: Sequence[str] | None = None) -> None:
    """The command. argv: its arguments, if not the process' own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a checkpoint: folder or ORG/NAME")
    parser.add_argument("--backend", default="hf")
    parser.add_argument("--model-args", default="", help="more arguments of the backend: NAME=VALUE,...")
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--ways", nargs="+", default=THREE, metavar="SET:METHOD[:LAYOUT[:KNOWLEDGE]]")
    parser.add_argument(
        "--max-answer", type=int, help="tokens of an answer, instead of the tasks' own limits"
    )
    parser.add_argument("--limit", type=int, help="only the first N questions of each task")
    parser.add_argument("--minutes", type=float, help="evaluate what is complete by then")
    parser.add_argument("--out", type=Path, required=True, help="folder; the store is in it, too")
    args = parser.parse_args(argv)
    try:
        store = str(args.out / "store.sqlite")
        for spec in args.ways:
            parts(spec)
        given = placed(args.backend, model_args(args.model_args))
        lm = SKEExplicitLM(args.backend, store=store, pretrained=args.model, **given)
        pipelines = [way(spec, lm.pipeline) for spec in args.ways]
        collector = Collector(lm)
        evaluate(collector, args)
        asked = in_turn(lm, collector.seen)
        complete = answer(pipelines, asked, args.minutes)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(f"complete: {'all' if complete is None else complete} questions of each task", flush=True)
    if complete == 0:
        sys.exit("nothing is complete in every way; give the same command again")
    places: Places | None = None if complete is None else {}
    for rank, item in asked:
        if places is not None and complete is not None and rank < complete:
            places.setdefault(item.origin.task_name, []).append(item.origin.doc_id)
    for spec, pipeline in zip(args.ways, pipelines, strict=True):
        written = "; ".join(cost(step, count) for step, count in pipeline.counts.items() if count.generated)
        lm.pipeline, lm.report = (
            replace(pipeline, counts={step: StepCounts() for step in pipeline.counts}),
            {},
        )
        found = evaluate(lm, args, places)
        samples = found.pop("samples")
        tracker = EvaluationTracker(output_path=str(args.out / folder(spec)))
        tracker.general_config_tracker.model_name_sanitized = "model"
        tracker.save_results_aggregated(results=found, samples=samples)
        for task, lines in samples.items():
            tracker.save_results_samples(task_name=task, samples=lines)
        accuracies = {task: accuracy(result) for task, result in found["results"].items()}
        print(spec, json.dumps(accuracies), f"({written or 'all from the store'})", flush=True)


if __name__ == "__main__":
    main()
