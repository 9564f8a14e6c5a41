"""The judge that knows the truth: is an answer right, which score do a knowledge and a reasoning deserve.

    from ske_tasks.world import default_world, oracle
    oracle.judge_knowledge(row, "Tebok was born in Latotburg.", default_world()).score

A judgement is written as a small model can learn it: recite what is true, compare, then score.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ske_tasks.world.facts import Fact, World, default_world, parse_all
from ske_tasks.world.questions import LETTERS, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNKNOWN = "unknown"
_ANSWER = re.compile(r"The answer is (\w+(?: \([A-D]\))?)\.")


@dataclass(frozen=True)
class Judgement:
    """`text`: the critique, opened by "Check:" and closed by "Score: N"; `score`: N, 1 to 10."""

    text: str
    score: int


def answer_in(text: str) -> str | None:
    """What the last "The answer is ..." of a text says; None if there is none."""
    found = _ANSWER.findall(text)
    return found[-1] if found else None


def is_right(question: Question, text: str) -> bool:
    """Whether a text answers the question correctly (multiple choice: the thing and its letter)."""
    return answer_in(text) == question.gold


def read(question: Question, facts: Iterable[Fact]) -> tuple[str, str]:
    """(reasoning that ends in the answer, the answer) of a reader that uses nothing but `facts`.

    It recites what it needs; where a needed fact is missing the answer is "unknown".
    """
    table: dict[tuple[str, str], Fact] = {}
    for given in facts:
        table.setdefault((given.subject, given.relation), given)
    said: list[str] = []
    ends: list[str] = []
    for person in question.people:
        subject = person
        for relation in question.chain:
            fact = table.get((subject, relation))
            if fact is None:
                return _answered(said, UNKNOWN)
            said.append(fact.text())
            subject = fact.object
        ends.append(subject)
    if question.kind == "comparison":
        same = ends[0] == ends[1]
        said.append(f"{ends[0]} and {ends[1]} are {'the same' if same else 'different'}.")
        return _answered(said, "yes" if same else "no")
    if question.options:
        if ends[0] not in question.options:
            return _answered(said, UNKNOWN)
        return _answered(said, f"{ends[0]} ({LETTERS[question.options.index(ends[0])]})")
    return _answered(said, ends[0])


def answer_text(answer: str) -> str:
    """How every answer is given."""
    return f"The answer is {answer}."


def _answered(said: list[str], answer: str) -> tuple[str, str]:
    return " ".join((*said, answer_text(answer))), answer


def is_enough(needed: str, text: str) -> bool:
    """Whether a text states all the facts that `needed` states, and nothing that is false or unreadable."""
    world = default_world()
    stated, unreadable = parse_all(text, world)
    true = not unreadable and all(world.is_true(fact) for fact in stated)
    return true and set(parse_all(needed, world)[0]) <= set(stated)


def judge_knowledge(question: Question, text: str, world: World) -> Judgement:
    """Scores knowledge for a question.

    10: exactly what is needed; 7: all of it and more that is true; 5: part of it; 2: none of it.
    With anything false or unreadable in it: 3 if some of what is needed is there, otherwise 1.
    """
    stated, unreadable = parse_all(text, world)
    critique, present = _compare(question.facts, stated)
    needed = set(question.facts)
    wrong_about = {(fact.subject, fact.relation) for fact in needed}
    extra = dict.fromkeys(
        fact for fact in stated if fact not in needed and (fact.subject, fact.relation) not in wrong_about
    )
    critique += [f"{fact.text().removesuffix('.')}, extra." for fact in extra]
    if unreadable or not all(world.is_true(fact) for fact in stated):
        score = 3 if present else 1
    elif present == needed:
        score = 7 if extra else 10
    else:
        score = 5 if present else 2
    return _scored(critique, score)


def judge_reasoning(question: Question, knowledge: str, text: str, world: World) -> Judgement:
    """Scores a reasoning by what the knowledge says, whether or not the knowledge is true.

    10: the answer that follows from the knowledge, by steps that the knowledge holds; 6: that answer, but
    with steps that are missing or not in the knowledge; 4: "unknown", rightly; 2: another answer; 1: none.
    """
    given = parse_all(knowledge, world)[0]
    steps = parse_all(text, world)[0]
    expected_text, expected = read(question, given)
    answer = answer_in(text)
    if answer is None:
        score = 1
    elif answer != expected:
        score = 2
    elif answer == UNKNOWN:
        score = 4
    else:
        needed = parse_all(expected_text, world)[0]
        score = 10 if set(needed) <= set(steps) <= set(given) else 6
    verdict = "ok" if answer == expected else "wrong"
    critique = [expected_text.removesuffix(".") + f", {verdict}."]
    return _scored(critique, score)


def check(facts: Sequence[Fact], world: World) -> str:
    """Recites the truth about what each stated fact is about, and compares."""
    truths = [Fact(fact.subject, fact.relation, world.table[fact.subject, fact.relation]) for fact in facts]
    return " ".join(_verdict(truth, fact) for truth, fact in zip(truths, facts, strict=True))


def _verdict(truth: Fact, stated: Fact) -> str:
    compared = f"{truth.text()} {stated.object} and {truth.object} are"
    return f"{compared} the same, ok." if truth == stated else f"{compared} different, wrong."


def _compare(needed: Sequence[Fact], stated: list[Fact]) -> tuple[list[str], set[Fact]]:
    """(the critique of each needed fact, the needed facts that are stated)."""
    critique: list[str] = []
    present: set[Fact] = set()
    about: dict[tuple[str, str], Fact] = {}
    for fact in stated:
        if fact in needed or (fact.subject, fact.relation) not in about:
            about[fact.subject, fact.relation] = fact
    for fact in dict.fromkeys(needed):
        said = about.get((fact.subject, fact.relation))
        if said == fact:
            present.add(fact)
        critique.append(_verdict(fact, said) if said else f"{fact.text().removesuffix('.')}, missing.")
    return critique, present


def _scored(critique: list[str], score: int) -> Judgement:
    # "Check:" comes first, so that a model which has learned to judge tells a critique from knowledge and
    # answers by its first word; without it M1 wrote critiques where it was asked for knowledge.
    return Judgement(" ".join(("Check:", *critique, f"Score: {score}")), score)
