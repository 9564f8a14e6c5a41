"""What the layout and vLLM's prefix cache save: prompt tokens computed against prompt tokens sent.

    VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 python benchmarks/layouts.py --save
    ... python benchmarks/layouts.py --model embedded          # on TinyWorld, with a model that was trained

An explicit evaluation by lm-eval with `ske_explicit`, layouts `single` and `multiturn`, with the engine's
prefix cache and without it (`skip_reading_prefix_cache`), in one loaded engine. It counts the tokens itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from vllm import RequestOutput

from benchmarks.report import VLLM, publish
from benchmarks.toy import toy
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.method import Layout
from ske_models.records import Done, Request, StepCounts
from ske_models.store import Store

LIMIT = 256  # tokens that either step may write
BLOCK = 32  # tokens: the least that vLLM has for the CPU, where its default is 128; on GPUs that is 16
Way = tuple[Layout, bool]  # layout; with the cache
WAYS: tuple[Way, ...] = (("single", False), ("single", True), ("multiturn", False), ("multiturn", True))


class WithoutCache(LMEvalEngine):
    """Every prompt is computed from its first token."""

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        """As the pipeline's engine."""

        def off(requests: Sequence[Request]) -> list[Request]:
            skip = {"skip_reading_prefix_cache": True}
            return [replace(request, settings={**request.settings, **skip}) for request in requests]

        return super().generate(off(requests), lambda index, text: off(done(index, text)))


class Evaluation(SKEExplicitLM):
    """`ske_explicit` that keeps lm-eval's requests, to be asked again."""

    def __init__(self, **model: Any) -> None:
        super().__init__(
            backend="vllm",
            layout="multiturn",
            dtype="float32",
            enforce_eager=True,
            block_size=BLOCK,
            disable_log_stats=False,
            max_knowledge_toks=LIMIT,
            store="none",
            **model,
        )
        self.requests: list[Instance] = []
        self.counts: dict[Way, dict[str, StepCounts]] = {}
        self.hits: dict[Way, int] = {}
        self.engines = {
            True: LMEvalEngine(self.inner, quiet=True),
            False: WithoutCache(self.inner, quiet=True),
        }

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        self.requests = requests
        return super().generate_until(requests, disable_tqdm)

    def again(self, way: Way) -> None:
        """The same requests again: nothing stored, nothing cached."""
        layout, cache = way
        self.ask_by("explicit")
        engine = self.engines[cache]
        self.pipeline = replace(self.pipeline, layout=layout, engine=engine, store=Store(None, {}))
        self.inner.model.reset_prefix_cache()
        before = self._hits()
        self.generate_until(self.requests)
        self.counts[way], self.hits[way] = self.pipeline.counts, self._hits() - before

    def _hits(self) -> int:
        """Of the engine's own counter, over its lifetime."""
        return sum(m.value for m in self.inner.model.get_metrics() if m.name == "vllm:prefix_cache_hits")

    def retokenized(self) -> str:
        """How much of step 1 the prompts of step 2 (`multiturn`) still begin with, token by token.

        They are made of text. The tokens that the model wrote may be others than those of the text.
        """
        outputs: list[RequestOutput] = []
        engine = self.inner.model.llm_engine
        original = engine.step

        def step() -> list[RequestOutput]:
            outputs.extend(new := original())
            return new

        engine.step = step
        self.again(("multiturn", True))
        engine.step = original
        changed = lost = whole = 0
        eos = self.inner.eot_token_id
        prompts = {tuple(output.prompt_token_ids): output.outputs[0].token_ids for output in outputs}
        for first, written in prompts.items():
            for second in prompts:
                if len(second) > len(first) and second[: len(first)] == first:
                    tokens = [*first, *(token for token in written if token != eos)]
                    same = next(
                        (place for place, token in enumerate(tokens) if second[place] != token), len(tokens)
                    )
                    changed += same < len(tokens)
                    lost += len(tokens) - same
                    whole += len(tokens)
                    break
        return f"{changed} of {len(self.requests)} questions, {lost / whole:.1%} of the tokens of step 1"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Prompt tokens computed, by layout and prefix cache.")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--model", default="runs/toy", help="folder, made if it is not there; or: embedded")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/layouts.md")
    args = parser.parse_args()
    embedded = args.model == "embedded"
    lm = Evaluation(**({} if embedded else {"pretrained": str(toy(Path(args.model)))}))
    task = "ske_world" if embedded else "ske_mmlu"
    simple_evaluate(
        lm,
        tasks=[task],
        limit=args.items,
        gen_kwargs=f"max_gen_toks={LIMIT}",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    retokenized = lm.retokenized()
    for way in WAYS:
        lm.again(way)
    plain = lm.counts["single", False]["answer"].prompt_tokens
    rows = []
    for way in WAYS:
        cells = [way[0], "on" if way[1] else "off"]
        for count in lm.counts[way].values():
            cells += [f"{count.prompt_tokens:,}", f"{count.prompt_tokens - count.cached_tokens:,}"]
        answer = lm.counts[way]["answer"]
        cells.append(f"{(answer.prompt_tokens - answer.cached_tokens) / plain - 1:+.0%}")
        rows.append(cells)
    told = [sum(count.cached_tokens for count in lm.counts[way].values()) for way in WAYS]
    publish(
        "layouts",
        "Prompt tokens that vLLM computes, by layout and prefix cache",
        f"python benchmarks/layouts.py --items {args.items}" + (" --model embedded" if embedded else ""),
        [
            "layout",
            "cache",
            "step 1, sent",
            "computed",
            "step 2, sent",
            "computed",
            "step 2 against `single`, off",
        ],
        rows,
        [
            f"`{task}`, {len(lm.requests)} questions, "
            + (
                "the embedded model"
                if embedded
                else "the toy model (benchmarks/toy.py, 4 M parameters, fp32)"
            )
            + f"; at most {LIMIT} tokens a text; blocks of {BLOCK} tokens; the cache is empty before a run.",
            f"Computed: without what the engine reports as cached, request by request ({told} tokens); its "
            f"counter of prefix cache hits, over the same runs: {[lm.hits[way] for way in WAYS]}.",
            "Step 2 of `multiturn` is rendered from the text of step 1 and tokenized again, so that a killed "
            "run, an edited knowledge and another backend get the same prompt. Tokens other than those that "
            f"step 1 wrote: {retokenized}.",
        ],
        ["lm-eval", VLLM, "torch", "transformers"],
        args.save,
    )


if __name__ == "__main__":
    main()
