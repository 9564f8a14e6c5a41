"""What of a text is the reply: every notation of thoughts, as models write them."""

from __future__ import annotations

import time

import pytest

from ske_models.errors import UserError
from ske_models.reply import NO_MARKS, Split, marks_of, reply_of, split_thought

PAIRS = [
    ("<think>", "</think>"),
    ("<THINK>", "</THINK>"),
    ("<thinking>", "</thinking>"),
    ("<Thinking>", "</Thinking>"),
    ("<thought>", "</thought>"),
    ("<reason>", "</reason>"),
    ("<Reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis", "assistantfinal"),  # gpt-oss, decoded without its special tokens
]


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_every_notation(opening, closing):
    thought = "The answer is (A)? No:\n\nit is (B)."
    assert split_thought(f"{opening}{thought}{closing}\n\nSo (B).\n") == Split(thought, "So (B).\n", True)
    assert split_thought(f"{opening}{thought}") == Split(thought, "", False)


@pytest.mark.parametrize(("opening", "closing"), PAIRS[:-1])
def test_an_empty_thought_and_a_closing_mark_alone(opening, closing):
    assert split_thought(f"{opening}\n\n{closing}\n\nB") == Split("", "B", True)
    assert split_thought(f"The answer is (A)?{closing}\n\nB") == Split("The answer is (A)?", "B", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain text.\n", Split("", "Plain text.\n", True)),
        ("", Split("", "", True)),
        ("  a < b and [think] of it", Split("", "  a < b and [think] of it", True)),
        ("It is (B) because <reason>, as said.", Split("", "It is (B) because <reason>, as said.", True)),
        ("<think>x</think>So <reason>.", Split("x", "So <reason>.", True)),
        ("<|im_start|>assistant <think>x", Split("x", "", False)),
        ("<think>x</think><think>y", Split("xy", "", False)),
        ("Hm.\n<think>x", Split("x", "", False)),
        ("A: <think>x</think>B", Split("x", "A: B", True)),
        ("<think>a</think>One. <think>b</think>Two.", Split("ab", "One. Two.", True)),
        ("<think>a<think>b</think>c</think>d", Split("a<think>bc", "d", True)),
        ("<think>I write <think> first.</think>B", Split("I write <think> first.", "B", True)),
        ("<think><thought>x</thought> y</think>B", Split("<thought>x</thought> y", "B", True)),
        ("<think><thought>x</thought> y", Split("<thought>x</thought> y", "", False)),
        ("<thinking>x</think>B", Split("x", "B", True)),
        ("The mark `<think>` opens a thought.", Split("", "The mark `<think>` opens a thought.", True)),
        (
            "<think>x</think><|begin_of_solution|>B<|end_of_solution|>",
            Split("x", "B", True),
        ),
        (
            "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            "<|constrain|>json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>B<|return|>",
            Split("x{}", "B", True),
        ),
        ("x<|end|><|start|>assistant<|channel|>final<|message|>B", Split("x", "B", True)),
        ("<|channel|>analysis<|message|>x<|end|>", Split("x", "", False)),
        ("<|channel|>final<|message|>B<|return|>", Split("", "B", True)),
        ("analysis of the question", Split("", "analysis of the question", True)),
    ],
)
def test_what_models_do_with_their_marks(text, expected):
    assert split_thought(text) == expected


def test_a_setting_names_other_marks_or_switches_all_off():
    text = "<think>x</think>B"
    assert reply_of(text, marks_of("default")) == "B"
    for off in ("off", "OFF", "none", None, False):
        assert marks_of(off) == NO_MARKS
        assert reply_of(text, marks_of(off)) == text
    plan = marks_of("<plan>...</plan>")
    assert split_thought("<plan>x</plan>\nB", plan) == Split("x", "B", True)
    assert split_thought("x</plan>B", plan) == Split("x", "B", True)
    assert split_thought("<plan>x", plan) == Split("x", "", False)
    assert reply_of(text, plan) == text
    with pytest.raises(UserError, match=r"think=<plan>: unknown; default, off, or the two marks"):
        marks_of("<plan>")


@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<think>a</think>", "<|channel|>", "<|channel|>analysis", "<", "\n", "analysis",
     "[THINK]", "<|channel|>final<|message|>x<|end|>", "assistantfinal", "`<think>`", "<|"],
)  # fmt: skip
def test_200000_characters_take_no_time(piece):
    text = (piece * (200_000 // len(piece) + 1))[:200_000]
    started = time.process_time()
    split_thought(text)
    split_thought("analysis" + text)
    assert time.process_time() - started < 2 * 0.5
