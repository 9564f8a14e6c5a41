"""A closed domain: questions that it makes itself, and the truth about every answer to them.

What a recipe calls by the name of a domain (`source: NAME`, `kind: NAME`, `decontaminate: [NAME]`) ends here,
so that no stage knows a particular one. `training/domains.py` lists the domains that there are.

    Domain("sums", questions=QuestionSource(SumQuestions, draw, tests), truth=truth)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ske_models.files import Row
from ske_models.method import Message
from ske_models.prompts import PromptSet
from training.judges.verdict import Verdict
from training.settings.strict import Strict


class Source(Strict):
    """An entry of `questions.sources` or of `general`. `source`: which kind of source it is."""

    source: str

    @property
    def label(self) -> str:
        """What the rows and counts of the source say where they come from."""
        return self.source


class JudgeSettings(Strict):
    """The section `judge`. `kind`: which kind of judge it is."""

    kind: str


@dataclass(frozen=True)
class QuestionSource:
    """Questions. settings: the class of an entry of `questions.sources`; its `source` is the domain's name.

    draw(settings, rng): all questions, in the order in which the rounds take them, as rows {"id", "question",
    "gold", "kind"}; the same for the same `rng`. Raises UserError for settings that it cannot follow.
    tests(): the questions of the domain's test sets, which `decontaminate: [NAME]` keeps out of the rounds.
    """

    settings: type[Source]
    draw: Callable[[Any, random.Random], list[Row]]
    tests: Callable[[], Iterable[str]] | None = None


@dataclass(frozen=True)
class TruthfulJudge:
    """A judge that knows the truth. settings: the class of the section `judge`; its `kind` is the domain.

    judge(id, question, knowledge, reasoning): the verdict on the knowledge, or on the reasoning where it is
    not None. Raises UserError, naming the id, for a question that is none of the domain's.
    """

    settings: type[JudgeSettings]
    judge: Callable[[str, str, str, str | None], Verdict]


class Chat(NamedTuple):
    """A chat of the general data: the messages, the answer to learn, and a name that says what it is."""

    name: str
    messages: Sequence[Message]
    answer: str


@dataclass(frozen=True)
class ChatSource:
    """General data. settings: the class of an entry of `general`; its `source` is the domain's name.

    make(prompts, count, seed): `count` chats in the words of a prompt set; the same for the same seed.
    """

    settings: type[Source]
    make: Callable[[PromptSet, int, str], list[Chat]]


# (question, knowledge, reasoning) -> {"knowledge": score, "reasoning": score}, 1 to 10, as the truth has it;
# None if the question is none of the domain's.
Truth = Callable[[str, str, str], dict[str, int] | None]


@dataclass(frozen=True)
class Domain:
    """What a domain gives; None or empty where it gives nothing.

    starts: by the name that a recipe's `model.checkpoint` gives them, functions that find an M0 of the
    domain's own (and raise UserError if it does not fit what is installed).
    inherited: names of files of a checkpoint that the ones trained from it keep.
    """

    name: str
    questions: QuestionSource | None = None
    judge: TruthfulJudge | None = None
    chats: ChatSource | None = None
    truth: Truth | None = None
    starts: Mapping[str, Callable[[], Path]] = field(default_factory=dict)
    inherited: tuple[str, ...] = ()
