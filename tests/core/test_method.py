"""The conversations of the three methods, as a model gets to see them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from ske_models import prompts
from ske_models.method import Question, answer_messages, knowledge_messages

PROMPTS = prompts.load("default")
SHOTS = (
    {"role": "system", "content": "Be exact."},
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "2"},
)
OURS = Question(SHOTS, asked="2+2?\n\nEnd with N.", text="2+2?", ending="End with N.")


def roles(messages):
    return [message["role"] for message in messages]


def test_direct_is_the_harness_own_prompt():
    assert answer_messages(OURS, PROMPTS, "direct", "single", None) == [
        *SHOTS,
        {"role": "user", "content": OURS.asked},
    ]


def test_cot_asks_for_steps_and_says_how_to_end_last():
    last = answer_messages(OURS, PROMPTS, "cot", "single", None)[-1]["content"]
    assert last.startswith("2+2?\n\n")
    assert last.endswith("End with N.")
    assert last.count("End with N.") == 1


def test_the_knowledge_step_does_not_see_how_to_end():
    messages = knowledge_messages(OURS, PROMPTS)
    assert tuple(messages[:-1]) == SHOTS
    assert messages[-1]["content"].startswith("2+2?\n\n")
    assert "End with N." not in messages[-1]["content"]


def test_single_layout_shows_the_knowledge_in_the_question_turn():
    messages = answer_messages(OURS, PROMPTS, "explicit", "single", "Two and two are four.")
    assert roles(messages) == [*roles(SHOTS), "user"]
    assert "Two and two are four." in messages[-1]["content"]
    assert messages[-1]["content"].endswith("End with N.")


def test_multiturn_layout_continues_the_knowledge_step_to_the_letter():
    messages = answer_messages(OURS, PROMPTS, "explicit", "multiturn", "Two and two are four.")
    first = knowledge_messages(OURS, PROMPTS)
    assert messages[: len(first)] == first
    assert messages[len(first)] == {"role": "assistant", "content": "Two and two are four."}
    assert roles(messages[len(first) :]) == ["assistant", "user"]
    assert "2+2?" not in messages[-1]["content"]


@pytest.mark.parametrize("layout", ["single", "multiturn"])
def test_a_scored_answer_follows_the_harness_own_cue(layout):
    question = Question((), asked="2+2?\nAnswer:", text="2+2?\nAnswer:", scored=True)
    messages = answer_messages(question, PROMPTS, "explicit", layout, "Two and two are four.")
    assert messages[-1]["content"].endswith("2+2?\nAnswer:")


def test_a_given_start_of_the_answer_stays_its_start():
    question = Question((), asked="2+2?", text="2+2?", prefix="It is")
    for method, knowledge in [("direct", None), ("cot", None), ("explicit", "Four.")]:
        assert answer_messages(question, PROMPTS, method, "single", knowledge)[-1] == {
            "role": "assistant",
            "content": "It is",
        }
    assert roles(knowledge_messages(question, PROMPTS)) == ["user"]


def test_a_set_with_the_stem_shows_no_options_in_step_1_and_all_of_the_question_in_step_2(tmp_path):
    content = yaml.safe_load((prompts.FOLDER / "default.yaml").read_text())
    path = tmp_path / "stem.yaml"
    path.write_text(
        yaml.safe_dump(
            content | {"extract": "{{ stem }}\n\nList facts.", "reason_multiturn": "{{ question }}!"}
        )
    )
    stem = prompts.load(str(path))
    question = Question((), "Which?\n(A) a\n\nEnd.", "Which?\n(A) a", "End.", stem="Which?")
    assert knowledge_messages(question, stem)[-1]["content"] == "Which?\n\nList facts."
    assert answer_messages(question, stem, "explicit", "single", "k")[-1]["content"].startswith(
        "Which?\n(A) a"
    )
    first = answer_messages(question, stem, "explicit", "multiturn", "k")[0]["content"]
    assert first == "Which?\n\nList facts."
    without = replace(question, stem="")
    assert knowledge_messages(without, stem)[-1]["content"] == "Which?\n(A) a\n\nList facts."
