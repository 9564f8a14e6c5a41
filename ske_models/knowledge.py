"""Knowledge as JSONL: exported from a store, edited by hand, and given to a run.

python -m ske_models.knowledge STORE > knowledge.jsonl           # export; edit it by hand, then
lm_eval --model ske_explicit --model_args knowledge=knowledge.jsonl,...   # run with the edited text
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.fingerprint import digest


def export(path: Path, prompts: str | None = None) -> Iterator[dict[str, str]]:
    """The knowledge in a store, a record a question, in the order of the questions' text.

    prompts: the hash of the prompt set whose knowledge is wanted; needed if the store has several.
    Records: {"question", "knowledge", "sha" (digest of the knowledge as written), "prompts", "model"}.
    Raises UserError if there is no store at `path`, or it has several prompt sets and none was chosen.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such store")
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        fingerprint = db.execute("SELECT value FROM meta WHERE name = 'owner'").fetchone()[0]
        sets = [row[0] for row in db.execute("SELECT DISTINCT prompts FROM steps WHERE step = 'knowledge'")]
    except (sqlite3.Error, TypeError) as error:
        raise UserError(f"{path}: not a store of ske-learn ({error})") from error
    if prompts is None and len(sets) > 1:
        raise UserError(f"{path}: holds knowledge of several prompt sets; choose --prompts {'|'.join(sets)}")
    rows = db.execute(
        "SELECT question, text, prompts FROM steps WHERE step = 'knowledge' AND prompts = ? "
        "ORDER BY question, key",
        (prompts or "".join(sets),),
    )
    for question, text, written_with in rows:
        yield {
            "question": question,
            "knowledge": text,
            "sha": digest(text),
            "prompts": written_with,
            "model": digest(json.loads(fingerprint)),
        }


@dataclass(frozen=True)
class Given:
    """Knowledge that is not generated. edited: its text is not the one that the model wrote.

    source: as in `ske_models.records.StepOutput`.
    """

    text: str
    edited: bool
    source: str = "file"


class KnowledgeFile:
    """Knowledge to run with, from JSONL lines as `export` writes them, edited or not.

    A line without `sha` is hand-written and counts as edited; one without `prompts` or `model` fits any.
    in_batches: `check_used` sees a part of the run's questions at a time, and so refuses nothing.
    foreign: lines of any model and prompt set are taken. models: those that the lines name.
    Raises UserError naming the line: not JSON, a field missing, one question with two texts, or written
    by another model or prompt set than the run's.
    """

    def __init__(
        self,
        path: Path,
        fingerprint: Mapping[str, Any],
        prompts: str,
        in_batches: bool = False,
        foreign: bool = False,
    ) -> None:
        self.path = path
        self.foreign = foreign
        self.models: set[str] = set()
        self.in_batches = in_batches
        self._by_question: dict[str, Given] = {}
        run = {"model": digest(dict(fingerprint)), "prompts": prompts}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"knowledge={path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(f"knowledge={path}, line {number}", line, run)
        if not self._by_question:
            raise UserError(f"knowledge={path}: empty; one JSON object a line is needed")

    def _add(self, where: str, line: str, run: Mapping[str, str]) -> None:
        try:
            record = json.loads(line)
            question, text = record["question"], record["knowledge"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(
                f'{where}: broken ({error}); {{"question": ..., "knowledge": ...}} is needed'
            ) from error
        if not (isinstance(question, str) and isinstance(text, str)):
            raise UserError(f"{where}: `question` and `knowledge` must be text")
        for name, mine in run.items():
            if not self.foreign and record.get(name, mine) != mine:
                raise UserError(
                    f"{where}: written by another run: {name} is {record[name]}, this run's is {mine}; "
                    "add foreign_knowledge=True to use them all the same"
                )
        self.models |= {str(record["model"])} if "model" in record else set()
        edited = record.get("sha") != digest(text)
        given = Given(text, edited, "edited" if edited else "file")
        if self._by_question.setdefault(question, given) != given:
            raise UserError(f"{where}: a second, different knowledge for the same question")

    def get(self, question: str) -> Given | None:
        return self._by_question.get(question)

    def check_used(self, questions: Iterable[str]) -> None:
        """Raises UserError if none of the run's questions is in the file."""
        if not self.in_batches and not any(question in self._by_question for question in questions):
            raise UserError(f"knowledge={self.path}: has none of this run's questions")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Export the knowledge in a store as JSONL, to stdout.")
    parser.add_argument(
        "store", type=Path, help="a store file (its path stands in the results: config.ske.store)"
    )
    parser.add_argument("--prompts", metavar="HASH", help="the prompt set, where the store has several")
    args = parser.parse_args()
    for record in export(args.store, args.prompts):
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
