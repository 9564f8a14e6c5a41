"""TinyWorld for OpenCompass: the dataset and its evaluator; eval_configs/tinyworld.py configures them.

    opencompass eval_configs/ske.py

The questions are those of the lm-eval task `ske_world` (ske_tasks/world/task.py), or the first of each kind.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from datasets import Dataset
from opencompass.datasets.base import BaseDataset
from opencompass.openicl.icl_evaluator import BaseEvaluator
from opencompass.registry import ICL_EVALUATORS, LOAD_DATASET

from ske_models import embedded
from ske_tasks.world import default_world, oracle, questions
from ske_tasks.world.task import MULTI_HOP, SIZES, to_doc


def require_its_model() -> None:
    """Raises UserError if the embedded model has read about another world than that of SKE_WORLD_SEED."""
    embedded.verify(embedded.path(), default_world().hash)


@LOAD_DATASET.register_module()
class TinyWorldDataset(BaseDataset):
    """Questions about TinyWorld's people."""

    @staticmethod
    def load(path: str, size: int) -> Dataset:
        """`size` questions of the split `path` ("test", "dev"), as many of each kind as their share there."""
        share = size / sum(SIZES[path].values())
        rows: list[dict[str, Any]] = []
        by_kind: dict[str, list[questions.Question]] = defaultdict(list)
        for row in questions.sample(default_world(), path, SIZES[path], seed=0):
            by_kind[row.kind].append(row)
        for kind, found in by_kind.items():
            rows += [to_doc(row) for row in found[: round(SIZES[path][kind] * share)]]
        return Dataset.from_list(rows)


@ICL_EVALUATORS.register_module()
class TinyWorldEvaluator(BaseEvaluator):
    """Exact answers in percent: all, of each kind, and of the open questions of 2 to 4 hops."""

    def score(self, predictions: list[str], references: list[str], test_set: Dataset) -> dict[str, Any]:
        said = [oracle.answer_in(text) for text in predictions]
        right: dict[str, list[bool]] = defaultdict(list)
        for answer, gold, kind in zip(said, references, test_set["kind"], strict=True):
            for name in ("accuracy", kind, *(("multi_hop",) if kind in MULTI_HOP else ())):
                right[name].append(answer == gold)
        scores = {name: 100 * sum(found) / len(found) for name, found in right.items()}
        details = [
            {"pred": answer, "answer": gold, "correct": answer == gold}
            for answer, gold in zip(said, references, strict=True)
        ]
        return scores | {"unanswered": 100 * said.count(None) / len(said), "details": details}
