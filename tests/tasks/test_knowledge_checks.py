"""What is found in written knowledge: texts of every kind with what is to be said of them."""

from __future__ import annotations

import pytest

from ske_tasks.knowledge_checks import check, flags, repeated
from ske_tasks.six.rows import make_row

ICE = make_row(
    "arc_e",
    "ARC-Easy",
    "1",
    "choice",
    "What happens to the molecules of ice that melts?",
    ["B"],
    ["A", "B", "C"],
    ["They lose mass.", "They move more freely", "They break apart"],
)
SUM = make_row("bbh", "object_counting", "1", "number", "I have two apples and three pears. How many?", ["5"])
NQ = make_row("nq", "nq_open", "1", "open", "who wrote Hamlet?", ["William Shakespeare"])
LAW = make_row("agieval", "logiqa-zh", "1", "choice", "哪个?", ["A"], ["A", "B"], ["甲", "乙"], chinese=True)

FACTS = "1. Ice is solid water.\n2. Heat gives molecules energy.\n3. In a liquid, molecules slide."


@pytest.mark.parametrize(
    ("text", "row", "expected"),
    [
        (FACTS, ICE, {"answer": None, "right": False, "restated": 0}),
        ("1. Ice melts.\nThe answer is (B).", ICE, {"answer": "B", "right": True}),
        ("Molecules move. So the correct answer is (C).", ICE, {"answer": "C", "right": False}),
        (
            "1. They lose mass.\n2. They move more freely.\n3. They melt.",
            ICE,
            {"restated": 2, "answer": None},
        ),
        ("They lose mass, they move more freely and they break apart.", ICE, {"restated": 3}),
        ("In a liquid the molecules move; they move more freely.", ICE, {"answer": "B", "right": True}),
        ("They loose mass.", ICE, {"restated": 0}),
        ("Two apples are 2 fruits.\nThree pears are 3.", SUM, {"answer": None, "right": False}),
        ("Add them up. The answer is 5.", SUM, {"answer": "5", "right": True, "restated": 0}),
        ("Hamlet is a play by Thomas Kyd.", NQ, {"answer": None}),
        ("Hamlet is a play.\nIt is by William Shakespeare.", NQ, {"right": True}),
        ("The answer is William Shakespeare.", NQ, {"right": True}),
        ("答案是(A)。", LAW, {"answer": "A", "right": True}),
        ("", ICE, {"answer": None, "empty": True, "repeated": 0.0}),
    ],
)
def test_what_is_found(text, row, expected):
    found = check(text, row)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (FACTS, 0.0, 0.0),
        ("Water is wet. " * 2, 0.0, 0.0),  # too short to be a loop
        ("The sun is a star that shines by nuclear fusion in its core. " * 12, 0.9, 1.0),
        ("\n".join(["Fact: heat rises."] * 9 + ["Fact: ice floats."]), 0.75, 0.95),
        ("\n".join(f"{n}. The number {n} is followed by {n + 1}." for n in range(40)), 0.0, 0.2),
        ("水在零度结冰，" * 12, 0.7, 1.0),
        ("地球围绕太阳旋转，月球围绕地球旋转，潮汐由月球的引力引起。", 0.0, 0.0),
    ],
)
def test_a_loop_is_text_that_repeats_itself(text, low, high):
    assert low <= repeated(text) <= high


def test_the_counts_of_a_task_follow_from_what_was_found():
    found = check("They lose mass. They break apart. The answer is (B).", ICE, cut=True)
    assert flags(found) == {
        "knowledge_answers": 1,
        "knowledge_answers_right": 1,
        "knowledge_restates": 1,
        "knowledge_loops": 0,
        "knowledge_cut": 1,
        "knowledge_empty": 0,
    }
    assert flags(check("", ICE, cut=None))["knowledge_empty"] == 1
