"""Chat templates that a recipe names: those of chats are taken, all else is one line, quickly.

pytest -q tests/training/test_chat_template.py
"""

from __future__ import annotations

import time

import pytest

from ske_models.embedded import FOLDER
from ske_models.errors import UserError
from training.data.chat_template import read

TURNS = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# A template -> why it is refused.
REFUSED = {
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "line 1: a call of another function than namespace,",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}": "line 1: a call of another function",
    "{{ open('canary', 'w') }}": "line 1: a call of another function",
    "\n{% for i in range(10**9) %}x{% endfor %}": "line 2: a loop over what is not given",
    "{% for i in 'abc' %}x{% endfor %}": "line 1: a loop over what is not given",
    "{% set a = 'x' %}{% for i in a %}x{% endfor %}": "line 1: a loop over what is not given",
    "{% set messages = 'x' %}" + TURNS: "line 1: a loop over what is not given",
    "{% for a in messages recursive %}{{ loop(a) }}{% endfor %}": "line 1: a recursive loop",
    "{% for a in messages %}" * 3 + "{% endfor %}" * 3: "line 1: more than 2 loops in each other",
    "{{ 10**1000000000 }}": "line 1: `pow`; a chat template does not need it",
    "{{ 'a' * 10**9 }}": "line 1: `mul`",
    "{{ 1/0 }}": "line 1: `div`",
    "{{ '%999999999d' % 1 }}": "line 1: a text with a format of a width",
    "{{ 'a'.center(9999999999) }}": "line 1: a call of another function",
    "{{ 'a'|center(9999999999) }}": "line 1: the filter `center`",
    "{{ lipsum(n=99999999) }}": "line 1: a call of another function",
    "{{ messages|attr('x') }}": "line 1: the filter `attr`",
    "{{ messages|nofilter }}": "line 1: the filter `nofilter`",
    "{{ messages is nosuch }}": "line 1: No test named 'nosuch'.",
    "{% macro f() %}{{ f() }}{% endmacro %}": "line 1: `macro`",
    "{% include '/etc/passwd' %}": "line 1: `include`",
    "{% import 'os' as os %}": "line 1: `import`",
    "{{ " + "(" * 5_000: "too many parts in each other",
    "{{ " + "9" * 5_000 + " }}": "Exceeds the limit",
    "{{ messages": "line 1: unexpected end of template",
    "{% for message in messages %}": "line 1: Unexpected end of template",
    "a" * 50_001: "over 50,000 bytes",
    b"\xff": "'utf-8' codec can't decode",
}

TAKEN = {
    "controls": "{% for m in messages[1:] %}{% if loop.index0 % 2 %}{% continue %}{% endif %}{% endfor %}",
    "an alias": "{% set chat = messages if 1 else tools %}{% for m in chat %}{{ m | tojson }}{% endfor %}",
    "parts": "{% for m in messages %}{% for p in m.content %}{{ p.text.strip() }}{% endfor %}{% endfor %}",
    "a namespace": "{% set ns = namespace(n=0) %}" + TURNS + "{{ raise_exception('no') if ns.n > 1 }}",
}


@pytest.mark.parametrize("template", REFUSED, ids=lambda template: ascii(template[:40])[1:-1])
def test_what_a_chat_does_not_need_is_one_quick_line(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the canary would be
    file = tmp_path / "my.jinja"
    file.write_bytes(template if isinstance(template, bytes) else template.encode())
    started = time.process_time()
    with pytest.raises(UserError) as refused:
        read(str(file))
    assert time.process_time() - started < 2
    message = str(refused.value)
    assert message.startswith(f"ske-learn: model.base.chat_template: {file}")
    assert REFUSED[template] in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["my.jinja"]


@pytest.mark.parametrize("template", TAKEN.values(), ids=TAKEN)
def test_templates_of_chats_are_taken(template, tmp_path):
    (tmp_path / "my.jinja").write_text(template)
    assert read(str(tmp_path / "my.jinja")) == template


def test_ours_are_taken_by_name_and_by_path():
    assert "<|start_header_id|>" in read("llama3")
    assert "generation" in read(str(FOLDER / "M0" / "chat_template.jinja"))


def test_no_such_file():
    with pytest.raises(UserError, match=r"no_such: no such file, nor a template of that name \(llama3\)"):
        read("no_such")
