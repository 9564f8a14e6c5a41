"""The one YAML loader: what it takes, and the line that everything else ends in, within 2 seconds.

pytest -q tests/core/test_yaml_data.py
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import yaml

from ske_models.errors import UserError
from ske_models.yaml_data import MAX_BYTES, load_with_lines, load_yaml

FULL = MAX_BYTES - 100

# The content of my.yaml -> the message after "my.yaml".
REFUSED = {
    # expansion, nesting, size
    "a: &a [x, x]\nb: &b [*a, *a]": ", line 1: anchors (&) and aliases (*) are not supported; write the",
    "a: *b": ", line 1: anchors (&)",
    "[" * 5_000: ", line 1: more than 40 lists and mappings in each other",
    "[" * FULL: ", line 1: more than 40 lists",
    "{a: " * 5_000: ", line 1: more than 40 lists",
    "- " * 5_000: ", line 1: more than 40 lists",
    "? " * 5_000: ", line 1: more than 40 lists",
    "".join(" " * n + "a:\n" for n in range(600)): ", line 40: more than 40 lists",
    "[" + "a," * (FULL // 2) + "]": ", line 1: more than 20,000 values",
    "".join(f"k{n}: 1\n" for n in range(15_000)): ", line 10000: more than 20,000 values",
    "a: " + "x" * MAX_BYTES: ": over 250,000 bytes",
    "%a\n" * (FULL // 3): ", line 83301: not YAML: expected '<document start>'",
    # numbers
    "a: " + "9" * 5_000: ", line 1: a number of more than 100 digits; text goes in quotes",
    "a: 0x" + "f" * 5_000: ", line 1: a number of more than 100 digits",
    "a: 1" + ":59" * 3_000: ", line 1: a number of more than 100 digits",
    "a: 1." + "5" * 5_000: ", line 1: a number of more than 100 digits",
    "a: !!int abc": ", line 1: `abc` is no valid int",
    'a: !!int ""': ", line 1: `` is no valid int",
    "a: !!float .": ", line 1: `.` is no valid float",
    "a: !!bool maybe": ", line 1: `maybe` is no valid bool",
    # tags: nothing is constructed but plain data
    "a: !!timestamp abc": ", line 1: the tag !!timestamp is not supported here; leave it out",
    "a: !!binary abc": ", line 1: the tag !!binary is",
    "a: !!set {a, b}": ", line 1: the tag !!set is",
    "a: !!omap [a: 1]": ", line 1: the tag !!omap is",
    "a: !!map [a]": ", line 1: the tag !!map is",
    "a: !!str [a]": ", line 1: the tag !!str is",
    "\na: !function os.system": ", line 2: the tag !function is",
    'a: !!python/object/apply:os.system ["touch canary"]': ", line 1: the tag !!python/object/",
    "a: !!python/name:os.system": ", line 1: the tag !!python/name:os.system",
    "!" * FULL: ", line 1: the tag !!!!!",
    # keys
    "1: a": ", line 1: a key must be text; write '1' in quotes",
    "a: {yes: b}": ", line 1: a key must be text; write 'yes' in quotes",
    "null: a": ", line 1: a key must be text",
    "? [a]\n: b": ", line 1: a key must be text",
    "{a: 1}: 2": ", line 1: a key must be text",
    "a: 1\nb: 2\na: 3": ", line 3: the key `a` occurs twice; it is in line 1, too",
    "a: {b: 1, 'b': 2}": ", line 1: the key `b` occurs twice",
    # characters
    "a: b\nc: \x00": ", line 2: not YAML: a character that no text has",
    "a: \x07": ", line 1: not YAML: a character",
    'a: "\\ud800"': ", line 1: `\\ud800` is no valid str",
    'a: "\\UFFFFFFFF"': ", line 1: not YAML: Python int too large",
    b"a: b\nc: \xff\n": ", line 2: not UTF-8; save the file in that encoding",
    "a: b".encode("utf-16"): ", line 1: not UTF-8",
    # syntax
    "a: [1": ", line 1: not YAML: expected ',' or ']'",
    "a: b: c": ", line 1: not YAML: mapping values are not allowed here",
    "a:\n\t- b": ", line 2: not YAML: found character '\\t' that cannot start any token",
    "a: 1\n---\nb: 2": ", line 2: not YAML: but found another document",
    "%YAML " + "9" * 5_000 + ".1\n---\na": ", line 1: not YAML: Exceeds the limit",
    "%YAML 9.9\n---\na": ", line 1: not YAML: found incompatible YAML document",
    "!<%FF> a": ", line 1: not YAML: 'utf-8' codec can't decode",
    "&" * FULL: ", line 1: not YAML: expected alphabetic",
}

# Odd, but data.
TAKEN = {
    "": None,
    "\ufeffa: 1": {"a": 1},
    "a: 2026-01-02": {"a": "2026-01-02"},
    "<<: {a: 1}": {"<<": {"a": 1}},
    "a: [1, 2.5, true, null, 0x1f, '9', =]": {"a": [1, 2.5, True, None, 31, "9", "="]},
    "#" * FULL: None,
    "\n" * FULL: None,
    "word " * (FULL // 5): ("word " * (FULL // 5)).strip(),
    ">\n" + " a\n" * (FULL // 3): " ".join("a" * (FULL // 3)) + "\n",
}


@pytest.mark.parametrize("content", REFUSED, ids=lambda content: ascii(content[:24])[1:-1])
def test_what_is_no_data_ends_in_one_line_within_two_seconds(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the canary would be
    file = tmp_path / "my.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(UserError) as refused:
        load_yaml(file, "my.yaml")
    assert time.process_time() - started < 2
    message = str(refused.value)
    assert message.startswith(f"ske-learn: my.yaml{REFUSED[content]}")
    assert "\n" not in message
    assert len(message) < 250
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", TAKEN, ids=lambda content: ascii(content[:24])[1:-1])
def test_odd_data_is_taken(content, tmp_path):
    (tmp_path / "my.yaml").write_text(content, encoding="utf-8")
    started = time.process_time()
    assert load_yaml(tmp_path / "my.yaml", "my.yaml") == TAKEN[content]
    assert time.process_time() - started < 2


def test_what_is_no_file_is_said(tmp_path):
    with pytest.raises(UserError, match="--recipe x: no such file"):
        load_yaml(tmp_path / "x", "--recipe x")
    with pytest.raises(UserError, match="is no file"):
        load_yaml(tmp_path, "--recipe x")


def test_files_of_the_project_read_as_before():
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("ske_models/prompts/*.yaml"), *root.glob("training/recipes/**/*.yaml")]
    assert len(files) > 5
    for file in files:
        assert load_yaml(file, file.name) == yaml.safe_load(file.read_text(encoding="utf-8"))


def test_lines_of_keys_and_list_entries(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("# a comment\na: 1\nb:\n  - x\n  - c: |\n      two\n      lines\n    d: {e: 2}\n")
    content, lines = load_with_lines(file, "my.yaml")
    assert content == {"a": 1, "b": ["x", {"c": "two\nlines\n", "d": {"e": 2}}]}
    places = {(): 1, ("a",): 2, ("b",): 3, ("b", 0): 4, ("b", 1): 5, ("b", 1, "c"): 5, ("b", 1, "d"): 8}
    assert lines == places | {("b", 1, "d", "e"): 8}


def test_any_damage_to_a_file_is_one_line_or_data(tmp_path):
    file = tmp_path / "my.yaml"
    rng = random.Random(1)
    whole = Path(__file__).resolve().parents[2].joinpath("training/recipes/world.yaml").read_bytes()[:800]
    characters = b"{}[]&*!|>'\"%@`:,-?#\n\t \\\x00\xff1.~"
    data, lines = 0, []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            at = rng.randrange(len(content))
            content[at : at + rng.choice([0, 1, 5])] = bytes([rng.choice(characters)])
        file.write_bytes(content)
        try:
            load_yaml(file, "my.yaml")
            data += 1
        except UserError as error:
            lines.append(str(error))
    assert min(data, len(lines)) > 50
    assert not [line for line in lines if "\n" in line]
