"""Continuous against static batches of transformers on this machine, and whether they write the same texts.

    HF_ENDPOINT=... python benchmarks/batching.py [--save]

Both steps of `explicit` over lm-eval's `hf` backend: with texts that can be long (a random model of 4 million
parameters, the benchmarks' questions), and with short ones (the embedded model, TinyWorld's questions).
`ske_models.lm_eval.hf` uses continuous batching where a text can have `LONG` tokens or more.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model

from benchmarks.report import as_run, interleaved, publish, ratios
from benchmarks.toy import rows, toy
from ske_models.lm_eval.hf import ContinuousHF
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.records import Answer, Request
from ske_models.store import Store
from ske_tasks.six.rows import prompt
from ske_tasks.world.task import load_dev


@register_model("hf-either")
class EitherHF(ContinuousHF):
    """The backend, in the way of batching that `continuous` says."""

    continuous = True

    def suits(self, requests: Sequence[Request]) -> bool:
        return self.continuous


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/batching.md")
    parser.add_argument(
        "--questions", type=int, default=48, help="for the random model; 4 times as many short ones"
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    real = [(prompt(row), row) for row in rows(args.questions)]
    short = [(row["ske_question"], row) for row in load_dev()["test"].select(range(4 * args.questions))]
    with tempfile.TemporaryDirectory() as folder:
        random = {"pretrained": str(toy(Path(folder) / "toy")), "batch_size": 16}
        found = [
            compare("long", random, real, 512, [], args.repeats),
            compare("long, with a stop string", random, real, 512, [" the"], args.repeats),
            compare("short", {"batch_size": 64}, short, 64, [], args.repeats),  # of the embedded model
        ]
    publish(
        "batching",
        "Is continuous batching faster than static batches, and does it write the same?",
        as_run(),
        [
            "texts",
            "batch size",
            "questions",
            "tokens a text (mean, longest)",
            "same texts",
            "static / continuous",
        ],
        found,
        [
            f"Wall time of both steps, median of {args.repeats} interleaved turns [lowest, highest]; fp32.",
            "A static batch lasts as long as its longest text, and a stop string is only cut out afterwards, "
            "unless all texts of a batch have one. Continuous batching has more work in Python a token.",
            "On a GPU it was not measured.",
        ],
        ["lm-eval", "transformers", "torch"],
        args.save,
    )


def compare(
    name: str,
    args: dict[str, Any],
    asked: list[tuple[str, Any]],
    limit: int,
    until: list[str],
    repeats: int,
) -> list[str]:
    """A row: both ways over the same questions. `until`: stop strings of the answers."""
    lm = SKEExplicitLM(backend="hf-either", dtype="float32", device="cpu", store="none", **args)
    settings = {"do_sample": False, "temperature": 0.0, "until": until, "max_gen_toks": limit}
    requests = []
    for number, (text, doc) in enumerate(asked):
        context = lm.apply_chat_template([{"role": "user", "content": text}])
        request = (context, dict(settings))
        requests.append(Instance("generate_until", doc, request, 0, metadata=("batching", number, 1)))
    texts: dict[bool, list[str]] = {}
    lengths: list[int] = []

    def run(continuous: bool) -> None:
        assert isinstance(lm.inner, EitherHF)
        lm.inner.continuous, lm.pipeline.store = continuous, Store(None, {})
        answers = cast("list[Answer]", lm.generate_until(requests))
        texts[continuous] = [both for a in answers for both in (a.trace["knowledge"], a)]
        lengths[:] = [n for a in answers for n in a.trace["tokens"].values()]

    seconds = interleaved({"static": partial(run, False), "continuous": partial(run, True)}, repeats)
    same = sum(a == b for a, b in zip(texts[False], texts[True], strict=True))
    return [
        name,
        str(args["batch_size"]),
        str(len(requests)),
        f"{sum(lengths) / len(lengths):.0f}, {max(lengths)}",
        f"{same} of {len(texts[True])}",
        "{:.2f} [{:.2f}, {:.2f}]".format(*ratios(seconds, "static", "continuous")),
    ]


if __name__ == "__main__":
    main()
