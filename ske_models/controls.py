"""Knowledge that is none: compare a gain by `explicit` with it to see whether the knowledge's content counts.

    lm_eval --model ske_explicit --model_args knowledge=shuffled,...   # another question's, of the same set
    lm_eval --model ske_explicit --model_args knowledge=empty,...      # an empty text

Everything else, the prompts of both steps included, is as in the run that it is a control of. `shuffled`
takes what the store has: only questions whose knowledge is not written yet cost anything.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ske_models.errors import UserError
from ske_models.knowledge import Given
from ske_models.method import Question
from ske_models.records import Item

SHUFFLED = "shuffled"
EMPTY = "empty"
CONTROLS = (SHUFFLED, EMPTY)


class EmptyKnowledge:
    """In place of a knowledge file: an empty text for every question."""

    path = None

    def get(self, question: str) -> Given:
        return Given("", edited=False, source=EMPTY)

    def check_used(self, questions: Iterable[str]) -> None:
        """It has every question."""


def with_donors(items: Sequence[Item], seed: int = 0) -> list[Item]:
    """The items, each with the question whose knowledge it is given: another one of its group.

    Within a group the questions pass their knowledge on in a circle, in an order drawn by `seed`; so each
    one's is used once. The order of `items` does not matter. A question that is alone in its group (a subset)
    gets that of a question of its task.
    Raises UserError for a task of a single question.
    """
    # by group, too: two tasks, or two subsets, may have the same question
    donors: dict[tuple[tuple[str, ...], str], Question] = {}
    for names in (1, 2):  # by task first; then by task and subset, where that has several questions
        groups: dict[tuple[str, ...], dict[str, Question]] = {}
        for item in items:
            groups.setdefault(item.group[:names], {}).setdefault(item.question.text, item.question)
        for group, questions in groups.items():
            if len(questions) > 1:
                order = sorted(questions)
                random.Random(f"{seed} {group}").shuffle(order)
                following = [*order[1:], order[0]]
                for text, other in zip(order, following, strict=True):
                    donors[group, text] = questions[other]
            elif names == 1:
                raise UserError(
                    f"knowledge={SHUFFLED}: {group[0] or 'the task'} has one question, 2 are needed"
                )
    given = []
    for item in items:
        donor = donors.get((item.group, item.question.text)) or donors[item.group[:1], item.question.text]
        given.append(replace(item, donor=donor))
    return given
