"""What an item costs us beside the engine, in time and memory, and whether that grows with their number.

    HF_ENDPOINT=... python benchmarks/scale.py [--save] [--largest 1000000]
    HF_ENDPOINT=... python benchmarks/scale.py --profile 10000      # where the time goes

`ske_explicit` runs both steps of `explicit` over an lm-eval backend that writes at once: transformers' one
with its tokenizer and template, but without the model's forward passes. Prompts are the benchmarks' own
questions, numbered, so that no two are the same; texts have 100 words. Measured is the whole of
`generate_until`: rendering, keys, the store in a file, counts, traces. Every run has a process of its own.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from benchmarks.report import as_run, publish
from benchmarks.toy import rows, toy
from ske_models.lm_eval.hf import ContinuousHF
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.records import Completion, Done, Request
from ske_tasks.six.rows import Row, prompt

SIZES = (1_000, 10_000, 100_000)
ONCE = 100_000  # sizes from here on are measured once: the clock's noise evens out over so many
DISTINCT = 1_000  # questions, which are numbered, so that the mix is the same at every size
LENGTH = 100  # words of a text
LONGEST = 32_768  # tokens of the model's length; a prompt that may not fit is tokenized to see
WORDS = "what the question needs to be answered is written here in words that a tokenizer knows well ".split()
TEXT = " ".join(islice(cycle(WORDS), LENGTH))


@register_model("instant-batches")
class InstantBatchesLM(HFLM):
    """lm-eval's transformers backend, but every text is there at once. How long it is, it does not say."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        texts = []
        for request in requests:
            prompt, settings = request.args
            texts.append(text_for(prompt))
            self.cache_hook.add_partial("generate_until", (prompt, settings), texts[-1])
        return texts


@register_model("instant")
class InstantLM(ContinuousHF):
    """The same, as the backends that take requests while they run; those say how long a text is."""

    def suits(self, requests: Sequence[Request]) -> bool:
        return True

    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        waiting, texts = deque(requests), list[str]()
        while waiting:
            reply = Completion(text_for(waiting.popleft().prompt))
            reply.tokens, reply.prompt_tokens, reply.truncated = LENGTH, LENGTH, False
            texts.append(reply)
            waiting += done(len(texts) - 1, reply)
        return texts


def text_for(prompt: str) -> str:
    """Another text for (almost) every prompt, of words that a tokenizer knows."""
    return f"{zlib.crc32(prompt.encode())} {TEXT}"


def questions(n: int, folder: Path) -> list[Row]:
    """`n` docs of the six benchmarks, each with a number, so that every prompt is another one."""
    real: list[Row] = json.loads((folder / "rows.json").read_text())
    return [
        {**row, "ske_question": f"{i}. {row['ske_question']}"} for i, row in enumerate(islice(cycle(real), n))
    ]


def measure(backend: str, n: int, folder: Path, profile: bool = False) -> dict[str, float]:
    """{"ms", "cpu", "template", "ours", "kb", "rendered"}: milliseconds, KB and renderings per item.

    ms: wall time; cpu: processor time; template: of that in transformers' `apply_chat_template`, which
    renders the model's own template, `rendered` times; ours: all else of it. Memory is the growth of the
    process to its peak, from when the harness' requests are there.
    """
    lm = SKEExplicitLM(
        backend=backend,
        pretrained=str(toy(folder / "toy")),
        device="cpu",
        dtype="float32",
        max_length=LONGEST,
        store=str(folder / f"{os.getpid()}.sqlite"),
    )
    settings = {"do_sample": False, "temperature": 0.0, "until": [], "max_gen_toks": 1024}
    requests = []
    for number, doc in enumerate(questions(n, folder)):
        context = lm.apply_chat_template([{"role": "user", "content": prompt(doc)}])
        request = (context, dict(settings))
        requests.append(Instance("generate_until", dict(doc), request, 0, metadata=("scale", number, 1)))
    render, rendering, rendered = lm.inner.tokenizer.apply_chat_template, 0.0, 0

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal rendering, rendered
        began = time.thread_time()
        text = render(*args, **kwargs)
        rendering += time.thread_time() - began
        rendered += 1
        return text

    lm.inner.tokenizer.apply_chat_template = timed
    with cProfile.Profile(time.process_time) if profile else nullcontext() as profiler:
        before = _memory("VmRSS")
        started, started_cpu = time.perf_counter(), time.process_time()
        texts = lm.generate_until(requests)
        seconds, cpu = time.perf_counter() - started, time.process_time() - started_cpu
        peak = _memory("VmHWM")
    if profiler:
        profiled = pstats.Stats(profiler)
        for order in ("cumulative", "tottime"):
            profiled.sort_stats(order).print_stats(40)
    assert len(texts) == lm.pipeline.counts["answer"].generated == n  # nothing is shared, nothing reused
    each = {"ms": seconds, "cpu": cpu, "template": rendering, "ours": cpu - rendering}
    found = {name: 1000 * value / n for name, value in each.items()}
    return found | {"kb": (peak - before) / n, "rendered": rendered / n}


