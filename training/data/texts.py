"""The texts of a round with their scores, checked row by row.

from training.data.texts import read
read(Path("runs/mine/round2"))       # written.jsonl and scores.jsonl
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ske_models.errors import UserError
from ske_models.files import Row, read_jsonl
from ske_models.method import Question, Shot
from ske_models.reply import DEFAULT, Marks, reply_of

KINDS: tuple[Literal["knowledge", "reasoning"], ...] = ("knowledge", "reasoning")
M = TypeVar("M", bound=BaseModel)


class QuestionRow(BaseModel):
    """What is needed of a row of questions.jsonl."""

    model_config = ConfigDict(strict=True)
    id: str
    question: str


class TextRow(BaseModel):
    """What is needed of a row of written.jsonl or selected.jsonl."""

    model_config = ConfigDict(strict=True)
    id: str
    sample: int
    question: str
    knowledge: str
    reasoning: str
    truncated: dict[str, bool | None]

    @property
    def whole(self) -> bool:
        """Whether it was judged: a text that is truncated or empty is not."""
        return not (any(self.truncated.values()) or not self.knowledge.strip() or not self.reasoning.strip())


class SelectedRow(BaseModel):
    """What is needed of a row of selected.jsonl."""

    model_config = ConfigDict(strict=True)
    id: str
    sample: int
    question: str
    ending: str
    knowledge: str
    reasoning: str


class Score(BaseModel):
    """What is needed of a row of scores.jsonl. `score`: None if the text is unscored."""

    model_config = ConfigDict(strict=True)
    id: str
    sample: int
    kind: Literal["knowledge", "reasoning"]
    score: Annotated[int, Field(ge=1, le=10)] | None


class ScoredRow(Score):
    """What an example of scoring needs of a row of scores.jsonl."""

    verdict: str


class ExampleRow(BaseModel):
    """What is needed of a row of sft.jsonl."""

    model_config = ConfigDict(strict=True)
    prompt: Annotated[list[dict[str, str]], Field(min_length=1)]
    completion: Annotated[list[dict[str, str]], Field(min_length=1)]


class PassageRow(BaseModel):
    """What is needed of a row of asked-1-1.jsonl."""

    model_config = ConfigDict(strict=True)
    passage_id: str
    text: str
    truncated: bool | None


class SampleRow(BaseModel):
    """What the report needs of a row of results/M1/TASK.METHOD.samples.jsonl."""

    model_config = ConfigDict(strict=True)
    doc_id: int
    hit: float
    cluster: str
    answer: str
    doc: dict[str, Any]


@dataclass(frozen=True)
class Text:
    """One sample of a question: its row of written.jsonl, what of it is used, and its scores, if any."""

    row: Row
    written: TextRow
    scores: dict[str, int | None]

    @property
    def content(self) -> tuple[str, str, str]:
        """What makes two texts equal."""
        return self.written.question, self.written.knowledge, self.written.reasoning

    @property
    def scored(self) -> bool:
        """Whether both kinds have a score."""
        return None not in self.scores.values()

    @property
    def total(self) -> int:
        """The sum of its scores."""
        return sum(score or 0 for score in self.scores.values())

    def passes(self, threshold: int) -> bool:
        """Whether knowledge and reasoning both score at least `threshold`."""
        return all(score is not None and score >= threshold for score in self.scores.values())


def rows_of(file: Path, model: type[BaseModel]) -> list[Row]:
    """The rows of a file. Raises UserError if one has not the fields of `model`."""
    rows = read_jsonl(file)
    for row in rows:
        _checked(model, row, file)
    return rows


def as_question(row: Row, shots: tuple[Shot, ...] = ()) -> Question:
    """The question of a row as the tasks of the evaluation put it; `shots` are shown to M0 only."""
    text = row["question"]
    return Question((), text, text, row["ending"], shots=shots, stem=row.get("stem", ""))


def replies(row: Row, marks: Marks) -> Row:
    """A row with the replies of its two texts: what a model thought before them is left out."""
    return row | {kind: reply_of(row[kind], marks) for kind in KINDS}


def read(folder: Path, marks: Marks = DEFAULT) -> list[Text]:
    """The texts of a round, in the order of written.jsonl.

    Raises UserError if a row lacks a field or a verdict, has a score that is none, or is there twice.
    """
    written_file, scores_file = folder / "written.jsonl", folder / "scores.jsonl"
    scores: dict[tuple[str, int, str], int | None] = {}
    for row in read_jsonl(scores_file):
        score = _checked(Score, row, scores_file)
        key = (score.id, score.sample, score.kind)
        if key in scores:
            raise UserError(f"{scores_file}: {score.id}, sample {score.sample}: two {score.kind} scores")
        scores[key] = score.score
    texts, seen = [], set()
    for row in read_jsonl(written_file):
        _checked(TextRow, row, written_file)
        written = TextRow.model_validate(replies(row, marks))
        name = (written.id, written.sample)
        if name in seen:
            raise UserError(f"{written_file}: {written.id}, sample {written.sample} is there twice")
        seen.add(name)
        for kind in KINDS:
            if written.whole and (*name, kind) not in scores:
                raise UserError(
                    f"{scores_file}: {written.id}, sample {written.sample}: no row for its {kind}; "
                    "delete the file to judge again"
                )
        texts.append(Text(row, written, {kind: scores.get((*name, kind)) for kind in KINDS}))
    unknown = next((key for key in scores if key[:2] not in seen), None)
    if unknown:
        raise UserError(
            f"{scores_file}: {unknown[0]}, sample {unknown[1]} is not in {written_file.name}; "
            "delete the file to judge again"
        )
    return texts


def _checked(model: type[M], row: Row, file: Path) -> M:
    try:
        return model.model_validate(row)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(key) for key in problem["loc"])
        name = f"id {row['id']}, sample {row.get('sample')}" if "id" in row else f"row {str(row)[:80]}"
        given = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
        raise UserError(
            f"{file}: {name}: {where}: {problem['msg'][0].lower()}{problem['msg'][1:]}{given}; "
            "mend the row, or delete the file to make it again"
        ) from error


def distinct(texts: Iterable[Text]) -> list[Text]:
    """Of equal texts of a question the one with the highest scores, then with the lowest sample number."""
    best: dict[tuple[str, str, str], Text] = {}
    for text in texts:
        other = best.get(text.content)
        if other is None or rank(text) < rank(other):
            best[text.content] = text
    return list(best.values())


def rank(text: Text) -> tuple[int, int]:
    """Sorts texts by their scores, the highest first, then by the sample number."""
    return -text.total, text.written.sample
