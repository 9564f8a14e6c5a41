"""The answer key of existing questions, in the forms that data sets have it.

    from training.data.keys import keyed
    keyed("Which gas do plants take in?", ["oxygen", "carbon dioxide"], 1)

ARC and OpenBookQA name the right option by its label, others by its place or its text; SciQ has the wrong
options in columns of their own; GSM8K writes the answer behind "####". A question gets the form that the
evaluation's tasks have (`ske_tasks/six/rows.py`): options in brackets, and how the answer must end.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ske_models.files import Row
from ske_models.fingerprint import digest
from ske_tasks.answers.extract import extract, is_right
from ske_tasks.six.rows import letter_of, make_row, options_of
from training.data.sources import ROLES
from training.recipe import DatasetQuestions

KEY = ("kind", "letters", "options", "gold")  # what of a row `ske_tasks.answers.extract.is_right` needs
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


def keyed(question: Any, choices: Any, answer: Any) -> Row | None:
    """{"question" (with its options), "stem", "ending", "key"}; None if the key cannot be read.

    question: a text, or a chat, of which the last user's turn is the question.
    choices: texts, or {"text": texts, "label": labels}, or None: the answer is a number or a few words.
    answer: the place, label or text of the right option; without options the answer, all of them in a list,
    or a text or chat that ends in "#### ANSWER".
    """
    stem, right = _said(question, "user"), _said(answer, "assistant")
    if not isinstance(stem, str) or not stem.strip():
        return None
    if choices is None:
        return _open(stem, right)
    labels = choices.get("label") if isinstance(choices, Mapping) else None
    texts = choices.get("text") if isinstance(choices, Mapping) else choices
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        return None
    place = _place(right, texts, labels)
    if place is None:
        return None
    letters = [letter_of(i) for i in range(len(texts))]
    row = make_row("", "", "", "choice", stem, [letters[place]], letters, [text.strip() for text in texts])
    return _row(row)


def candidates(source: DatasetQuestions, columns: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    """The rows of a source in its order, with "id" and "source"; "key" is None where it cannot be read.

    columns: the values of every column that the source names.
    """
    assert source.answer is not None
    for i, question in enumerate(columns[source.column]):
        answer = columns[source.answer][i]
        choices = None
        if isinstance(source.choices, list):
            choices = [columns[name][i] for name in source.choices]
            if answer not in choices:  # SciQ: the columns of wrong options, and one of the right one
                choices.append(answer)
            random.Random(digest([question, *map(str, choices)])).shuffle(choices)
        elif source.choices is not None:
            choices = columns[source.choices][i]
        row = keyed(question, choices, answer)
        if row is None:
            text = _said(question, "user")
            row = {"question": text.strip() if isinstance(text, str) else "", "key": None}
        yield {"id": digest(row["question"]), **row, "source": source.label}


def right(key: Mapping[str, Any], text: str, truncated: bool = False) -> tuple[str | None, bool]:
    """(the answer that a text states, or None; whether it is right)."""
    stated = extract(text, key["kind"], options_of(key), truncated)
    return stated, is_right(stated, key)


def shown(key: Mapping[str, Any], answer: str) -> str:
    """An answer as a critique names it: an option with its text."""
    option = options_of(key).get(answer)
    return answer if option is None else f"({answer}) {option}"


def _said(value: Any, role: str) -> Any:
    """Of a chat the last turn of a role; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        turns = [turn for turn in value if ROLES.get(str(turn.get("role") or turn.get("from"))) == role]
        return (turns[-1].get("content") or turns[-1].get("value")) if turns else None
    return value


def _open(stem: str, right: Any) -> Row | None:
    aliases = [right] if isinstance(right, str | int | float) and not isinstance(right, bool) else right
    if not isinstance(aliases, list) or not aliases:
        return None
    texts = [str(alias).rpartition("####")[2].strip() for alias in aliases]
    if not all(texts):
        return None
    number = texts[0].replace(",", "").removeprefix("$")
    if len(texts) == 1 and _NUMBER.fullmatch(number):
        return _row(make_row("", "", "", "number", stem, [number]))
    return _row(make_row("", "", "", "open", stem, texts))


def _place(right: Any, texts: list[str], labels: Any) -> int | None:
    """The place of the right option."""
    if isinstance(right, int) and not isinstance(right, bool):
        return right if 0 <= right < len(texts) else None
    if not isinstance(right, str):
        return None
    names = labels if isinstance(labels, list) else [letter_of(i) for i in range(len(texts))]
    for these in (names, texts):
        found = [i for i, name in enumerate(these) if str(name).strip() == right.strip()]
        if len(found) == 1 and found[0] < len(texts):
            return found[0]
    return None


def _row(row: Mapping[str, Any]) -> Row:
    return {
        "question": row["ske_question"],
        "stem": row["ske_stem"],
        "ending": row["ske_ending"],
        "key": {name: row[name] for name in KEY},
    }
