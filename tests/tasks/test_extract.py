"""The extraction against model outputs written by hand, with the verdict that each deserves."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from ske_tasks.answers.equality import same
from ske_tasks.answers.extract import contains_alias, extract, is_right, normalise_open
from ske_tasks.answers.reply import parse
from ske_tasks.six.rows import KINDS, options_of

OUTPUTS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "outputs.jsonl").read_text("utf-8").splitlines()
]


def verdict(row: dict) -> str:
    prediction = extract(row["output"], row["kind"], options_of(row))
    if prediction is None:
        return "unanswered"
    return "right" if is_right(prediction, row) else "wrong"


@pytest.mark.parametrize("row", OUTPUTS, ids=[f"{n}-{row['kind']}" for n, row in enumerate(OUTPUTS, 1)])
def test_output_gets_the_verdict_it_deserves(row):
    assert verdict(row) == row["verdict"], row["output"]


def test_the_outputs_cover_every_kind_and_verdict():
    assert len(OUTPUTS) >= 150
    assert {row["kind"] for row in OUTPUTS} == set(KINDS)
    for kind in KINDS:
        assert {row["verdict"] for row in OUTPUTS if row["kind"] == kind} == {"right", "wrong", "unanswered"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text", ["", "   ", "\n\n", "...", "<think>", "</think>", "<|eot_id|>The answer is (A)."]
)
def test_nothing_said_is_unanswered(kind, text):
    assert extract(text, kind, {"A": "x", "B": "y"}) is None


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no such kind"):
        extract("A", "essay", {})


def test_no_verdict_without_a_prediction():
    assert not is_right(None, {"kind": "choice", "gold": ["A"]})


def test_letters_are_those_of_the_question():
    assert extract("The answer is (E).", "choice", {"A": "x", "B": "y", "C": "z", "D": "w"}) is None
    assert extract("The answer is (E).", "choice", dict.fromkeys("ABCDE", "")) == "E"


def test_options_with_the_same_text_are_told_by_letter_only():
    options = {"A": "heat", "B": "light", "C": "heat"}
    assert extract("The answer is heat.", "choice", options) is None
    assert extract("The answer is (C) heat.", "choice", options) == "C"


def test_statements_skip_questions_and_hypotheses():
    assert [mark.tail for mark in parse("The answer is B.").statements] == ["B."]
    assert not parse("If the answer is B, it rains. Is the answer B?").statements


def test_a_reply_is_cleaned_once():
    assert parse("<think>no</think> The answer is **B**.").text == "The answer is B."
    assert [item.text for item in parse("B\n\nQuestion: next?\nA").items] == ["B", "Question: next?\nA"]
    assert parse("答案是（B）。").text == "答案是(B)."


@pytest.mark.parametrize(
    ("gold", "given", "equal"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac{1}{2}", r"\dfrac12", True),
        (r"(-\infty,0)\cup(0,1]", r"(-\infty, 0) \cup (0, 1]", True),
        (r"x = \frac{3}{2}", r"\frac{3}{2}", True),
        (r"17\text{ meters}", "17", True),
        (r"100\%", "100", True),
        ("5;10", "5, 10", True),
        ("5;10", "10;5", False),
        ("(3,4]", "[3,4)", False),
        (r"\sqrt{2}", "1.41", False),
        ("2", "", False),
    ],
)
def test_math_equality(gold, given, equal):
    assert same(gold, given) is equal


def test_open_answers():
    row = {"kind": "open", "gold": ["St. Louis", "the “Gateway City”"]}
    assert is_right("St. Louis. It is in Missouri.", row)
    assert is_right('The "Gateway City"', row)
    assert not is_right("East St. Louis", row)
    assert normalise_open("The U.S.A.") == "usa"
    assert normalise_open("*") == "*"


def test_substring_rule_of_opencompass():
    assert contains_alias("the city of St. Louis, Missouri.", ["St. Louis"])
    assert not contains_alias("Long reasoning about it.", ["x"])
    assert not contains_alias(None, ["x"])


def test_time_is_bounded_on_degenerate_text():
    """A small model repeats itself until the token limit; 2,048 tokens are about 8,000 characters."""
    draw = random.Random(0)
    for row in draw.sample(OUTPUTS, 40):
        text = (row["output"] + " ") * (8000 // (len(row["output"]) + 1))
        began = time.process_time()
        extract(text, row["kind"], options_of(row))
        assert time.process_time() - began < 3, row["output"]
