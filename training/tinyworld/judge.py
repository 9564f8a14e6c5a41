"""The judge `world`: TinyWorld's oracle, which knows the truth about every question that the world can ask.

from training.judges.world import find
find("Where was Tebok born?")
"""

from __future__ import annotations

import re
from functools import lru_cache

from ske_models.errors import UserError
from ske_tasks.world import default_world, oracle
from ske_tasks.world.questions import TEMPLATES, Question, Template, ask
from training.judges.verdict import Verdict


def judge(id_: str, question: str, knowledge: str, reasoning: str | None) -> Verdict:
    """The oracle's verdict on knowledge, or on reasoning where there is one.

    Raises UserError, naming the question, if it is none of TinyWorld's.
    """
    asked = find(question)
    if asked is None:
        raise UserError(
            f"judge world: {id_} is no question of TinyWorld: {question[:80]!r}; use another judge, or "
            "questions of `source: world` only"
        )
    if reasoning is None:
        judgement = oracle.judge_knowledge(asked, knowledge, default_world())
    else:
        judgement = oracle.judge_reasoning(asked, knowledge, reasoning, default_world())
    return Verdict(judgement.score, judgement.text)


@lru_cache(maxsize=100_000)
def find(question: str) -> Question | None:
    """The question that a text asks, options included; None if the world has none of that wording.

    It is found by its text, because an id says where a text came from, and a model that writes questions
    may write one that exists.
    """
    world = default_world()
    stem = question.partition("\n")[0]
    for template, pattern in _patterns():
        match = pattern.fullmatch(stem)
        if match and all(world.kind_of.get(name) == "person" for name in match.groups()):
            asked = ask(world, template, match.groups())
            if asked.question == question:
                return asked
    return None


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[Template, re.Pattern[str]]]:
    patterns = []
    for template in TEMPLATES:
        pattern = re.escape(template.text)
        for name in "pq":
            pattern = pattern.replace(rf"\{{{name}\}}", rf"(?P<{name}>\w+)", 1)
            pattern = pattern.replace(rf"\{{{name}\}}", f"(?P={name})")
        patterns.append((template, re.compile(pattern)))
    return patterns
