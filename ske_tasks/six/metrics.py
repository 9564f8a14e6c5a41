"""What lm-eval calls with a model's text: the verdict, the counts, and the trace for the logged sample.

The task files `ske_tasks/tasks/ske_*.yaml` name `process_results` and the aggregations:

    lm_eval --model ske_explicit --model_args pretrained=... --tasks ske --log_samples --output_path out
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ske_tasks.answers
from ske_models import ends
from ske_models import reply as thoughts
from ske_models.fingerprint import digest
from ske_models.records import Answer
from ske_tasks.answers.extract import contains_alias, extract, is_right
from ske_tasks.knowledge_checks import check, flags
from ske_tasks.six.rows import options_of

# Of the code that reads answers, and logged with every sample: tells runs apart that were read differently.
_FILES = [
    *sorted(Path(ske_tasks.answers.__path__[0]).glob("*.py")),
    Path(ends.__file__),
    Path(thoughts.__file__),
]
EXTRACTION = digest("".join(file.read_text("utf-8") for file in _FILES))


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    """Score one answer; lm-eval logs `doc`, so prediction and trace are put there.

    Args:
        doc: a row (`ske_tasks.six.rows.Row`).
        results: one text; a `ske_models.records.Answer` when it comes from `ske_explicit`.

    Returns:
        `acc`: (subset, right), averaged by `macro`; `acc_micro`: 0 or 1; `unanswered`: 1 if no answer was
        found; `truncated`: 1 if a step ran into its token limit (only where the backend tells); NQ also
        `acc_substring`; where there is knowledge, what is wrong with it (`ske_tasks.knowledge_checks.KINDS`).
    """
    text = results[0]
    cut = isinstance(text, Answer) and text.trace["truncated"]["answer"] is True
    prediction = extract(text, doc["kind"], options_of(doc), truncated=cut)
    right = is_right(prediction, doc)
    doc["prediction"] = prediction
    doc["extraction"] = EXTRACTION
    scores: dict[str, Any] = {
        "acc": (doc["subset"], int(right)),
        "acc_micro": int(right),
        "unanswered": int(prediction is None),
    }
    if doc["kind"] == "open":
        scores["acc_substring"] = int(contains_alias(prediction, doc["gold"]))
    if isinstance(text, Answer):
        doc["ske"] = text.trace
        known = [cut for cut in text.trace["truncated"].values() if cut is not None]
        if known:
            scores["truncated"] = int(any(known))
        if text.trace["knowledge"] is not None:
            doc["ske"]["checks"] = check(text.trace["knowledge"], doc, text.trace["truncated"]["knowledge"])
            scores |= flags(doc["ske"]["checks"])
    return scores


def macro(scores: Iterable[tuple[str, int]]) -> float:
    """Mean over subsets of the share of right answers: what OpenCompass prints for MMLU, AGIEval and BBH."""
    by_subset: dict[str, list[int]] = defaultdict(list)
    for subset, right in scores:
        by_subset[subset].append(right)
    return sum(sum(rights) / len(rights) for rights in by_subset.values()) / len(by_subset)


def count(flags: Iterable[int]) -> int:
    """How many questions it holds for."""
    return sum(flags)
