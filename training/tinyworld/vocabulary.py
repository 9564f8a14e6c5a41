"""The words of the embedded model: every word, name and mark that any text of the world can hold.

python -c "from ske_tasks.world import default_world as w, vocabulary as v; print(v.words(w()))"
"""

from __future__ import annotations

import re

from ske_models.prompts import TEMPLATES as PROMPT_TEMPLATES
from ske_models.prompts import PromptSet
from ske_tasks.world.facts import RELATIONS, World
from ske_tasks.world.questions import LETTERS, TEMPLATES

# What a text is cut into: a word, a mark, or the end of a line. Spaces are not kept.
WORD = r"\w+|[^\w\s]|\n"

SPECIAL = ("<|pad|>", "<|unk|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# The words of answers, judgements and checks.
_OTHER = (
    "The answer is unknown yes no ( ) : , . and are the same different "
    "ok wrong missing extra Score Check Facts"
)


def words(world: World) -> list[str]:
    """All tokens but the special ones, in a fixed order."""
    texts = [_OTHER, *LETTERS, *map(str, range(1, 11)), "\n"]
    texts += [phrase for relation in RELATIONS.values() for phrase in relation.phrases]
    texts += [template.text for template in TEMPLATES]
    texts = [re.sub(r"\{\w\}", " ", text) for text in texts]
    found = dict.fromkeys(word for text in texts for word in re.findall(WORD, text))
    found.update(dict.fromkeys(name for names in world.entities.values() for name in names))
    return list(found)


def prompt_words(prompts: PromptSet) -> list[str]:
    """The words of a prompt set's templates."""
    found: dict[str, None] = {}
    for name in prompts.templates:
        must, may = PROMPT_TEMPLATES[name]
        text = prompts.render(name, **dict.fromkeys(must | may, ""))
        found.update(dict.fromkeys(re.findall(WORD, text)))
    return list(found)
