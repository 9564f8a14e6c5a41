"""TinyWorld as a closed domain: its questions, the oracle as judge and as truth, its chats, the embedded M0.

    python training/round.py --recipe world

`training/domains.py` names it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ske_models import embedded
from ske_models.errors import one_of
from ske_models.files import Row
from ske_tasks.world import default_world, oracle, questions
from training.domain import ChatSource, Domain, JudgeSettings, QuestionSource, Source, TruthfulJudge
from training.tinyworld import chats
from training.tinyworld.judge import find, judge


class WorldQuestions(Source):
    """TinyWorld's questions about the people of one split, of some kinds of question."""

    source: Literal["world"]
    split: Literal["train", "rounds", "dev"] = "rounds"
    kinds: list[str] | None = None  # all

    @property
    def label(self) -> str:
        """With the split."""
        return f"world:{self.split}"


class WorldChats(Source):
    """TinyWorld's general data: corpus, direct answers, reading and checking."""

    source: Literal["world"]


class WorldJudge(JudgeSettings):
    """TinyWorld's oracle, which knows the truth."""

    kind: Literal["world"]


def draw(source: WorldQuestions, rng: random.Random) -> list[Row]:
    """The questions of a split, one of every template in turn. Raises UserError for an unknown kind."""
    kinds = source.kinds or list(questions.KINDS)
    for kind in kinds:
        one_of("questions.sources.kinds", kind, questions.KINDS)
    queues: dict[str, list[Row]] = {}
    for question in questions.everything(default_world(), source.split):
        if question.kind in kinds:
            row = {
                "id": question.id,
                "question": question.question,
                "gold": question.gold,
                "kind": question.kind,
            }
            queues.setdefault(question.template, []).append(row)
    for queue in queues.values():
        rng.shuffle(queue)
    turns = list(queues.values())
    rng.shuffle(turns)
    return [row for turn in itertools.zip_longest(*turns) for row in turn if row is not None]


def tests() -> Iterator[str]:
    """All questions about the test people and the development people."""
    for split in ("test", "dev"):
        for held_out in (False, True):
            for row in questions.everything(default_world(), split, held_out):
                yield row.question


def truth(question: str, knowledge: str, reasoning: str) -> dict[str, int] | None:
    """The scores that the oracle gives; None if the question is none of the world's."""
    known, world = find(question), default_world()
    if known is None:
        return None
    return {
        "knowledge": oracle.judge_knowledge(known, knowledge, world).score,
        "reasoning": oracle.judge_reasoning(known, knowledge, reasoning, world).score,
    }


def embedded_m0() -> Path:
    """The model that comes with the project. Raises UserError if it has read about another world."""
    folder = embedded.path()
    embedded.verify(folder, default_world().hash)
    return folder


DOMAIN = Domain(
    name="world",
    questions=QuestionSource(WorldQuestions, draw, tests),
    judge=TruthfulJudge(WorldJudge, judge),
    chats=ChatSource(WorldChats, chats.make),
    truth=truth,
    starts={"embedded": embedded_m0},
    inherited=(embedded.METADATA,),
)
