"""What of an answer OpenCompass' rules are shown."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("opencompass")

from ske_models.opencompass import conclusion, reply_only
from ske_models.records import Answer


def cut(text: str) -> Answer:
    """A text that reached its token limit."""
    return Answer(text, {"truncated": {"knowledge": False, "answer": True}})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A is out.\nSo the answer is\nB.", "The answer is B."),
        ("First, x. The answer is A. Wait. The answer is (B).", "The answer is (B)."),
        ("Because of that.\n\n**Answer:** (B)", "The answer is (B)"),
        ("The answers are A and C.", "The answer is A and C."),
        ("根据题意。答案是(B)。", "答案是(B)。"),
        ("根据题意。【答案】: B", "答案是B"),
        ("no statement, (C)", "no statement, (C)"),
        # thoughts
        ("<think>Perhaps the answer is A.</think>It is warm. The answer is B.", "The answer is B."),
        ("[THINK]The answer is A.[/THINK]\n\nB", "B"),
        ("<think>The answer is A. No, wait", ""),
        # the answer ends where another question or turn begins
        ("The answer is A.\n\nQuestion: What is x?\nThe answer is B.", "The answer is A."),
        ("P holds.\nQ: false\nSo the answer is B.", "The answer is B."),
        ("The answer is A.<|im_end|>\n<|im_start|>user\nThe answer is B.", "The answer is A."),
        ("The answer is (B).<|eom_id|>\nThe answer is (C).", "The answer is (B)."),
        ("The answer is (B).<|start_header_id|>user: the answer is (C).", "The answer is (B)."),
        ("The answer is (B).\n<|user|>\nThe answer is (C).", "The answer is (B).\n"),
        ("The answer is (D).\n\nLet's summarize all answers: 1. The answer is (A)", "The answer is (D).\n"),
        ("The answer is (D).\n\n**Question 2:** x\nThe answer is (A).", "The answer is (D)."),
        ("The answer is (B). Unless the answer is (C).", "The answer is (B). Unless the answer is (C)."),
        ("If the answer is C, then x is 3. So the answer is B, and if the answer is D ...",
         "The answer is B, and if the answer is D ..."),
        # a text that reached its token limit states what it says in full, and nothing else
        (cut("The answer is (B). So I will che"), "The answer is (B). So I will che"),
        (cut("First the answer is (A).\nThen the answer is B"), "The answer is (A).\nThen the answer is B"),
        (cut("We have three options, A"), ""),
        (cut("The answer is A"), ""),
    ],
)  # fmt: skip
def test_the_conclusion_of_a_reasoning(text, shown):
    assert conclusion(text) == shown


def test_other_marks_and_none():
    text = "<plan>The answer is A.</plan>The answer is B."
    assert conclusion(text, think="<plan>...</plan>") == "The answer is B."
    assert reply_only(text, think="<plan>...</plan>") == "The answer is B."
    assert reply_only("<think>A</think>B", think="off") == "<think>A</think>B"
    assert reply_only("<think>A</think>B") == "B"


@pytest.mark.parametrize(
    "unit", ["\n", " ", "answer ", "answer is ", "答案", "Q: a\n", "\nlet's list", "\n总结", "**", "<think>"]
)
def test_it_is_quick(unit):
    started = time.monotonic()
    conclusion(unit * (200_000 // len(unit)))
    assert time.monotonic() - started < 5  # 0.1 s on a quiet machine
