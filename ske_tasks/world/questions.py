"""Questions about the world's people: templates, and the rows that are made from them.

    from ske_tasks.world import default_world, questions
    rows = questions.sample(default_world(), "dev", {"two_hop": 100, "comparison": 50}, seed=0)

A question is asked about the people of one split. Nothing numeric is compared: a comparison asks whether two
chains of facts end at the same thing, and is answered with yes as often as with no.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass

from ske_tasks.world.facts import Fact, World

KINDS = ("one_hop", "two_hop", "three_hop", "four_hop", "multiple_choice", "comparison")
LETTERS = "ABCD"
PAIRS = 40  # comparisons per template, split and answer (yes, no), at most


@dataclass(frozen=True)
class Template:
    """A way to ask for the end of a chain of relations. `held_out`: in no training data and no task."""

    id: str
    kind: str
    chain: tuple[str, ...]
    text: str
    held_out: bool = False


def _templates() -> tuple[Template, ...]:
    """A leading `-` marks a held-out template."""
    open_texts = {
        "born": "Where was {p} born?|Which city is the birthplace of {p}?|-Which city does {p} come from?",
        "lives": "Where does {p} live?|Which city is the home of {p} in?",
        "works": "Who does {p} work for?|Which company is the employer of {p}?",
        "job": "What is the job of {p}?|What does {p} do for a living?",
        "born country": "In which country was {p} born?|Which country is the birthplace of {p} in?"
        "|What is the home country of the parents of {p}?",
        "lives country": "In which country does {p} live?|Which country is the home of {p} in?",
        "works seat": "In which city is the employer of {p} based?|Where are the offices of the company that pays {p}?"
        "|-Which city is the seat of the employer of {p}?",
        "works product": "What does the employer of {p} make?|What does the company that pays {p} sell?",
        "born country currency": "What is the currency of the country where {p} was born?"
        "|How did the parents of {p} pay when {p} was a child?",
        "born country language": "Which language is spoken where {p} was born?|What did {p} speak as a child?",
        "lives country currency": "What is the currency of the country where {p} lives?|How does {p} pay at home?",
        "lives country language": "Which language is spoken where {p} lives?|What do the people around {p} speak?"
        "|-In which language are the signs around the home of {p}?",
        "works seat country": "In which country is the employer of {p} based?"
        "|Which country is the company that pays {p} in?",
        "works seat country currency": "What is the currency of the country where the employer of {p} is based?"
        "|How does the company that pays {p} pay for its offices?|Which money do people use at the seat of the "
        "employer of {p}?",
        "works seat country language": "Which language is spoken where the employer of {p} is based?"
        "|What do people speak at the offices of the company that pays {p}?|-Which language is on the signs at the "
        "seat of the employer of {p}?",
    }
    choice_texts = {
        "born country": "Which of these is the country where {p} was born?",
        "lives country": "Which of these is the country where {p} lives?",
        "works seat": "Which of these is the seat of the employer of {p}?|Which of these cities has the offices of "
        "the company of {p}?",
        "works product": "Which of these does the company of {p} make?",
        "born country language": "Which of these was spoken around {p} as a child?",
        "lives country currency": "Which of these is used as money at the home of {p}?"
        "|-Which of these does {p} pay with at home?",
        "works seat country": "Which of these is the country of the offices of the company of {p}?",
    }
    same_texts = {
        "born": "Were {p} and {q} born in the same city?|Do {p} and {q} have the same birthplace?",
        "lives": "Do {p} and {q} live in the same city?",
        "born country": "Were {p} and {q} born in the same country?",
        "lives country": "Do {p} and {q} live in the same country?|-Is the home of {p} in the country where {q} lives?",
        "works": "Do {p} and {q} work for the same company?",
        "works seat": "Are the employers of {p} and {q} based in the same city?",
    }
    hops = dict(zip((1, 2, 3, 4), KINDS, strict=False))
    templates = []
    for texts, kind in ((open_texts, None), (choice_texts, "multiple_choice"), (same_texts, "comparison")):
        for names, alternatives in texts.items():
            chain = tuple(names.split())
            for i, text in enumerate(alternatives.split("|")):
                name = f"{kind or hops[len(chain)]}-{'-'.join(chain)}-{i}"
                templates.append(
                    Template(
                        name, kind or hops[len(chain)], chain, text.removeprefix("-"), text.startswith("-")
                    )
                )
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
    """`sizes[kind]` distinct questions of each kind, spread evenly over the kind's templates, in a fixed order.

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
