"""The chat template of a base model that has none: a file that the recipe names.

python -c "from training.data.chat_template import read; print(read('llama3'))"

transformers renders it as the template of any checkpoint, in an `ImmutableSandboxedEnvironment` of its own
(utils/chat_template_utils.py, 5.19 to 5.24): no private attribute is read, and nothing that it is given
changes. A sandbox does not stop work without end, though. So a file is checked before it is used: of
statements, calls, filters and operators only those that chat templates need, and loops over what is given
alone, at most two in each other.
"""

from __future__ import annotations

import re

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ske_models.errors import UserError
from training.recipe import FOLDER
from training.settings.paths import file_at

MAX_BYTES = 50_000
MAX_LOOPS = 2  # in each other
GIVEN = {"messages", "tools", "documents"}  # what a loop may run over, and what is taken from it
FUNCTIONS = {"namespace", "raise_exception", "strftime_now"}
METHODS = set("endswith get items keys lower lstrip rsplit rstrip split splitlines startswith strip".split())
METHODS |= set("title upper values".split())
FILTERS = set("count d default first items join last length list lower rejectattr reverse safe".split())
FILTERS |= set("selectattr string tojson trim upper".split())
_REFUSED = (
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
    nodes.Macro,
    nodes.CallBlock,
    nodes.FilterBlock,
    nodes.Mul,
    nodes.Pow,
    nodes.Div,
    nodes.FloorDiv,
)
_WIDTH = re.compile(r"%[^%a-zA-Z]*[\d*]")  # "%999d": a format with a width


class Generation(Extension):
    """transformers' mark of what an assistant writes, `{% generation %}...{% endgeneration %}`."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read(name_or_path: str) -> str:
    """The text of a template: `llama3`, another of training/recipes/*.jinja, or a file.

    Raises UserError, of one line: no such file, too large, not UTF-8, not jinja2, or more than a chat needs.
    """
    ours = {path.stem: path for path in sorted(FOLDER.glob("*.jinja"))}
    what = f"model.base.chat_template: {name_or_path}"
    path = ours.get(name_or_path) or file_at(name_or_path)
    if path is None:
        raise UserError(f"{what}: no such file, nor a template of that name ({', '.join(ours)})")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{what}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{what}: over {MAX_BYTES:,} bytes")
    try:
        source = content.decode("utf-8")
        environment = ImmutableSandboxedEnvironment(extensions=[Generation, loopcontrols])
        tree = environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{what}, line {error.lineno}: {' '.join(str(error.message).split())}") from error
    except RecursionError as error:
        raise UserError(f"{what}: too many parts in each other") from error
    except ValueError as error:  # no UTF-8, or a number of over 4,300 digits
        raise UserError(f"{what}: {str(error)[:100]}") from error
    _check(tree, what)
    try:
        environment.from_string(source)  # an unknown test
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{what}, line {error.lineno}: {' '.join(str(error.message).split())}") from error
    return source


def _check(tree: nodes.Template, what: str) -> None:
    """Raises UserError at the first node that a chat does not need."""
    given = _given(tree)
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, loops = waiting.pop()
        if isinstance(node, nodes.For):
            loops += 1
            reason = _refused_loop(node, loops, given)
        else:
            reason = _refused(node)
        if reason is not None:
            raise UserError(f"{what}, line {node.lineno}: {reason}; a chat template does not need it")
        waiting += reversed([(below, loops) for below in node.iter_child_nodes()])


def _refused_loop(node: nodes.For, loops: int, given: set[str]) -> str | None:
    if node.recursive:
        return "a recursive loop"
    if loops > MAX_LOOPS:
        return f"more than {MAX_LOOPS} loops in each other"
    return None if _roots(node.iter) <= given else "a loop over what is not given"


def _refused(node: nodes.Node) -> str | None:
    if isinstance(node, _REFUSED):
        return f"`{type(node).__name__.lower()}`"
    if isinstance(node, nodes.Call):
        called = node.node
        known = isinstance(called, nodes.Name) and called.name in FUNCTIONS
        known |= isinstance(called, nodes.Getattr) and called.attr in METHODS
        return None if known else "a call of another function than " + ", ".join(sorted(FUNCTIONS))
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"the filter `{node.name[:40]}`"
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and _WIDTH.search(node.value):
        return "a text with a format of a width (%9d)"
    return None


def _given(tree: nodes.Template) -> set[str]:
    """`GIVEN`, and the names that only stand for parts of it: of loops, and of `{% set %}`."""
    sources: dict[str, set[str]] = {}
    pairs = [(loop.target, loop.iter) for loop in tree.find_all(nodes.For)]
    pairs += [(assigned.target, assigned.node) for assigned in tree.find_all(nodes.Assign)]
    for target, value in pairs:
        names = [target] if isinstance(target, nodes.Name) else target.find_all(nodes.Name)
        for name in names:
            sources.setdefault(name.name, set()).update(_roots(value))
    given = GIVEN - sources.keys()
    while more := {name for name, roots in sources.items() if roots <= given | {name}} - given:
        given |= more
    return given


def _roots(node: nodes.Node | None) -> set[str]:
    """The names that an expression takes a part of; {""} where it is made from something else."""
    if isinstance(node, nodes.Name):
        return {node.name}
    if isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Call | nodes.Filter):
        return _roots(node.node)
    if isinstance(node, nodes.CondExpr):
        return _roots(node.expr1) | _roots(node.expr2)
    return {""}