def _memory(name: str) -> float:
    """KB, of this process. (`ru_maxrss` would begin with what the parent had.)"""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) * 1.024


def measured(backend: str, n: int, folder: Path) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", backend, str(n), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for store in folder.glob("*.sqlite*"):
        store.unlink()
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/scale.md")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--largest", type=int, metavar="N", help="one size more")
    parser.add_argument(
        "--profile", type=int, metavar="N", help="show where the time of N items goes, and stop"
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        backend, n, folder = args.one
        print(json.dumps(measure(backend, int(n), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toy(folder / "toy")
        (folder / "rows.json").write_text(json.dumps(rows(DISTINCT)))
        if args.profile:
            measure("instant", args.profile, folder, profile=True)
            return
        sizes = [*SIZES, args.largest] if args.largest else [*SIZES]
        runs = [("instant", n) for n in sizes] + [("instant-batches", SIZES[1])]
        found: dict[tuple[str, int], list[dict[str, float]]] = {run: [] for run in runs}
        for turn in range(args.repeats):
            for run in runs[:: 1 if turn % 2 else -1]:
                if not found[run] or run[1] < ONCE:
                    found[run].append(measured(*run, folder))
                    print(run, found[run][-1], file=sys.stderr, flush=True)
    says = {"instant": "says how long a text is", "instant-batches": "does not: texts are tokenized to count"}
    rows_ = []
    for backend, n in runs:
        each = found[backend, n]
        row = [
            f"{n:,}",
            says[backend],
            *(_median([one[name] for one in each]) for name in ("ms", "cpu", "template", "ours", "kb")),
        ]
        rows_.append(row)
    publish(
        "scale",
        "What does an item cost beside the engine, and does it grow?",
        as_run(),
        [
            "items",
            "the engine",
            "ms per item",
            "on the processor",
            "of that the chat template",
            "all else",
            "KB per item",
        ],
        rows_,
        [
            f"From {sizes[-2]:,} to {sizes[-1]:,} items: {_growth(found, sizes):.2f} KB more memory each.",
            f"Median of {args.repeats} interleaved runs [lowest, highest], one from {ONCE:,} items on; each "
            f"in its own process. The mix of questions ({DISTINCT:,}, numbered) is the same at every size.",
            "KB: growth of the process to its peak while the items run, their answers included.",
            "Chat template: the toy model's, rendered by transformers' `apply_chat_template`: "
            f"{found[runs[0]][0]['rendered']:.0f} times per item, which is once for each conversation.",
        ],
        ["lm-eval", "transformers", "jinja2"],
        args.save,
    )


def _growth(found: dict[tuple[str, int], list[dict[str, float]]], sizes: Sequence[int]) -> float:
    """KB per item that the largest run needs more than the one before it."""
    kb = [n * statistics.median(one["kb"] for one in found["instant", n]) for n in sizes[-2:]]
    return (kb[1] - kb[0]) / (sizes[-1] - sizes[-2])


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


if __name__ == "__main__":
    main()
