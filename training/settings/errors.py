"""What is wrong in a recipe, as one line: file, line of the file, field, and what to write.

explain("my.yaml", content, lines, problem)     # a problem as pydantic reports it
"""

from __future__ import annotations

import re
from typing import Any

from ske_models.yaml_data import Lines
from training.settings.secret import is_secret

SHOWN = 80  # characters of a wrong value


def explain(where: str, content: Any, lines: Lines, problem: Any, listed: str = "training/recipe.py") -> str:
    """One line about a problem of `content`. `lines` may be empty: then no line is named.

    listed: the file that lists the settings.
    """
    place: tuple[str | int, ...] = ()
    below = content
    for key in problem["loc"]:
        # pydantic also names the member of a union, which is no key of the file
        if _has(below, key):
            below = below[key]
            place = (*place, key)
        elif problem["type"] == "missing" and key == problem["loc"][-1]:
            place = (*place, key)
    line = next((lines[place[:k]] for k in range(len(place), -1, -1) if place[:k] in lines), None)
    start = where if line is None else f"{where}, line {line}"
    field = ".".join(map(str, place)) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"{start}: {field[:SHOWN]} is no setting; remove it ({listed} lists them all)"
    if problem["type"] == "missing":
        return f"{start}: {field} is missing; add it ({listed} says what it is)"
    return f"{start}: {field}: {_message(place, problem)}"


def _has(content: Any, key: str | int) -> bool:
    if isinstance(content, list):
        return isinstance(key, int) and key < len(content)
    return isinstance(content, dict) and key in content


def _message(place: tuple[str | int, ...], problem: Any) -> str:
    value, kind = problem["input"], problem["type"]
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        message = "letters, digits, blanks and . _ + - are possible, and a letter or digit first"
        if "x7f" in problem["ctx"]["pattern"]:
            message = "a line of text is needed"
    given = "" if isinstance(value, dict | list) else f", not {_short(value)}"
    if kind == "value_error" or any(is_secret(str(key)) for key in place):
        given = ""  # the message says it, or it is a secret
    if kind == "float_type" and re.fullmatch(r"\d+e-?\d+", str(value)):
        given += " (which is text in YAML: write 4.0e-4 for 4e-4)"
    return message[0].lower() + message[1:] + given


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text):,} characters)"
