"""Loads the six benchmarks for lm-eval: MMLU, AGIEval, ARC-E, ARC-C, BBH, NQ.

    lm_eval --model ske_explicit --model_args pretrained=...,backend=hf --tasks ske
    python -m ske_tasks.six.load      # counts, and what was repaired or left unscored

The task files `ske_tasks/tasks/ske_*.yaml` call `load`; the rows are described in `ske_tasks.six.rows`.
"""

import logging
import random
from collections import defaultdict
from functools import cache
from typing import Any

from datasets import Dataset, DatasetDict, Features, Value
from lm_eval.api.samplers import ContextSampler

from ske_models.errors import UserError
from ske_tasks.six.hub import Read
from ske_tasks.six.prepared import kept
from ske_tasks.six.rows import Row
from ske_tasks.six.sources import READERS, REPOSITORIES

log = logging.getLogger(__name__)

QUICK_SIZE = 100
QUICK_SEED = 20250219

_TEXT = Value("string")
_LISTS = ("letters", "options", "gold")
ROW = Features({name: [_TEXT] if name in _LISTS else _TEXT for name in Row.__annotations__})


@cache
def read(benchmark: str) -> Read:
    """Rows and few-shot examples of one benchmark, read once per process.

    Raises:
        UserError: no such benchmark, or its data is not available.
    """
    if benchmark not in READERS:
        raise UserError(f"no benchmark {benchmark!r}; there are {', '.join(READERS)}")
    return READERS[benchmark]()


@cache
def prepared(benchmark: str) -> DatasetDict:
    """The same as datasets, from disk where it was read before: `test`, `quick` (the sample), `shots`.

    Raises as `read`.
    """

    def make() -> DatasetDict:
        found = read(benchmark)
        rows: dict[str, list[Any]] = {
            "test": found.test,
            "quick": quick_sample(found.test),
            "shots": found.shots,
        }
        splits = {
            split: Dataset.from_dict({name: [row[name] for row in of] for name in ROW}, ROW)
            for split, of in rows.items()
        }
        unscored = Dataset.from_dict({"line": found.unscored}, Features(line=_TEXT))
        return DatasetDict(**splits, unscored=unscored)

    found = kept(benchmark, REPOSITORIES.get(benchmark, ()), make)
    for line in found["unscored"]["line"]:
        log.warning("left out: %s", line)
    return found


def load(benchmark: str, quick: bool = False, **_: Any) -> DatasetDict:
    """The `custom_dataset` of our tasks: one split, `test`.

    Args:
        benchmark: mmlu, agieval, arc_e, arc_c, bbh or nq.
        quick: only the fixed sample of `QUICK_SIZE` rows.
        **_: lm-eval passes the whole metadata, `--model_args` included.

    Raises:
        UserError: the data is not available, or has other columns than expected.
    """
    return DatasetDict(test=prepared(benchmark)["quick" if quick else "test"])


def quick_sample(rows: list[Row], size: int = QUICK_SIZE, seed: int = QUICK_SEED) -> list[Row]:
    """A fixed sample of `size` rows, stratified by subset, in the rows' own order.

    Every subset gets the same number, give or take one: the benchmarks' score is the mean over subsets, so
    equal shares estimate it with less noise than shares by size would.
    """
    draw = random.Random(seed)
    by_subset: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_subset[row["subset"]].append(place)
    queues = [draw.sample(places, len(places)) for places in by_subset.values()]
    draw.shuffle(queues)
    chosen: list[int] = []
    while len(chosen) < min(size, len(rows)):
        for queue in queues:
            if queue and len(chosen) < size:
                chosen.append(queue.pop())
    return [rows[place] for place in sorted(chosen)]


def shots(test: Dataset) -> list[Row]:
    """The few-shot examples of the benchmark of `test` (lm-eval's `fewshot_config.process_docs`)."""
    return prepared(test[0]["benchmark"])["shots"].to_list()


class SubsetSampler(ContextSampler):
    """Few-shot examples of the question's own subset: the first n in published order.

    lm-eval passes `eval_doc` only when the shots' split is named `test`, which is why the task files name it
    so; `shots` replaces that split's rows.
    """

    def sample(
        self, n: int, eval_doc: dict[str, Any] | None = None, df: Any = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Raises UserError when the subset has fewer than `n` examples of its own."""
        if not eval_doc:
            raise UserError("few-shot examples are drawn by the question's subset, and no question was given")
        pool = [shot for shot in self.df if shot["subset"] == eval_doc["subset"]]
        if len(pool) < n:
            raise UserError(
                f"{eval_doc['benchmark']} has {len(pool)} few-shot examples of its own for "
                f"{eval_doc['subset']}, {n} were requested; lower --num_fewshot"
            )
        return pool[:n]


def main() -> None:
    """Print the counts of all six."""
    for benchmark in READERS:
        found = read(benchmark)
        subsets = len({row["subset"] for row in found.test})
        print(f"{benchmark:8} {len(found.test):6} questions, {subsets:2} subsets, {len(found.shots):3} shots")
        for line in [*found.unscored, *found.repaired]:
            print(f"         {line}")


if __name__ == "__main__":
    main()
