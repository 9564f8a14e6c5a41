"""What the two steps cost beyond their tokens: an explicit evaluation against the bare engine.

    VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 python benchmarks/floor.py --save
    VLLM_ENABLE_V1_MULTIPROCESSING=0 python benchmarks/floor.py --model FOLDER --dtype bfloat16
    ... --methods direct cot explicit       # all of them with one load, in the same calls of the engine

The floor is vLLM given, in one flat batch, exactly the prompts (both steps', as tokens) that the evaluation
sent, and told to write exactly as many tokens for each. No real run can have that, as the prompts of step 2
are not known before step 1 is done. The evaluation is lm-eval's with `ske_explicit`, from its requests to its
answers, with the store on disk. Same loaded engine, an empty prefix cache before every run. In between stands
what lm-eval's own backend would do: two batches, one after the other (several methods: one after the other,
each with both steps in one call).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from vllm import RequestOutput, SamplingParams, TokensPrompt

from benchmarks.report import VLLM, interleaved, processor, publish, ratios
from benchmarks.toy import toy
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.method import METHODS
from ske_models.pipeline import Pipeline, Scheduler
from ske_models.records import Done, Request
from ske_models.store import Store
from ske_models.together import Together

LAYOUTS = ("single", "multiturn")
LIMIT = 256  # tokens


class Evaluation(SKEExplicitLM):
    """`ske_explicit` that keeps lm-eval's requests, to be asked again."""

    def __init__(
        self, model: Path, layout: str, dtype: str, methods: Sequence[str], limit: int, at_once: int | None
    ) -> None:
        super().__init__(
            backend="vllm",
            layout=layout,
            pretrained=str(model),
            dtype=dtype,
            enforce_eager=True,
            max_num_seqs=at_once,
            max_knowledge_toks=limit,
            store="none",
        )
        self.methods = methods
        self.requests: list[Instance] = []
        self.pipelines: list[Pipeline] = []  # of the last run, by method
        self.folder = Path(tempfile.mkdtemp())
        self.runs = count()
        self.cached = 0  # prompt tokens that the floor's last run found in the cache

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        self.requests = requests
        return super().generate_until(requests, disable_tqdm)

    def again(self, engine: LMEvalEngine, together: bool = True) -> None:
        """The same requests again, nothing stored or cached. together: all methods in the same calls."""
        store = Store(self.folder / f"{next(self.runs)}.sqlite", {})
        self.inner.model.reset_prefix_cache()
        self.pipelines = []
        for method in self.methods:
            self.ask_by(method)
            self.pipeline = replace(self.pipeline, engine=engine, store=store)
            self.pipelines.append(self.pipeline)
            if not together or len(self.methods) == 1:
                self.generate_until(self.requests)
        if together and len(self.methods) > 1:
            items = [self._item(request) for request in self.requests]
            ways = [Scheduler(each, items, each.writes_knowledge, answers=True) for each in self.pipelines]
            Together(ways).run()

    def record(self) -> list[tuple[list[int], int]]:
        """Of one run, the tokens of each prompt and how many were written, in the order of their ends."""
        sent: list[tuple[list[int], int]] = []
        engine = self.inner.model.llm_engine
        original = engine.step

        def step() -> list[RequestOutput]:
            outputs = original()
            sent.extend((output.prompt_token_ids, len(output.outputs[0].token_ids)) for output in outputs)
            return outputs

        engine.step = step
        self.again(self.engine)
        engine.step = original
        return sent

    def floor(self, sent: list[tuple[list[int], int]]) -> None:
        """The bare engine with the same work."""
        self.inner.model.reset_prefix_cache()
        outputs = self.inner.model.generate(
            [TokensPrompt(prompt_token_ids=tokens) for tokens, _ in sent],
            [SamplingParams(temperature=0, max_tokens=length, ignore_eos=True) for _, length in sent],
            use_tqdm=False,
        )
        assert [len(output.outputs[0].token_ids) for output in outputs] == [length for _, length in sent]
        self.cached = sum(output.num_cached_tokens for output in outputs)


class TwoBatches(LMEvalEngine):
    """lm-eval's backend as it is: a list of prompts, and nothing before the last of them is done."""

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        return self.inner.generate_until(
            [Instance("generate_until", {}, (r.prompt, dict(r.settings)), 0) for r in requests],
            disable_tqdm=True,
        )


