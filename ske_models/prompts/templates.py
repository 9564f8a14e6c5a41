"""The language of a prompt set's templates: so small a part of jinja2 that a template is data.

    python -c "from ske_models.prompts.templates import compiled; print(compiled('{{ a }}!').render(a='b'))"

What there is: text; `{{ variable }}`; `{% if variable %}`, `{% elif %}`, `{% else %}`; `not`, `and`, `or`,
`==`, `!=`, `{{ a if b else c }}`, text in quotes; the filters trim, upper, lower; comments; `{% raw %}`.
Nothing in it reads an attribute, calls, loops, computes or raises, so what a template may do is decided when
it is parsed: a rendered text has at most the template's characters, and each of `MAX_USES` variables once.
"""

from __future__ import annotations

from functools import lru_cache

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARACTERS = 20_000  # of a template
MAX_USES = 100  # of variables in a template
MAX_DEPTH = 25  # conditions and operators in each other
FILTERS = ("trim", "upper", "lower")
LANGUAGE = "a template has text, {{ variable }} and {% if variable %}...{% endif %}"

_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.If,
    nodes.CondExpr,
    nodes.Not,
    nodes.And,
    nodes.Or,
)
_CALLED = {  # what a reader would call it
    nodes.Getattr: "an attribute",
    nodes.Getitem: "an index",
    nodes.Call: "a call",
    nodes.BinExpr: "arithmetic",
    nodes.UnaryExpr: "arithmetic",
    nodes.Concat: "arithmetic",
    nodes.Literal: "a value other than text",
    nodes.For: "a loop",
    nodes.Assign: "{% set %}",
    nodes.AssignBlock: "{% set %}",
    nodes.FilterBlock: "{% filter %}",
    nodes.CallBlock: "{% call %}",
    nodes.FromImport: "{% import %}",
    nodes.Scope: "{% autoescape %}",
}

# Sandboxed on top of that: a fault here would still not reach an attribute of an object.
_jinja = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
)
_jinja.globals.clear()  # a template sees its variables alone
_jinja.tests.clear()
_jinja.filters = {name: _jinja.filters[name] for name in FILTERS}


class TemplateError(Exception):
    """A template that is not in the language. line: of the template, from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@lru_cache(maxsize=256)
def compiled(source: str) -> jinja2.Template:
    """A template, to be rendered with its variables as text. Raises TemplateError."""
    variables(source)
    template = _jinja.from_string(source)
    template.globals = {}  # of a chain of empty ones jinja2 would make a copy for each rendering
    return template


@lru_cache(maxsize=256)
def variables(source: str) -> frozenset[str]:
    """The variables that a template uses. Raises TemplateError where it is not in the language."""
    if len(source) > MAX_CHARACTERS:
        raise TemplateError(f"over {MAX_CHARACTERS:,} characters", 1)
    names: list[str] = []
    waiting: list[tuple[nodes.Node, int]] = [(_parsed(source), 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise TemplateError(f"more than {MAX_DEPTH} conditions and operators in each other", node.lineno)
        _check(node)
        if isinstance(node, nodes.Name):
            names.append(node.name)
            if len(names) > MAX_USES:
                raise TemplateError(f"uses variables more than {MAX_USES} times", node.lineno)
        waiting += reversed([(below, depth + 1) for below in node.iter_child_nodes()])
    return frozenset(names)


def _parsed(source: str) -> nodes.Template:
    try:
        return _jinja.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(" ".join(str(error.message).split())[:200], error.lineno) from error
    except RecursionError as error:
        raise TemplateError(f"more than {MAX_DEPTH} conditions and operators in each other", 1) from error
    except ValueError as error:  # Python makes no number of over 4,300 digits
        raise TemplateError(f"a number; {LANGUAGE}", 1) from error


def _check(node: nodes.Node) -> None:
    """Raises TemplateError if a node, whatever is in it, is not of the language."""
    if isinstance(node, _PLAIN) or (isinstance(node, nodes.Name) and node.ctx == "load"):
        return
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        return
    if isinstance(node, nodes.Compare | nodes.Operand):
        operators = [node] if isinstance(node, nodes.Operand) else node.ops
        if all(operator.op in {"eq", "ne"} for operator in operators):
            return
        raise TemplateError("of comparisons there are == and !=", node.lineno)
    if isinstance(node, nodes.Filter) and node.node is not None:
        arguments = node.args or node.kwargs or node.dyn_args or node.dyn_kwargs
        if node.name in FILTERS and not arguments:
            return
        raise TemplateError(f"filter `{node.name[:40]}`: there are {', '.join(FILTERS)}", node.lineno)
    if isinstance(node, nodes.Test):
        raise TemplateError(f"test `is {node.name[:40]}`; {LANGUAGE}", node.lineno)
    statement = f"{{% {type(node).__name__.lower()} %}}"
    called = next((words for kind, words in _CALLED.items() if isinstance(node, kind)), statement)
    raise TemplateError(f"{called} is not supported; {LANGUAGE}", node.lineno or 1)
