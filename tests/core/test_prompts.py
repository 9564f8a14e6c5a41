"""Prompt sets: what is refused and in which words, and what the hash depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ske_models import prompts
from ske_models.errors import UserError


def content() -> dict:
    return yaml.safe_load((prompts.FOLDER / "default.yaml").read_text())


def written(folder: Path, value: object) -> str:
    path = folder / "my.yaml"
    path.write_text(value if isinstance(value, str) else yaml.safe_dump(value))
    return str(path)


def test_the_sets_that_come_along_load():
    assert {"default", "world"} <= set(prompts.names())
    hashes = {prompts.load(name).hash for name in prompts.names()}
    assert len(hashes) == len(prompts.names())


def test_a_copy_has_the_same_hash_and_an_edited_copy_another(tmp_path):
    default = prompts.load("default")
    reordered = dict(reversed(content().items()))
    assert prompts.load(written(tmp_path, reordered)).hash == default.hash
    edited = content() | {"extract": content()["extract"] + " Be brief."}
    assert prompts.load(written(tmp_path, edited)).hash != default.hash
    other_limit = content() | {"limits": {"knowledge": 7}}
    assert prompts.load(written(tmp_path, other_limit)).hash != default.hash


def test_braces_of_a_question_are_not_taken_for_a_template():
    rendered = prompts.load("default").render("extract", question="What is {{ 1 + 1 }} in {x}?")
    assert rendered.startswith("What is {{ 1 + 1 }} in {x}?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extract": "Write the knowledge."}, "`extract` does not use {{ question }}"),
        ({"extract": "{question}"}, "`extract` does not use {{ question }}"),
        ({"reason": "{{ question }}"}, "`reason` does not use {{ knowledge }}"),
        ({"cot": "{{ question }} {{ knowledge }}"}, "`cot` uses {{ knowledge }}"),
        ({"cot": "{{ question"}, "`cot`, line 1"),
        ({"cot": 3}, "`cot` must be text"),
        ({"given": "{{ question }} {{ knowledge }}"}, "`given` must end with {{ question }}"),
        ({"limits": {"knowledge": -5}}, "N >= 1"),
        ({"limits": 5}, "N >= 1"),
        ({"extra": "{{ question }}"}, "unknown: ['extra']"),
    ],
)
def test_a_faulty_template_is_named(tmp_path, change, message):
    with pytest.raises(UserError) as refused:
        prompts.load(written(tmp_path, content() | change))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extract: [unclosed", "not YAML"),
        ("just a sentence", "a mapping of templates is needed"),
        ("limits: {knowledge: 5}", "templates missing"),
        ("extract: \x00", "not YAML"),
    ],
)
def test_a_file_that_is_no_prompt_set_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        prompts.load(written(tmp_path, text))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="default, world"):
        prompts.load("no_such_set")
