"""The answer key of existing questions, in the forms that data sets have it.

    from training.data.keys import keyed
    keyed("Which gas do plants take in?", ["oxygen", "carbon dioxide"], 1)

ARC and OpenBookQA name the right option by its label, others by its place or its text; C-Eval and WinoGrande
have a column per option, SciQ one per wrong option; GSM8K writes the answer behind "####". A question gets
the form that the evaluation's tasks have (`ske_tasks/six/rows.py`): options in brackets, and how the answer
must end.
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
    answer: the label, place (from 0) or text of the right option, sought in this order; without options the
    answer, all of them in a list, or a text or chat that ends in "#### ANSWER".
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
    questions, answers = columns[source.column], columns[source.answer]
    apart = None
    if isinstance(source.choices, list):
        apart = _from_columns(source.choices, columns, [_said(answer, "assistant") for answer in answers])
    for i, question in enumerate(questions):
        answer, choices = answers[i], None
        if apart is not None:
            texts, answer = apart[i]
            random.Random(digest([question, *map(str, texts)])).shuffle(texts)
            choices = {"text": texts, "label": texts}  # by now the answer is a text, and no place or letter
        elif isinstance(source.choices, str):
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


def _from_columns(
    names: list[str], columns: Mapping[str, Sequence[Any]], answers: list[Any]
) -> list[tuple[list[Any], Any]]:
    """(options, text of the right one) of each row, where every option has a column; None if it is unknown.

    An answer is the text of an option, or stands for a column (`_schemes`); that is told from all rows, since
    "2" may be either. Where most rows have neither, the columns are those of wrong options, as in SciQ: then
    an answer is the text of the right one, which is put behind them.
    """
    rows = [list(texts) for texts in zip(*(columns[name] for name in names), strict=True)]
    by_text = [_texts_like(answer, texts) for answer, texts in zip(answers, rows, strict=True)]
    by_place = max(
        ([places.get(_label(answer) or None) for answer in answers] for places in _schemes(names, answers)),
        key=lambda found: sum(place is not None for place in found),  # the first of equal ones
    )
    known = [bool(same) or place is not None for same, place in zip(by_text, by_place, strict=True)]
    others_too = 2 * sum(known) < sum(bool(_label(answer)) for answer in answers)
    places_first = sum(place is not None for place in by_place) > sum(map(bool, by_text))
    found = []
    for answer, texts, same, place in zip(answers, rows, by_text, by_place, strict=True):
        if same and not (places_first and place is not None):
            found.append((texts, answer))
        elif others_too:
            found.append(([*texts, answer], answer) if _label(answer) else (texts, None))
        else:
            found.append((texts, None if place is None else texts[place]))
    return found


def _schemes(names: list[str], answers: list[Any]) -> list[dict[str | None, int]]:
    """How an answer may stand for a column: what it is -> the column's place.

    The name of the column, or what tells it from the others' ("1" for option1); a letter; a place from 0, or
    from 1. A number that is no text is a place from 0 before it is anything else.
    """
    shortest = min(map(len, names))
    start = next((k for k in range(shortest) if len({name[k] for name in names}) > 1), 0)
    every = range(len(names))
    zero: dict[str | None, int] = {str(i): i for i in every}
    others: list[dict[str | None, int]] = [
        {name: i for i, name in enumerate(names)},
        {name[start:]: i for i, name in enumerate(names)},
        {letter_of(i): i for i in every},
        {letter_of(i).lower(): i for i in every},
        zero,
        {str(i + 1): i for i in every},
    ]
    return [zero, *others] if not any(isinstance(answer, str) for answer in answers) else others


def _label(value: Any) -> str:
    """What a label is compared by; empty if it is none."""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _texts_like(answer: Any, texts: list[Any]) -> list[Any]:
    return [text for text in texts if isinstance(text, str) and _label(answer) == text.strip() != ""]


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
    """The place of the right option: by the given labels, else as a place, by a letter, by its text."""
    wanted = _label(right)
    if not wanted:
        return None
    given = labels if isinstance(labels, list) else None
    if isinstance(right, int) and wanted not in map(_label, given or ()):
        return right if 0 <= right < len(texts) else None
    for names in (given or [letter_of(i) for i in range(len(texts))], texts):
        found = [i for i, name in enumerate(names) if _label(name) == wanted]
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