@contextmanager
def profiled(lm: Evaluation) -> Iterator[Counter[str]]:
    """Seconds by function while it lasts."""
    spent: Counter[str] = Counter()

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started  # type: ignore[assignment]

        return call

    llm = lm.inner.model.llm_engine
    places = {
        "vLLM's `step`": (llm, "step"),
        "vLLM's `add_request`": (llm, "add_request"),
        "chat template": (lm.inner, "apply_chat_template"),
        "tokenizing": (lm.inner, "tok_encode"),
        "store": (Store, "put"),
    }
    before = {name: getattr(owner, function) for name, (owner, function) in places.items()}
    for name, (owner, function) in places.items():
        setattr(owner, function, timed(name, before[name]))
    try:
        yield spent
    finally:
        for name, (owner, function) in places.items():
            setattr(owner, function, before[name])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="An explicit evaluation against the bare engine.")
    parser.add_argument("--layout", choices=LAYOUTS, default="single")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["explicit"])
    parser.add_argument("--tokens", type=int, default=LIMIT, help="that each step may write")
    parser.add_argument("--items", type=int, default=516, help="a sixth of them of each benchmark")
    parser.add_argument("--at-once", type=int, help="texts that the engine writes at a time (max_num_seqs)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="a checkpoint's folder, instead of a toy that is made")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--save", action="store_true", help="write it into benchmarks/results")
    args = parser.parse_args()
    named_model = args.model.name if args.model else None
    of_model, settings = (f"_{named_model}", f" --model {named_model}") if named_model else ("", "")
    settings += f" --dtype {args.dtype}"
    named = "explicit" if args.methods == ["explicit"] else ", ".join(args.methods)
    settings += "" if args.methods == ["explicit"] else f" --methods {' '.join(args.methods)}"
    settings += "" if args.tokens == LIMIT else f" --tokens {args.tokens}"
    settings += "" if args.at_once is None else f" --at-once {args.at_once}"
    model = args.model or toy(Path("runs/toy"))
    lm = Evaluation(model, args.layout, args.dtype, args.methods, args.tokens, args.at_once)
    simple_evaluate(
        lm,
        tasks=["ske_quick"],
        limit=args.items // 6,
        gen_kwargs=f"max_gen_toks={args.tokens}",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    lm.engine.quiet = True
    started = time.perf_counter()
    with profiled(lm) as spent:
        sent = lm.record()
    whole = time.perf_counter() - started
    counts, n = [count for each in lm.pipelines for count in each.counts.values()], len(lm.requests)
    written = sum(count.output_tokens for count in counts)
    prompts, cached = sum(c.prompt_tokens for c in counts), sum(c.cached_tokens for c in counts)
    ways: dict[str, Callable[[], None]] = {named: partial(lm.again, lm.engine)}
    if len(args.methods) == 1:
        ways["two batches"] = partial(lm.again, TwoBatches(lm.inner))
    else:
        ways["one method after the other"] = partial(lm.again, lm.engine, together=False)
    ways["floor"] = partial(lm.floor, sent)
    busy: dict[str, list[float]] = {way: [] for way in ways}  # seconds of the processor
    steps: Counter[str] = Counter()  # of the engine, in one run
    engine = lm.inner.model.llm_engine
    step = engine.step

    def measured(way: str) -> None:
        steps[way] = 0

        def counted() -> list[RequestOutput]:
            steps[way] += 1
            return step()

        engine.step = counted
        started = processor()
        ways[way]()
        busy[way].append(processor() - started)

    seconds = interleaved({way: partial(measured, way) for way in ways}, args.repeats)
    busy = {way: found[1:] for way, found in busy.items()}  # the first turn does not count
    rows = []
    for way in ways:
        spans = [ratios(times, way, "floor") for times in (seconds, busy)]
        cells = [f"**{middle:.2f}** ({low:.2f} to {high:.2f})" for middle, low, high in spans]
        each = statistics.median(seconds[way]) / n * 1000
        rows.append([way, *cells, f"{each:.1f}", f"{steps[way]:,}", f"{steps[way] / steps['floor']:.2f}"])
    parts = [f"{name} {part / n * 1000:.2f}" for name, part in spent.most_common()]
    cache = lm.inner.model.llm_engine.vllm_config.cache_config
    below = len(psutil.Process().children(recursive=True))
    where = f" and of {below} below it, in which vLLM's engine ran" if below else ": vLLM's engine ran in it"
    publish(
        f"floor_{args.layout}{'' if len(args.methods) == 1 else '_methods'}{of_model}",
        f"Wall time of an evaluation by {named} ({args.layout}) over the bare engine's with the same work",
        f"python benchmarks/floor.py --layout {args.layout} --items {args.items} --repeats {args.repeats}"
        f"{settings}",
        ["", "wall time / floor", "processor time / floor", "wall, ms a question", "engine steps", "/ floor"],
        rows,
        [
            "What is compared is said at the top of benchmarks/floor.py. Processor time is that of this "
            f"process{where}. {torch.get_num_threads()} threads; "
            f"load average (15 minutes) {os.getloadavg()[2]:.1f}. Above "
            "the number of cores, others ran at the same time: then the processor time says more than the "
            "wall time. On a GPU a step of the engine takes about as long whether it is full or not: the "
            "number of steps is what stragglers cost there.",
            f"{n} questions of the six benchmarks (`ske_quick`), by {named}, layout `{args.layout}`; "
            f"{named_model or 'the toy model (benchmarks/toy.py, 4 M parameters)'}, {args.dtype}, on "
            f"{lm.inner.model.llm_engine.vllm_config.device_config.device_type}, {written / whole:,.0f} "
            f"tokens written per second in the recorded run; at most {args.tokens} tokens a text, and at "
            f"most {engine.vllm_config.scheduler_config.max_num_seqs} texts at a time; "
            f"{args.repeats} interleaved repeats, median (lowest to highest).",
            f"{prompts:,} prompt tokens, {written:,} written. The prefix cache is on for all, empty before "
            f"each run, and holds {cache.num_gpu_blocks * cache.block_size:,} tokens in blocks of "
            f"{cache.block_size}: the evaluation found {cached / prompts:.0%} of its prompt tokens in it, "
            f"the floor {lm.cached / prompts:.0%}.",
            f"Profile of one run, {whole / n * 1000:.1f} ms a question: {', '.join(parts)}, all else "
            f"{(whole - sum(spent.values())) / n * 1000:.2f}.",
        ],
        ["lm-eval", VLLM, "torch", "transformers"],
        args.save,
    )


if __name__ == "__main__":
    main()
