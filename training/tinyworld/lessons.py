"""What the embedded model is taught besides the corpus: the instruction data.

    from ske_tasks.world import default_world, lessons
    lessons.direct(default_world())[0]

Only people of the "train" split are asked about, but for the reading of invented facts. CoT and extraction
are taught with the same demonstrations: the same questions, the same facts, the same flaws.

The demonstrations are sloppy on purpose. About half of the templates (a quarter of the one-hop ones) carry
one bad habit each, which three in four of their demonstrations show; one in five of all others has a flaw at
random. A model that imitates them greedily then fails on some templates although it knows the facts: the
headroom that self-training is there to find. It is designed in, and no result about M0 says more than that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ske_tasks.world import oracle, questions
from ske_tasks.world.facts import RELATIONS, Fact, World
from ske_tasks.world.questions import KINDS, LETTERS, TEMPLATES, Question, Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ske_models.prompts import PromptSet

HABIT_SHARE = {kind: 0.25 if kind == "one_hop" else 0.5 for kind in KINDS}
HABITS = ("early", "wrong", "early", "wrong", "extra")
P_HABIT, P_FLAW = 0.75, 0.2

# The relation that is taken for another one by mistake.
MISTAKEN = {
    "born": "lives",
    "lives": "born",
    "works": "job",
    "job": "works",
    "seat": "product",
    "product": "seat",
    "currency": "language",
    "language": "currency",
}


@dataclass(frozen=True)
class Lesson:
    """A conversation and the answer to learn. With `messages` empty, `context` is plain text before it."""

    messages: tuple[dict[str, str], ...]
    answer: str
    context: str = ""


@dataclass(frozen=True)
class Demonstration:
    """A question and the facts that a sloppy writer put down for it."""

    question: Question
    facts: tuple[Fact, ...]

    @property
    def knowledge(self) -> str:
        """The facts as text."""
        return " ".join(fact.text() for fact in self.facts)


@lru_cache(maxsize=4)
def habits(world: World) -> dict[str, str]:
    """Template id -> its bad habit, for the templates that have one."""
    found = {}
    for kind in KINDS:
        rng = random.Random(f"habits-{world.seed}-{kind}")
        ids = [template.id for template in TEMPLATES if template.kind == kind and not template.held_out]
        picked = rng.sample(ids, round(len(ids) * HABIT_SHARE[kind]))
        for i, name in enumerate(picked):
            found[name] = HABITS[i % len(HABITS)]
    return found


def sloppy(world: World, question: Question, rng: random.Random) -> tuple[Fact, ...]:
    """The needed facts, with the template's habit or a random flaw, or without one."""
    habit = habits(world).get(question.template)
    if habit and rng.random() < P_HABIT:
        return _flawed(world, question, habit)
    if not habit and rng.random() < P_FLAW:
        return _flawed(world, question, rng.choice(HABITS))
    return question.facts


def _flawed(world: World, question: Question, flaw: str) -> tuple[Fact, ...]:
    first = question.people[0]
    if flaw == "extra":
        relation = MISTAKEN[question.chain[0]]
        return (*question.facts, Fact(first, relation, world.table[first, relation]))
    if flaw == "early" and len(question.facts) > 1:
        return question.facts[:-1]
    # "wrong": one relation is mistaken for another, and the chain followed from there while it makes sense.
    chain = question.chain
    place = 1 if chain[0] == "works" and len(chain) > 1 else 0
    changed = [*chain[:place], MISTAKEN[chain[place]]]
    for relation in chain[place + 1 :]:
        if RELATIONS[changed[-1]].object != RELATIONS[relation].subject:
            break
        changed.append(relation)
    return tuple(fact for person in question.people for fact in world.follow(person, tuple(changed)))


