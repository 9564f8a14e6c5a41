"""Which prompts suit a model? Prompt sets on questions that are in no test set, question by question.

    python benchmarks/prompts.py --model ORG/NAME --backend vllm --sets default notes --n 60
    python benchmarks/prompts.py --model ORG/NAME --sets notes:explicit:single my.yaml:cot --of mmlu arc_c

The questions are those of ske_tasks/six/validation.py (MMLU and ARC validation, BBH's CoT examples, NQ train,
OpenBookQA and SciQ), n of each set. `direct` and `cot` with the default prompts are always compared, too. A
set is NAME, or NAME:METHOD, or NAME:METHOD:LAYOUT (explicit, multiturn). The model is loaded once; what it
has written is in the store, so more sets, or more questions, cost only what is new. Choose by this table,
then run the benchmarks once: a choice made on their questions overstates what it is worth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.utils import simple_parse_args_string
from rich.console import Console
from rich.table import Table

from ske_models.errors import UserError, one_of
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.method import LAYOUTS, METHODS, Question
from ske_models.pipeline import Pipeline, Scheduler
from ske_models.prompts import load
from ske_models.records import Answer, Item, StepCounts
from ske_models.setup import DEFAULT_STORE
from ske_models.together import Together
from ske_tasks.answers.extract import extract, is_right
from ske_tasks.compare.paired import Paired, mcnemar
from ske_tasks.six.rows import Row, options_of, prompt
from ske_tasks.six.validation import SETS, questions


@dataclass(frozen=True)
class Way:
    """A method by a prompt set, as it is compared."""

    name: str
    pipeline: Pipeline


def ways(specs: Sequence[str], base: Pipeline) -> list[Way]:
    """`direct` and `cot` by the default set, then one for each of `specs`. Raises UserError: no such set."""
    found = []
    for spec in dict.fromkeys(["default:direct", "default:cot", *specs]):
        name, method, layout = [*spec.split(":"), "", ""][:3]
        method, layout = method or "explicit", layout or "multiturn"
        one_of("method", method, METHODS)
        one_of("layout", layout, LAYOUTS)
        prompts = load(name)
        limit = prompts.knowledge_tokens
        settings = dict(base.knowledge_settings) | {"max_gen_toks": limit}
        counts = {step: StepCounts() for step in base.counts}
        pipeline = replace(
            base,
            method=method,
            layout="single" if layout == "single" else "multiturn",
            prompts=prompts,
            knowledge_settings=settings,
            knowledge_limit=limit,
            counts=counts,
        )
        found.append(Way(spec, pipeline))
    return found


def items(rows: Iterable[Row], limit: int) -> list[Item]:
    """The questions as `direct` asks them. limit: tokens of an answer."""
    settings = {"do_sample": False, "temperature": 0.0, "until": [], "max_gen_toks": limit}
    found = []
    for row in rows:
        asked, name = prompt(row), f"{row['benchmark']}/{row['id']}"
        origin = Instance("generate_until", dict(row), (asked, settings), 0, metadata=(name, 0, 1))
        question = Question((), asked, row["ske_question"], row["ske_ending"], stem=row["ske_stem"])
        found.append(Item(question, settings, limit, origin))
    return found


def answer(compared: Sequence[Way], asked: Sequence[Item]) -> list[list[Answer]]:
    """By way: the answers. First what has one step, and each distinct first step once; then the rest."""
    first: dict[Any, Scheduler] = {}
    for way in compared:
        p = way.pipeline
        key = (p.prompts.templates["extract"], p.knowledge_limit) if p.writes_knowledge else way.name
        uncounted = replace(p, counts={step: StepCounts() for step in p.counts})
        first.setdefault(key, Scheduler(uncounted, asked, p.writes_knowledge, not p.writes_knowledge))
    Together(list(first.values())).run()
    second = [Scheduler(way.pipeline, asked, way.pipeline.writes_knowledge, True) for way in compared]
    Together(second).run()
    return [
        [way.pipeline._answer(end) for end in one.ends if end]
        for way, one in zip(compared, second, strict=True)
    ]


def judged(row: Row, answered: Answer) -> dict[str, Any]:
    """One line of `--output`: the verdict and how it came about."""
    prediction = extract(answered, row["kind"], options_of(row))
    how = answered.trace
    return {
        "benchmark": row["benchmark"],
        "id": row["id"],
        "right": int(is_right(prediction, row)),
        "prediction": prediction,
        "gold": row["gold"],
        "question": row["ske_question"],
        "knowledge": how["knowledge"],
        "answer": str(answered),
        "tokens": how["tokens"],
        "truncated": how["truncated"],
    }


def table(compared: Sequence[Way], lines: Sequence[Sequence[dict[str, Any]]]) -> Table:
    """The ways in rows: accuracy by set, the average, against `direct` and `cot` question by question."""
    right = [[line["right"] for line in ours] for ours in zip(*lines, strict=True)]
    groups = [line["benchmark"] for line in lines[0]]
    pairs = Paired(right, groups)
    shown = Table("set:method:layout", title=f"accuracy in percent, {len(groups)} validation questions")
    sizes = {group: groups.count(group) for group in pairs.groups}
    for group, size in sizes.items():
        shown.add_column(f"{group}\nn={size}", justify="right")
    for column in ("average", "- direct", "+/-", "p", "- cot", "+/-", "p", "none", "cut", "tokens\nk, a"):
        shown.add_column(column, justify="right")
    for place, way in enumerate(compared):
        cells = [f"{pairs.accuracy(group, place).mean:.1f}" for group in pairs.groups]
        cells.append(f"{pairs.average(place).mean:.1f}")
        for base in (0, 1):
            gained, lost = pairs.flips(place, base)
            cells += [str(pairs.difference(place, base)), f"{gained}/{lost}", f"{mcnemar(gained, lost):.3f}"]
        mine = lines[place]
        cells.append(str(sum(line["prediction"] is None for line in mine)))
        cells.append(str(sum(any(line["truncated"].values()) for line in mine)))
        means = [
            sum(line["tokens"][step] or 0 for line in mine) / len(mine) for step in ("knowledge", "answer")
        ]
        cells.append(", ".join(f"{mean:.0f}" for mean in means))
        shown.add_row(way.name, *cells)
    return shown


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a checkpoint: folder or ORG/NAME")
    parser.add_argument("--backend", default="hf")
    parser.add_argument("--model-args", default="", help="more arguments of the backend: NAME=VALUE,...")
    parser.add_argument("--sets", nargs="*", default=["default"], metavar="SET[:METHOD[:LAYOUT]]")
    parser.add_argument("--of", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--n", type=int, default=60, help="questions of each validation set")
    parser.add_argument("--limit", type=int, default=512, help="tokens of an answer")
    parser.add_argument(
        "--store", default=DEFAULT_STORE, help="SQLite file (default: the model's own, in ~/.cache/ske-learn)"
    )
    parser.add_argument("--output", type=Path, help="JSONL: every question with its texts and verdicts")
    return parser.parse_args()


def main() -> None:
    """The command."""
    args = arguments()
    try:
        rows = [row for name in args.of for row in questions(name, args.n)]
        lm = SKEExplicitLM(
            args.backend,
            "direct",
            store=args.store,
            pretrained=args.model,
            **simple_parse_args_string(args.model_args),
        )
        compared = ways(args.sets, lm.pipeline)
        answers = answer(compared, items(rows, args.limit))
    except UserError as error:
        sys.exit(f"error: {error}")
    lines = [[judged(row, one) for row, one in zip(rows, ours, strict=True)] for ours in answers]
    if args.output:
        with args.output.open("w", encoding="utf-8") as file:
            for way, ours in zip(compared, lines, strict=True):
                file.writelines(
                    json.dumps(
                        {"way": way.name, "prompts_hash": way.pipeline.prompts.hash} | line,
                        ensure_ascii=False,
                    )
                    + "\n"
                    for line in ours
                )
    Console(width=240).print(table(compared, lines))


if __name__ == "__main__":
    main()
