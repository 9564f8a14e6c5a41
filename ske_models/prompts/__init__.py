"""Prompt sets: the texts of the method as a file, with a content hash that goes into every result.

    lm_eval --model ske_explicit --model_args prompts=my.yaml,...     # a copy of default.yaml, edited

A prompt set is YAML with jinja2 templates (`TEMPLATES` below says which, and which variables each must
use) and `limits: {knowledge: N}`, the token limit of the knowledge step. The paper does not publish its
prompts; those in `default.yaml` are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta

from ske_models.errors import UserError
from ske_models.fingerprint import digest
from ske_models.yaml_data import load_yaml

FOLDER = Path(__file__).parent

# Each template's variables: those it must use, and those it may use.
TEMPLATES: dict[str, tuple[set[str], set[str]]] = {
    "extract": ({"question"}, set()),
    "reason": ({"question", "knowledge"}, {"ending"}),
    "reason_multiturn": (set(), {"ending"}),
    "given": ({"question", "knowledge"}, set()),
    "cot": ({"question"}, {"ending"}),
    "ask": ({"passage"}, set()),
    "score_knowledge": ({"question", "knowledge"}, set()),
    "score_reasoning": ({"question", "knowledge", "reasoning"}, set()),
}

_jinja = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
_jinja.globals.clear()  # a template sees its variables alone


@dataclass(frozen=True)
class PromptSet:
    """One prompt set. `hash`: digest of its content, whatever the order of its entries."""

    name: str
    templates: dict[str, str]
    knowledge_tokens: int
    hash: str

    def render(self, template: str, **variables: str) -> str:
        """The text of one template. Raises `jinja2.UndefinedError` if a variable it uses is missing."""
        return _compiled(self.templates[template]).render(**variables)


@lru_cache(maxsize=256)
def _compiled(source: str) -> jinja2.Template:
    template = _jinja.from_string(source)
    template.globals = {}  # of a chain of empty ones jinja2 would make a copy for each rendering
    return template


def names() -> list[str]:
    """The prompt sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name_or_path: str) -> PromptSet:
    """A prompt set by its name (`default`, `world`) or the path of a YAML file.

    Raises UserError: no such set or file, not YAML, a template missing, unknown, or without a variable
    that it must use, a token limit that is no positive number.
    """
    path = FOLDER / f"{name_or_path}.yaml" if name_or_path in names() else Path(name_or_path).expanduser()
    if not path.is_file():
        raise UserError(
            f"prompts={name_or_path}: no such file, nor a prompt set of that name ({', '.join(names())})"
        )
    return _validated(name_or_path, path, load_yaml(path, f"prompts={path}"))


def _validated(name: str, path: Path, content: Any) -> PromptSet:
    if not isinstance(content, dict):
        raise UserError(f"prompts={path}: a mapping of templates is needed; copy {FOLDER / 'default.yaml'}")
    content = dict(content)
    limits = content.pop("limits", {})
    knowledge_tokens = limits.get("knowledge") if isinstance(limits, dict) else None
    if not isinstance(knowledge_tokens, int) or knowledge_tokens < 1:
        raise UserError(f"prompts={path}: write `limits: {{knowledge: N}}` with N >= 1 (tokens)")
    missing, unknown = TEMPLATES.keys() - content.keys(), content.keys() - TEMPLATES.keys()
    if missing or unknown:
        raise UserError(
            f"prompts={path}: templates missing: {sorted(missing) or 'none'}; "
            f"unknown: {sorted(unknown) or 'none'}"
        )
    for key, source in content.items():
        _check_template(path, key, source)
    if not content["given"].endswith("{{ question }}"):
        # A context may end in a cue ("Answer:") that the continuation must follow directly.
        raise UserError(f"prompts={path}: `given` must end with {{{{ question }}}}")
    return PromptSet(name, content, knowledge_tokens, digest({**content, "limits": limits}))


def _check_template(path: Path, key: str, source: Any) -> None:
    if not isinstance(source, str):
        raise UserError(f"prompts={path}: `{key}` must be text")
    try:
        used = jinja2.meta.find_undeclared_variables(_jinja.parse(source))
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"prompts={path}: `{key}`, line {error.lineno}: {error.message}") from error
    must, may = TEMPLATES[key]
    for variable in sorted(must - used):
        raise UserError(
            f"prompts={path}: `{key}` does not use {{{{ {variable} }}}} (two braces on each side)"
        )
    for variable in sorted(used - must - may):
        raise UserError(f"prompts={path}: `{key}` uses {{{{ {variable} }}}}; it may use {sorted(must | may)}")
