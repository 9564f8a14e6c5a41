"""Parts of a recipe whose class depends on a word in them, and arguments that go to a backend.

by_tag("source", (DatasetQuestions, PassageQuestions), lambda domain: domain.questions)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, PlainValidator
from pydantic_core import PydanticKnownError

from training import domains
from training.domain import Domain
from training.settings.secret import secret_in
from training.settings.strict import Strict

# Arguments that a run sets itself.
OURS = ("pretrained", "backend", "method", "prompts", "layout", "store")


class Part(Protocol):
    """What a domain gives for a section of the recipe."""

    @property
    def settings(self) -> type[Strict]:
        """The class of that section."""
        ...


def by_tag(
    key: str, own: Sequence[type[Strict]], of_domain: Callable[[Domain], Part | None]
) -> PlainValidator:
    """Validates a mapping by the class that its `key` names: one of `own`, or that of a domain of that name.

    own: classes with a field `key` of one literal. It is pydantic's discriminated union, open to domains
    that are registered later.
    """
    classes = {model.model_fields[key].annotation.__args__[0]: model for model in own}  # type: ignore[union-attr]

    def validate(value: Any) -> Strict:
        if isinstance(value, Strict):
            return value
        if not isinstance(value, dict):
            raise PydanticKnownError("dict_type")
        if key not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": f"'{key}'"})
        tag = value[key]
        domain = domains.named(tag) if isinstance(tag, str) and tag not in classes else None
        part = of_domain(domain) if domain else None
        model = part.settings if part else classes.get(tag) if isinstance(tag, str) else None
        if model is None:
            known = [*classes, *(d.name for d in domains.every() if of_domain(d))]
            raise PydanticKnownError(
                "union_tag_invalid",
                {
                    "discriminator": f"'{key}'",
                    "tag": str(tag)[:80],
                    "expected_tags": ", ".join(f"'{name}'" for name in known),
                },
            )
        return model.model_validate(value)

    return PlainValidator(validate)


def _arguments(args: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for an argument that a run sets itself, a secret, or a number that is none."""
    for name, value in args.items():
        if name in OURS:
            raise ValueError(f"`{name}` is set by the run itself; leave it out")
        if why := secret_in(name, value):
            raise ValueError(why)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{name}` must be a finite number")
    return args


Arguments = Annotated[dict[str, Any], AfterValidator(_arguments)]
