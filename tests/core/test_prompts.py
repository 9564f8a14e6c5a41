"""Prompt sets: what is refused and in which words, and what the hash depends on.

pytest -q tests/core/test_prompts.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from ske_models import prompts
from ske_models.errors import UserError

STEM = {"extract": "{{ stem }}\n\nList facts.", "reason_multiturn": "{{ question }} {{ ending }}"}


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


def test_a_set_may_show_the_question_without_its_options_in_step_1(tmp_path):
    stem = prompts.load(written(tmp_path, content() | STEM))
    assert stem.uses_stem
    assert not prompts.load("default").uses_stem
    assert stem.render("extract", question="Which? (A) a (B) b", stem="Which?") == "Which?\n\nList facts."


def test_braces_of_a_question_are_not_taken_for_a_template():
    rendered = prompts.load("default").render("extract", question="What is {{ 1 + 1 }} in {x}?")
    assert rendered.startswith("What is {{ 1 + 1 }} in {x}?")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extract": "Write the knowledge."}, "`extract` uses neither {{ question }} nor {{ stem }}"),
        ({"extract": "{question}"}, "`extract` uses neither {{ question }} nor {{ stem }}"),
        ({"extract": "{{ stem }}"}, "`reason_multiturn` must use {{ question }}"),
        ({"reason": "{{ stem }} {{ question }} {{ knowledge }}"}, "`reason` uses {{ stem }}"),
        ({"reason": "{{ question }}"}, "`reason` does not use {{ knowledge }}"),
        ({"cot": "{{ question }} {{ knowledge }}"}, "`cot` uses {{ knowledge }}"),
        ({"cot": "{{ question"}, "`cot`, line 1"),
        ({"cot": 3}, "`cot` must be text"),
        ({"given": "{{ question }} {{ knowledge }}"}, "`given` must end with {{ question }}"),
        ({"limits": {"knowledge": -5}}, "with 1 <= N <= 1,000,000 (tokens)"),
        ({"limits": {"knowledge": True}}, "with 1 <= N"),
        ({"limits": {"knowledge": 10**80}}, "with 1 <= N"),
        ({"limits": {"knowledge": 5, "answer": 5}}, "with 1 <= N"),
        ({"limits": 5}, "with 1 <= N"),
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
        ("extract: &a [*a, *a]", "line 1: anchors"),
        ("extract: !!python/object/apply:os.system [ls]", "line 1: the tag"),
        ("limits: {}\nextract: a\nextract: b", "line 3: the key `extract` occurs twice"),
    ],
)
def test_a_file_that_is_no_prompt_set_is_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        prompts.load(written(tmp_path, text))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"\(default, .*world\)"):
        prompts.load("no_such_set")


@pytest.mark.parametrize(
    "name", ["~nosuchuser/my.yaml", "x" * 300, "a\0b", "/", "/dev/null", "/proc/self/mem"]
)
def test_a_name_that_is_no_file_is_one_line(name):
    with pytest.raises(UserError) as refused:
        prompts.load(name)
    assert "\n" not in str(refused.value)


LONG = 19_000  # characters
DEEP = "more than 25 conditions and operators in each other"
NO_TEXT = "a value other than text is not supported"

# A template -> why it is refused.
HOSTILE = {
    # reads what it was not given
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "a call is not supported; a template has text, {{ var",
    "{{ question.__init__.__globals__ }}": "an attribute is not supported",
    "{{ question.foo }}": "an attribute is not supported",
    "{{ question['foo'] }}": "an index is not supported",
    "{{ question[0:9] }}": "an index is not supported",
    "{{ question|attr('format') }}": "filter `attr`: there are trim, upper, lower",
    "{{ self._TemplateReference__context }}": "an attribute is not supported",
    "{{ config }}": "uses {{ config }}; it may use",
    "{{ self }}": "uses {{ self }}; it may use",
    "{{ range }}": "uses {{ range }}; it may use",
    # calls
    "{{ open('canary', 'w') }}": "a call is not supported",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}": "a call is not supported",
    "{{ lipsum(n=1000000000) }}": "a call is not supported",
    "{{ question.upper() }}": "a call is not supported",
    "{{ 'a'.center(10000000000) }}": "a call is not supported",
    "{{ super() }}": "a call is not supported",
    # loops and statements
    "{% for a in range(10**9) %}x{% endfor %}": "a loop is not supported",
    "{% for a in question %}{% for b in question %}x{% endfor %}{% endfor %}": "a loop is not supported",
    "{% for a in question recursive %}{{ loop(a) }}{% endfor %}": "a loop is not supported",
    "{% set a = question %}": "{% set %} is not supported",
    "{% set a %}x{% endset %}": "{% set %} is not supported",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}": "{% macro %} is not supported",
    "{% call question() %}{% endcall %}": "{% call %} is not supported",
    "{% import 'os' as os %}": "{% import %} is not supported",
    "{% from 'os' import system %}": "{% import %} is not supported",
    "{% include '/etc/passwd' %}": "{% include %} is not supported",
    "{% extends '/etc/passwd' %}": "{% extends %} is not supported",
    "{% block a %}{% endblock %}": "{% block %} is not supported",
    "{% filter upper %}x{% endfilter %}": "{% filter %} is not supported",
    "{% with a = 1 %}{% endwith %}": "{% with %} is not supported",
    "{% autoescape true %}{% endautoescape %}": "{% autoescape %} is not supported",
    "{% do question.append('x') %}": "Encountered unknown tag 'do'.",
    "{% debug %}": "Encountered unknown tag 'debug'.",
    # arithmetic and values
    "{{ 1/0 }}": "arithmetic is not supported",
    "{{ 10**1000000000 }}": "arithmetic is not supported",
    "{{ 'a' * 10**9 }}": "arithmetic is not supported",
    "{{ question ~ question }}": "arithmetic is not supported",
    "{{ -question }}": "arithmetic is not supported",
    "{{ " + "9" * 5_000 + " }}": "a number; a template has text",
    "{{ 0x" + "f" * 5_000 + " }}": NO_TEXT,
    "{{ 1e999 }}": NO_TEXT,
    "{{ [question] }}": NO_TEXT,
    "{{ {'a': question} }}": NO_TEXT,
    # filters, tests, comparisons
    "{{ question|nofilter }}": "filter `nofilter`: there are trim, upper, lower",
    "{{ question|trim('a') }}": "filter `trim`: there are",
    "{{ 'a'|center(10000000000) }}": "filter `center`: there are",
    "{{ question is nosuch }}": "test `is nosuch`; a template has text",
    "{{ question < 'a' }}": "of comparisons there are == and !=",
    "{{ 'a' in question }}": "of comparisons there are == and !=",
    # size and depth
    "a" * 20_001: "over 20,000 characters",
    "{{ question }}" * 101: "uses variables more than 100 times",
    "{{ " + "(" * 5_000: DEEP,
    "{{ " + "not " * 3_000 + "question }}": DEEP,
    "{{ " + "[" * 5_000: DEEP,
    "{{ question" + "|upper" * 3_000 + " }}": DEEP,
    "{{ " + "question and " * 1_400 + "question }}": DEEP,
    "{% if question %}" * 1_100: DEEP,
    "{% if 'a' %}" * 30 + "{% endif %}" * 30: DEEP,
    "{{ " + "'x' if question else " * 900 + "'y' }}": DEEP,
    "{{a}}" * (LONG // 5): "uses variables more than 100 times",
    "{{ '" * (LONG // 4): "expected token 'end of print statement'",
    "{#" * (LONG // 2): "Missing end of comment tag",
    # syntax
    "{{ question": "expected token 'end of print statement'",
    "{{ }}": "Expected an expression",
    "{{ '\\x' }}": "truncated",
    "{% if %}": "Expected an expression",
    "{% endif %}": "Encountered unknown tag 'endif'.",
}


@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: ascii(template[:40])[1:-1])
def test_a_hostile_template_is_one_quick_line_and_runs_nothing(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the canary would be
    text = (prompts.FOLDER / "default.yaml").read_text()
    line = text.splitlines().index("extract: |-") + 1
    text = text.replace("extract: |-\n", f"extract: |-\n  {{{{ question }}}}\n  {template}\n")
    path = written(tmp_path, text)
    started = time.process_time()
    with pytest.raises(UserError) as refused:
        prompts.load(path)
    assert time.process_time() - started < 2
    message = str(refused.value)
    assert message.startswith(f"ske-learn: prompts={path}, line {line}: `extract`")
    assert HOSTILE[template] in message
    assert "it may use" in message or "of the template: " in message
    assert "\n" not in message
    assert len(message) < 400 + len(path)
    assert [file.name for file in tmp_path.iterdir()] == ["my.yaml"]


def test_the_line_of_the_template_is_named(tmp_path):
    change = {"reason": "{{ question }}\n{{ knowledge }}\n{{ 1 + 1 }}\n"}
    with pytest.raises(UserError, match=r"line \d+: `reason`, line 3 of the template: arithmetic"):
        prompts.load(written(tmp_path, content() | change))


def test_what_the_language_of_templates_has(tmp_path):
    template = (
        "{# a comment #}{% raw %}{{ x }}{% endraw %} {{ question | trim | upper }}"
        "{% if ending == 'E' and not (question == '') %} 1{% elif ending %} 2{% else %} 3{% endif %}"
        " {{ 'yes' if ending else 'no' }} {{ ending or 'none' }}"
    )
    loaded = prompts.load(written(tmp_path, content() | {"cot": template}))
    assert loaded.render("cot", question=" q ", ending="E") == "{{ x }} Q 1 yes E"
    assert loaded.render("cot", question="q", ending="{{ 1/0 }}") == "{{ x }} Q 2 yes {{ 1/0 }}"
    assert loaded.render("cot", question="", ending="") == "{{ x }}  3 no none"


def test_rendering_is_fast():
    """36,000 items by two steps may take a few seconds at most; it is about 8 microseconds a text."""
    default = prompts.load("default")
    started = time.process_time()
    for _ in range(2_000):
        default.render("extract", question="q" * 1_000)
        default.render("reason", question="q" * 1_000, knowledge="k" * 1_000, ending="e")
    assert (time.process_time() - started) / 4_000 < 100e-6