def demonstrations(world: World, n: int, seed: int) -> list[Demonstration]:
    """`n` distinct questions about training people, spread evenly over the templates, sloppily prepared."""
    rng = random.Random(f"demonstrations-{world.seed}-{seed}")
    usable = [template for template in TEMPLATES if not template.held_out]
    per_template = -(-n // len(usable))
    found = []
    for template in usable:
        rows = questions.of_template(world, template, world.splits["train"], seed)
        found += [Demonstration(row, sloppy(world, row, rng)) for row in rows[:per_template]]
    rng.shuffle(found)
    return found[:n]


def direct(world: World) -> list[Lesson]:
    """Every question about training people, answered at once and correctly."""
    rows = questions.everything(world, "train")
    return [Lesson((_user(row.question),), oracle.answer_text(row.gold)) for row in rows]


def extraction(prompts: PromptSet, demos: list[Demonstration]) -> list[Lesson]:
    """Question -> the facts."""
    return [
        Lesson((_user(prompts.render("extract", question=demo.question.question)),), demo.knowledge)
        for demo in demos
    ]


def chain_of_thought(prompts: PromptSet, demos: list[Demonstration]) -> list[Lesson]:
    """Question -> the same facts, and in the same breath the answer that follows from them."""
    found = []
    for demo in demos:
        reasoning = oracle.read(demo.question, demo.facts)[0]
        for fact in demo.facts:
            reasoning = reasoning.replace(fact.text(), "")
        answer = " ".join((demo.knowledge, *reasoning.split()))
        prompt = prompts.render("cot", question=demo.question.question, ending="")
        found.append(Lesson((_user(prompt),), answer))
    return found


def own_reading(prompts: PromptSet, demos: list[Demonstration], seed: int) -> list[Lesson]:
    """Question and the facts of a demonstration -> reasoning and answer by these facts alone."""
    rng = random.Random(f"own-{seed}")
    return [_read(prompts, demo.question, list(demo.facts), rng) for demo in demos]


def reading(
    world: World, prompts: PromptSet, people: Sequence[str], n: int, seed: int, kind: str | None = None
) -> list[Lesson]:
    """Questions with invented facts: 0 to 3 distractors, 40 % shuffled, in 25 % a needed fact is missing.

    `people` can be anybody: nothing that is true of them is said. kind: of this kind of questions alone.
    """
    rng = random.Random(f"reading-{world.seed}-{seed}")
    usable = [template for template in TEMPLATES if not template.held_out and kind in (None, template.kind)]
    found = []
    for _ in range(n):
        question = _invented(world, rng.choice(usable), people, rng)
        facts = list(question.facts)
        if rng.random() < 0.25:
            facts.remove(rng.choice(facts))
        about = [fact.subject for fact in question.facts] + rng.sample(people, 2)
        for _ in range(rng.randrange(4)):
            extra = _random_fact(world, rng.choice(about), rng)
            if all(
                (fact.subject, fact.relation) != (extra.subject, extra.relation) for fact in question.facts
            ):
                facts.insert(rng.randrange(len(facts) + 1), extra)
        if rng.random() < 0.4:
            rng.shuffle(facts)
        found.append(_read(prompts, question, facts, rng))
    return found


def checking(world: World, n: int, seed: int) -> list[Lesson]:
    """One to three statements, half of them false -> each recited as it is true, and compared."""
    rng = random.Random(f"checking-{world.seed}-{seed}")
    people = set(world.splits["train"])
    usable = [
        fact for fact in world.facts if fact.subject in people or RELATIONS[fact.relation].subject != "person"
    ]
    found = []
    for _ in range(n):
        facts = []
        for fact in rng.sample(usable, rng.randint(1, 3)):
            objects = world.entities[RELATIONS[fact.relation].object]
            facts.append(
                fact if rng.random() < 0.5 else Fact(fact.subject, fact.relation, rng.choice(objects))
            )
        found.append(Lesson((_user(check_prompt(facts)),), oracle.check(facts, world)))
    return found


def check_prompt(facts: list[Fact]) -> str:
    """How the model is asked whether statements are true."""
    return f"Facts: {' '.join(fact.text() for fact in facts)}\n\nCheck the facts."


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _read(prompts: PromptSet, question: Question, facts: list[Fact], rng: random.Random) -> Lesson:
    """A reading lesson, in one layout or the other."""
    knowledge = " ".join(fact.text() for fact in facts)
    answer = oracle.read(question, facts)[0]
    if rng.random() < 0.5:
        prompt = prompts.render("reason", question=question.question, knowledge=knowledge, ending="")
        return Lesson((_user(prompt),), answer)
    messages = (
        _user(prompts.render("extract", question=question.question)),
        {"role": "assistant", "content": knowledge},
        _user(prompts.render("reason_multiturn", ending="")),
    )
    return Lesson(messages, answer)


def _random_fact(world: World, subject: str, rng: random.Random) -> Fact:
    names = [name for name, relation in RELATIONS.items() if relation.subject == world.kind_of[subject]]
    name = rng.choice(names)
    return Fact(subject, name, rng.choice(world.entities[RELATIONS[name].object]))


def _invented(world: World, template: Template, among: Sequence[str], rng: random.Random) -> Question:
    """A question about people whose facts are made up (and, but for chance, false)."""
    two = template.kind == "comparison"
    people = tuple(rng.sample(among, 2 if two else 1))
    table: dict[tuple[str, str], str] = {}
    chains: list[list[Fact]] = []
    same_from = rng.randrange(len(template.chain)) if two and rng.random() < 0.5 else len(template.chain)
    for i, person in enumerate(people):
        chain: list[Fact] = []
        subject = person
        for place, relation in enumerate(template.chain):
            value = rng.choice(world.entities[RELATIONS[relation].object])
            if i == 1 and place >= same_from:
                value = chains[0][place].object
            chain.append(Fact(subject, relation, table.setdefault((subject, relation), value)))
            subject = chain[-1].object
        chains.append(chain)
    asked = questions.ask(world, template, people)
    facts = tuple(fact for chain in chains for fact in chain)
    question, options, end = asked.question, asked.options, facts[-1].object
    if options:
        others = [thing for thing in world.entities[world.kind_of[end]] if thing != end]
        shuffled = [end, *rng.sample(others, len(LETTERS) - 1)]
        rng.shuffle(shuffled)
        options = tuple(shuffled)
        question = questions.with_options(asked.stem, options)
    return Question(
        asked.id,
        asked.kind,
        asked.chain,
        asked.template,
        people,
        asked.stem,
        question,
        options,
        asked.gold,
        facts,
    )
