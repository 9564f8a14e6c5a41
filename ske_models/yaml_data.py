"""All YAML that the project reads goes through here: prompt sets, recipes, shots, launch configs.

    python -c "from pathlib import Path; from ske_models.yaml_data import load_yaml; \
        print(load_yaml(Path('my.yaml'), 'my.yaml'))"

Such files are passed around, so they are data: text, numbers, true and false, null, lists and mappings with
keys of text, and nothing else. Whatever else a file holds, and whatever its size, ends within two seconds in
a `UserError` of one line with the file and the line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import yaml

from ske_models.errors import UserError

MAX_BYTES = 250_000  # PyYAML takes up to 4 seconds per MB
MAX_VALUES = 20_000  # in a file; lists and mappings count too
MAX_DEPTH = 40  # lists and mappings in each other
MAX_DIGITS = 100  # of a number; Python takes quadratic time for long ones

Lines = dict[tuple[str | int, ...], int]  # keys and list indices from the top down, and the entry's line

_TAG = "tag:yaml.org,2002:"
_NO_TEXT = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float")}
_TAGS: dict[type[yaml.Node], set[str]] = {
    yaml.ScalarNode: {f"{_TAG}str", *_NO_TEXT},
    yaml.SequenceNode: {f"{_TAG}seq"},
    yaml.MappingNode: {f"{_TAG}map"},
}


def load_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file: str, int, float, bool, None, list, and dict with text as keys.

    what: the file as messages name it, such as `prompts=my.yaml`.
    Raises UserError, of one line: no such file, not UTF-8, not YAML, a limit of this module exceeded, an
    anchor or alias, a tag, a key that is no text or occurs twice, a value that does not fit its tag.
    """
    return load_with_lines(path, what)[0]


def load_with_lines(path: Path, what: str) -> tuple[Any, Lines]:
    """`load_yaml`, and the line of every entry of a mapping or a list, from 1; `lines[()]` is the top's."""
    text = _read(path, what)
    lines: Lines = {(): 1}
    try:
        node = _composed(text)
        return (None if node is None else _value(node, (), lines)), lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{what}, line {line}: not YAML: a character that no text has") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = what if mark is None else f"{what}, line {mark.line + 1}"
        problem = error.problem if isinstance(error, _RefusedError) else f"not YAML: {_brief(error.problem)}"
        raise UserError(f"{where}: {problem}") from error


def _read(path: Path, what: str) -> str:
    if not path.is_file():
        raise UserError(f"{what}: {'is no file' if path.exists() else 'no such file'}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{what}: cannot be read ({error.strerror})") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{what}: over {MAX_BYTES:,} bytes; what is read from YAML is smaller")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{what}, line {line}: not UTF-8; save the file in that encoding") from error


class _RefusedError(yaml.MarkedYAMLError):
    """YAML that is no data for us; its message is ours."""


class _Loader(yaml.SafeLoader):
    """Composes nodes within the limits. A date stays text, and `<<` and `=` are no more than text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _NO_TEXT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _problem(event, "anchors (&) and aliases (*) are not supported; write the value out")
        self.values += 1
        self.depth += 1
        if self.values > MAX_VALUES:
            raise _problem(event, f"more than {MAX_VALUES:,} values")
        if self.depth > MAX_DEPTH:
            raise _problem(event, f"more than {MAX_DEPTH} lists and mappings in each other")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _composed(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # PyYAML lets through an escape or a version out of range
        problem = f"not YAML: {_brief(error)}"
        raise _RefusedError(problem=problem, problem_mark=loader.get_mark()) from error


def _value(node: yaml.Node, place: tuple[str | int, ...], lines: Lines) -> Any:
    """What a node stands for; the lines of what is in it are added to `lines`."""
    if node.tag not in _TAGS[type(node)]:
        tag = node.tag.replace(_TAG, "!!")
        raise _problem(node, f"the tag {_brief(tag)} is not supported here; leave it out")
    if isinstance(node, yaml.SequenceNode):
        for n, below in enumerate(node.value):
            lines[(*place, n)] = below.start_mark.line + 1
        return [_value(below, (*place, n), lines) for n, below in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        content = {}
        for key, below in node.value:
            name = _key(key)
            if name in content:
                first = lines[(*place, name)]
                raise _problem(key, f"the key `{_brief(name)}` occurs twice; it is in line {first}, too")
            lines[(*place, name)] = key.start_mark.line + 1
            content[name] = _value(below, (*place, name), lines)
        return content
    return _scalar(node)


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _problem(node, "a key must be text")
    key = _scalar(node)
    if not isinstance(key, str):
        raise _problem(node, f"a key must be text; write '{_brief(node.value)}' in quotes")
    return key


def _scalar(node: yaml.Node) -> Any:
    text = node.value
    try:
        if node.tag not in _NO_TEXT:
            text.encode()  # a lone surrogate, by an escape, could neither be hashed nor written
            return text
        if len(text) > MAX_DIGITS:
            raise _problem(node, f"a number of more than {MAX_DIGITS} digits; text goes in quotes")
        constructor = yaml.constructor.SafeConstructor()
        return constructor.yaml_constructors[node.tag](constructor, node)
    except (ValueError, LookupError) as error:
        kind = node.tag.removeprefix(_TAG)
        raise _problem(node, f"`{_brief(ascii(text)[1:-1])}` is no valid {kind}") from error


def _problem(at: yaml.Node | yaml.Event, message: str) -> _RefusedError:
    return _RefusedError(problem=message, problem_mark=cast(yaml.Mark, at.start_mark))


def _brief(text: object) -> str:
    """As one line of at most 80 characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= 80 else f"{line[:77]}..."
