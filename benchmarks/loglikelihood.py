"""Whether a task that scores options costs, under `explicit`, the plain task and one knowledge a question.

    HF_ENDPOINT=... python benchmarks/loglikelihood.py [--save]

The stock tasks of lm-eval, transformers on this machine, a random model of 4 million parameters. In turn, in
one process: the plain task by the bare backend; the knowledge of its questions, written by the bare backend
from the same prompts; the task under `explicit`; and the contexts of `explicit` scored in lm-eval's own way,
which reads a context again for each option of more than one token.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from benchmarks.report import as_run, interleaved, publish, ratios
from benchmarks.toy import toy
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.pipeline import knowledge_request
from ske_models.store import Store

TASKS = {"arc_challenge": "options of several words", "mmlu_high_school_geography": "options of one letter"}
BATCH = 32
KNOWLEDGE = 128  # tokens at most: few enough that both ways of writing it are static batches


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/loglikelihood.md")
    parser.add_argument("--questions", type=int, default=96, help="of each task")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lm = SKEExplicitLM(
            pretrained=str(toy(Path(folder) / "toy")),
            dtype="float32",
            device="cpu",
            batch_size=BATCH,
            store="none",
            max_knowledge_toks=KNOWLEDGE,
        )
        rows = [compare(lm, task, args.questions, args.repeats) for task in TASKS]
    publish(
        "loglikelihood",
        "Does a task that scores options cost at most the plain task and one knowledge a question?",
        as_run(),
        [
            "task",
            "questions",
            "options scored: plain, explicit",
            "texts written",
            "explicit / (plain + knowledge)",
            "knowledge / plain",
            "contexts of explicit: shared / lm-eval's own",
        ],
        rows,
        [
            f"Wall time, median of {args.repeats} interleaved turns [lowest, highest]; batch {BATCH}, fp32.",
            f"Texts have at most {KNOWLEDGE} tokens; `knowledge`: the bare backend's time for the same ones.",
            "Under `explicit` the contexts have the knowledge in them, which has to be read. Where options "
            "are of several words that is made up for: a context is read once, and not once an option.",
            "Where options are of one token, lm-eval, too, reads a context once.",
        ],
        ["lm-eval", "transformers", "torch"],
        args.save,
    )


def compare(lm: SKEExplicitLM, name: str, n: int, repeats: int) -> list[str]:
    """The row of a task. Raises AssertionError if `explicit` asks for more than it may, or scores differ."""
    backend = lm.inner
    assert isinstance(backend, HFLM)
    task = TaskManager().load([name])["tasks"][name]
    task.build_all_requests(limit=n, apply_chat_template=True, chat_template=lm.apply_chat_template)
    requests: list[Instance] = task.instances
    questions = {request.args[0]: request for request in requests}
    items = [lm._item(request, scored=True) for request in questions.values()]
    asked = [knowledge_request(lm.pipeline, item) for item in items]
    knowledge = [Instance("generate_until", {}, (r.prompt, dict(r.settings)), 0) for r in asked]

    lm.ask_by("explicit")  # counts begin at 0
    informed = lm.informed(requests)
    written = lm.pipeline.counts["knowledge"].generated
    shared, own = lm.engine.score(informed), backend.loglikelihood(informed, disable_tqdm=True)
    assert len(informed) == len(requests)
    assert written <= len(questions)
    assert all(abs(a[0] - b[0]) < 1e-2 and a[1] == b[1] for a, b in zip(shared, own, strict=True))

    def explicit() -> None:
        lm.pipeline.store = Store(None, {})
        lm.loglikelihood(requests)

    def plain(contexts: list[Instance]) -> None:
        backend.loglikelihood(contexts, disable_tqdm=True)

    def write() -> None:
        backend.generate_until(knowledge, disable_tqdm=True)

    def score() -> None:
        lm.engine.score(informed)

    runs: dict[str, Callable[[], None]] = {
        "plain": partial(plain, requests),
        "knowledge": write,
        "explicit": explicit,
        "shared": score,
        "own": partial(plain, informed),
    }
    seconds = interleaved(runs, repeats)
    seconds["both"] = [a + b for a, b in zip(seconds["plain"], seconds["knowledge"], strict=True)]
    pairs = (("explicit", "both"), ("knowledge", "plain"), ("shared", "own"))
    return [
        f"{name} ({TASKS[name]})",
        str(len(questions)),
        f"{len(requests)}, {len(informed)}",
        str(written),
        *("{:.2f} [{:.2f}, {:.2f}]".format(*ratios(seconds, *pair)) for pair in pairs),
    ]


if __name__ == "__main__":
    main()
