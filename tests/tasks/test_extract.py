"""The extraction against model outputs written by hand, with the verdict that each deserves."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ske_models.records import Answer, Trace
from ske_tasks.answers.equality import same
from ske_tasks.answers.extract import contains_alias, extract, is_right, normalise_open
from ske_tasks.answers.reply import parse
from ske_tasks.six.metrics import process_results
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


UNITS = (
    '\n| |$|(|) ] |7|1,|a|ab |A |(A), |"|`|**|\\boxed{3 |\\text{|\\frac{1}{|答案是|【答案】|A正确|'
    "因此|所以选|Question:|\nQ: |The answer is |the answer is (A). |answer to |so |so that |I choose |"
    'not |twenty-|one hundred |= |{"answer": |<answer>|<think>|</think>|(B) and |B is correct |yes |'
    "not valid |\nAnswer: |\n#### |let's list |. |1. |A. a\n"
).split("|")
READINGS = {
    "choice": dict.fromkeys("ABCDEFGHIJ", "some text"),
    "multi_choice": dict.fromkeys("ABCD", "text"),
    "label": {"yes": "yes", "no": "no"},
    "words": dict.fromkeys(["plum", "apple", "fig"], ""),
} | {kind: {} for kind in ("number", "brackets", "math", "open")}


def degenerate() -> Iterator[str]:
    """Texts of 200,000 characters: one unit again and again, and units at random."""
    draw = random.Random(0)
    for unit in UNITS:
        yield unit * (200_000 // len(unit))
    for size in (2, 3, 5, 8, len(UNITS)):
        units = draw.sample(UNITS, size)
        yield "".join(draw.choice(units) + draw.choice(["", "", "x", "3", "A"]) for _ in range(100_000))[
            :200_000
        ]


def test_no_reply_takes_longer_than_half_a_second():
    """Of processor time, as other processes may have the cores."""
    slow = []
    for n, text in enumerate(degenerate()):
        for kind, options in [*READINGS.items()][n % 2 :: 2] if n < len(UNITS) else READINGS.items():
            began = time.process_time()
            extract(text, kind, options)
            took = time.process_time() - began
            slow += [(kind, text[:40], took)] if took > 0.5 else []
    assert slow == []


@pytest.mark.parametrize("where", ["begin", "end"])
def test_an_answer_in_a_very_long_reply_is_found(where):
    filler = "\n".join(f"Step {n}: we look at number {n * 7919 % 1000}." for n in range(8_000))
    text = f"The answer is (C).\n{filler}" if where == "begin" else f"{filler}\nThe answer is (C)."
    assert len(text) > 200_000
    assert extract(text, "choice", METALS) == "C"


METALS = {"A": "copper", "B": "iron", "C": "tin", "D": "lead"}


def test_a_logged_answer_that_was_cut_is_read_as_cut():
    row = {"kind": "choice", "letters": list("AB"), "options": ["x", "y"], "gold": ["A"], "subset": "s"}
    for truncated, found in ((True, None), (False, "A"), (None, "A")):
        how = Trace(("direct", "single", "hash"), None, 4, truncated)
        doc = dict(row)
        process_results(doc, [Answer("The answer is A", how)])
        assert doc["prediction"] == found
