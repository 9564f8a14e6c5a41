"""Questions about the world's people: templates, and the rows that are made from them.

    from ske_tasks.world import default_world, questions
    rows = questions.sample(default_world(), "dev", {"two_hop": 100, "comparison": 50}, seed=0)

A question is asked about the people of one split. Nothing numeric is compared: a comparison asks
whether two chains of facts end at the same thing, and is answered with yes as often as with no.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ske_models.yaml_data import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ske_tasks.world.facts import Fact, World

KINDS = ("one_hop", "two_hop", "three_hop", "four_hop", "multiple_choice", "comparison")
LETTERS = "ABCD"
PAIRS = 40  # comparisons per template, split and answer (yes, no), at most


@dataclass(frozen=True)
class Template:
    """A way to ask for the end of a chain of relations. `held_out`: in no training data."""

    id: str
    kind: str
    chain: tuple[str, ...]
    text: str
    held_out: bool = False


def _templates() -> tuple[Template, ...]:
    file = Path(__file__).with_name("templates.yaml")
    listed = load_yaml(file, str(file))
    templates = []
    for group, chains in listed.items():
        for names, texts in chains.items():
            chain = tuple(names.split())
            kind = KINDS[len(chain) - 1] if group == "open" else group
            for i, text in enumerate(texts):
                held_out = isinstance(text, dict)
                words = text["held_out"] if held_out else text
                templates.append(Template(f"{kind}-{'-'.join(chain)}-{i}", kind, chain, words, held_out))
    return tuple(templates)


TEMPLATES = _templates()


@dataclass(frozen=True)
class Question:
    """A question with its truth.

    stem: the question without options; question: as it is asked. options: () or four things, A to D.
    gold: the answer as it must be given. facts: what is needed, in order (a comparison: the first person's
    chain, then the second's). hops: the length of the chain.
    """

    id: str
    kind: str
    chain: tuple[str, ...]
    template: str
    people: tuple[str, ...]
    stem: str
    question: str
    options: tuple[str, ...]
    gold: str
    facts: tuple[Fact, ...]

    @property
    def hops(self) -> int:
        """The length of the chain."""
        return len(self.chain)

    @property
    def knowledge(self) -> str:
        """The needed facts as text: what a perfect extraction writes."""
        return " ".join(fact.text() for fact in self.facts)


def ask(world: World, template: Template, people: tuple[str, ...]) -> Question:
    """The question of a template about one person, or about two for a comparison."""
    name = "-".join((template.id, *people))
    chains = [world.follow(person, template.chain) for person in people]
    answer = chains[0][-1].object
    stem = template.text.format(p=people[0], q=people[-1])
    question, gold = stem, answer
    options: tuple[str, ...] = ()
    if template.kind == "comparison":
        gold = "yes" if answer == chains[1][-1].object else "no"
    if template.kind == "multiple_choice":
        rng = random.Random(f"{world.seed}-{name}")
        others = [thing for thing in world.entities[world.kind_of[answer]] if thing != answer]
        shuffled = [answer, *rng.sample(others, len(LETTERS) - 1)]
        rng.shuffle(shuffled)
        options = tuple(shuffled)
        question = with_options(stem, options)
        gold = f"{answer} ({LETTERS[options.index(answer)]})"
    facts = tuple(fact for chain in chains for fact in chain)
    return Question(
        name, template.kind, template.chain, template.id, people, stem, question, options, gold, facts
    )


def with_options(stem: str, options: tuple[str, ...]) -> str:
    """A multiple-choice question as it is asked: an option a line."""
    return "\n".join(
        (stem, *(f"{letter}: {option}" for letter, option in zip(LETTERS, options, strict=True)))
    )


def of_template(world: World, template: Template, people: Iterable[str], seed: int = 0) -> list[Question]:
    """A template's questions about `people`, shuffled. Comparisons: as many with yes as with no."""
    rng = random.Random(f"{world.seed}-{template.id}-{seed}")
    people = list(people)
    if template.kind != "comparison":
        rows = [ask(world, template, (person,)) for person in people]
    else:
        pairs = list(itertools.combinations(people, 2))
        rng.shuffle(pairs)
        by_answer: dict[bool, list[tuple[str, ...]]] = {True: [], False: []}
        for pair in pairs:
            ends = {world.follow(person, template.chain)[-1].object for person in pair}
            by_answer[len(ends) == 1].append(tuple(rng.sample(pair, 2)))
        n = min(PAIRS, *map(len, by_answer.values()))
        rows = [ask(world, template, pair) for pairs in by_answer.values() for pair in pairs[:n]]
    rng.shuffle(rows)
    return rows


def everything(world: World, split: str, held_out: bool = False) -> list[Question]:
    """All questions of one split's people, template by template."""
    templates = [template for template in TEMPLATES if template.held_out == held_out]
    return [row for template in templates for row in of_template(world, template, world.splits[split])]


def sample(
    world: World, split: str, sizes: dict[str, int], seed: int, held_out: bool = False
) -> list[Question]:
    """`sizes[kind]` distinct questions of each kind, spread evenly over its templates, in a fixed order.

    Raises ValueError if a kind has fewer.
    """
    rows = everything(world, split, held_out)
    rng = random.Random(f"{world.seed}-{split}-{seed}")
    picked = []
    for kind, size in sizes.items():
        queues: dict[str, list[Question]] = {}
        for row in rows:
            if row.kind == kind:
                queues.setdefault(row.template, []).append(row)
        for queue in queues.values():
            rng.shuffle(queue)
        turns = [row for turn in itertools.zip_longest(*queues.values()) for row in turn if row is not None]
        if len(turns) < size:
            raise ValueError(
                f"{size} questions of kind {kind} asked for, but the {split} people give {len(turns)}"
            )
        picked += turns[:size]
    rng.shuffle(picked)
    return picked
