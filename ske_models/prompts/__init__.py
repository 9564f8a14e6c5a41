"""Prompt sets: the texts of the method as a file, with a content hash that goes into every result.

    lm_eval --model ske_explicit --model_args prompts=my.yaml,...     # a copy of default.yaml, edited

A prompt set is YAML with templates (`TEMPLATES` below says which, and which variables each must use; what a
template may hold is in `ske_models/prompts/templates.py`) and `limits: {knowledge: N}`, the token limit of
the knowledge step. It is data: people pass such files around, and nothing in one can run. The paper does not
publish its prompts; those in `default.yaml` are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import user_path
from ske_models.fingerprint import digest
from ske_models.prompts.templates import TemplateError, compiled, variables
from ske_models.yaml_data import Lines, load_with_lines

FOLDER = Path(__file__).parent
MAX_TOKENS = 1_000_000  # of a knowledge text

# Each template's variables: those it must use, and those it may use. `stem` is the question without its
# options; a set may show it in step 1 instead of the question.
TEMPLATES: dict[str, tuple[set[str], set[str]]] = {
    "extract": (set(), {"question", "stem"}),
    "reason": ({"question", "knowledge"}, {"ending"}),
    "reason_multiturn": (set(), {"question", "ending"}),
    "given": ({"question", "knowledge"}, set()),
    "cot": ({"question"}, {"ending"}),
    "ask": ({"passage"}, set()),
    "score_knowledge": ({"question", "knowledge"}, set()),
    "score_reasoning": ({"question", "knowledge", "reasoning"}, set()),
}


@dataclass(frozen=True)
class PromptSet:
    """One prompt set. `hash`: digest of its content, whatever the order of its entries."""

    name: str
    templates: dict[str, str]
    knowledge_tokens: int
    hash: str

    @property
    def uses_stem(self) -> bool:
        """Whether step 1 is shown the question without its options."""
        return "stem" in variables(self.templates["extract"])

    def render(self, template: str, **values: str) -> str:
        """The text of one template. Raises `jinja2.UndefinedError` if a variable it uses is missing."""
        return compiled(self.templates[template]).render(**values)


def names() -> list[str]:
    """The prompt sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name_or_path: str) -> PromptSet:
    """A prompt set by its name (`default`, `world`) or the path of a YAML file.

    Raises UserError: no such set or file, what `load_yaml` refuses, a template missing, unknown, outside the
    language of templates, or without a variable that it must use, a token limit that is no positive number.
    """
    if name_or_path in names():
        path = FOLDER / f"{name_or_path}.yaml"
    else:
        path = user_path(name_or_path, f"prompts={name_or_path}")
    if not path.is_file():
        raise UserError(
            f"prompts={name_or_path}: no such file, nor a prompt set of that name ({', '.join(names())})"
        )
    return _validated(name_or_path, path, *load_with_lines(path, f"prompts={path}"))


def _validated(name: str, path: Path, content: Any, lines: Lines) -> PromptSet:
    if not isinstance(content, dict):
        raise UserError(f"prompts={path}: a mapping of templates is needed; copy {FOLDER / 'default.yaml'}")
    content = dict(content)
    limits = content.pop("limits", {})
    tokens = limits.get("knowledge") if isinstance(limits, dict) and len(limits) == 1 else None
    if type(tokens) is not int or not 1 <= tokens <= MAX_TOKENS:
        bounds = f"with 1 <= N <= {MAX_TOKENS:,} (tokens)"
        raise UserError(f"prompts={path}: write `limits: {{knowledge: N}}` {bounds}")
    missing, unknown = TEMPLATES.keys() - content.keys(), content.keys() - TEMPLATES.keys()
    if missing or unknown:
        raise UserError(
            f"prompts={path}: templates missing: {sorted(missing) or 'none'}; "
            f"unknown: {sorted(name[:40] for name in unknown)[:5] or 'none'}"
        )
    for key, source in content.items():
        _check_template(f"prompts={path}, line {lines[key,]}: `{key}`", key, source)
    if not {"question"} & (variables(content["extract"]) | variables(content["reason_multiturn"])):
        raise UserError(
            f"prompts={path}: `extract` shows the question without its options ({{{{ stem }}}}); then "
            "`reason_multiturn` must use {{ question }}, or nothing in the conversation shows them"
        )
    if not content["given"].endswith("{{ question }}"):
        # A context may end in a cue ("Answer:") that the continuation must follow directly.
        raise UserError(f"prompts={path}: `given` must end with {{{{ question }}}}")
    return PromptSet(name, content, tokens, digest({**content, "limits": limits}))


def _check_template(where: str, key: str, source: Any) -> None:
    """Parses a template and renders it once. where: file, line and name, for messages."""
    if not isinstance(source, str):
        raise UserError(f"{where} must be text")
    must, may = TEMPLATES[key]
    try:
        used = variables(source)
        compiled(source).render(dict.fromkeys(used, "text"))
    except TemplateError as error:
        raise UserError(f"{where}, line {error.line} of the template: {error}") from error
    if key == "extract" and not {"question", "stem"} & used:
        raise UserError(
            f"{where} uses neither {{{{ question }}}} nor {{{{ stem }}}} (the question without its options)"
        )
    for variable in sorted(must - used):
        raise UserError(f"{where} does not use {{{{ {variable} }}}} (two braces on each side)")
    for variable in sorted(used - must - may):
        raise UserError(f"{where} uses {{{{ {variable[:40]} }}}}; it may use {sorted(must | may)}")
