"""Twelve questions for the tests' own lm-eval tasks, the same for every output type."""

from __future__ import annotations

from typing import Any

import datasets

ANIMALS = ["cat", "dog", "owl", "bee", "cow", "fox", "hen", "pig", "rat", "ant", "elk", "bat"]
LEGS = [4, 4, 2, 6, 4, 4, 2, 4, 4, 6, 4, 2]


def load(**_: Any) -> datasets.DatasetDict:
    """Splits `train` (4 other rows, for few-shot) and `test` (12 rows)."""
    rows: list[dict[str, Any]] = [
        {"question": f"How many legs has a {animal}?", "options": ["2", "4", "6", "8"], "answer": str(legs)}
        for animal, legs in zip(ANIMALS, LEGS, strict=True)
    ]
    shots = [row | {"question": row["question"].replace(" a ", " another ")} for row in rows[:4]]
    return datasets.DatasetDict(
        train=datasets.Dataset.from_list(shots), test=datasets.Dataset.from_list(rows)
    )


def ours(**_: Any) -> datasets.DatasetDict:
    """The same rows with the fields of our own tasks."""
    fields = {"ske_ending": "End with: The answer is N."}
    return load().map(lambda row: fields | {"ske_question": row["question"]})
