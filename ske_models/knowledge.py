"""Knowledge as JSONL: exported from a store, edited by hand, and given to a run.

python -m ske_models.knowledge STORE > knowledge.jsonl           # export; edit it by hand, then
lm_eval --model ske_explicit --model_args knowledge=knowledge.jsonl,...   # run with the edited text
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import encodable
from ske_models.fingerprint import digest
from ske_models.reply import DEFAULT, Marks, marks_of, reply_of

log = logging.getLogger(__name__)


def export(path: Path, prompts: str | None = None, marks: Marks = DEFAULT) -> Iterator[dict[str, str]]:
    """The knowledge in a store, one record per question, in the order of the questions' text.

    Of a question that has several texts (of other limits or settings) the last one, with a line that says so.

    prompts: the hash of the prompt set whose knowledge is wanted; needed if the store has several.
    marks: what a thought is told by; the knowledge is exported without.
    Records: {"question", "knowledge", "sha" (digest of the knowledge as written), "prompts", "model"}.
    Raises UserError if there is no store at `path`, no knowledge in it, or it has several prompt sets and
    none was chosen.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such store")
    try:
        yield from _records(path, prompts, marks)
    except (sqlite3.Error, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a store of ske-learn, or damaged ({error})") from error


def _records(path: Path, prompts: str | None, marks: Marks) -> Iterator[dict[str, str]]:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    # 'owner': of release 0.1
    claimed = db.execute("SELECT value FROM meta WHERE name IN ('fingerprint', 'owner')").fetchone()
    sets = [row[0] for row in db.execute("SELECT DISTINCT prompts FROM steps WHERE step = 'knowledge'")]
    if prompts is None and len(sets) > 1:
        raise UserError(f"{path}: holds knowledge of several prompt sets; choose --prompts {'|'.join(sets)}")
    if claimed is None or not sets or prompts not in (None, *sets):
        have = f"of {prompts}; it has {', '.join(sets)}" if sets else "in it"
        raise UserError(f"{path}: no knowledge {have}")
    rows = db.execute(
        "SELECT question, text FROM steps WHERE step = 'knowledge' AND prompts = ? ORDER BY question, rowid",
        (prompts or sets[0],),
    )
    model, several = digest(json.loads(claimed[0])), 0
    for question, texts in groupby(rows, key=lambda row: row[0]):
        *earlier, last = (text for _, text in texts)
        several += any(text != last for text in earlier)
        knowledge = reply_of(last, marks)
        yield {
            "question": question,
            "knowledge": knowledge,
            "sha": digest(knowledge),
            "prompts": prompts or sets[0],
            "model": model,
        }
    if several:
        log.warning(
            "%s: of %d questions with several texts (other limits or settings) the last one is exported",
            path,
            several,
        )


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
        self._used = False
        self._by_question: dict[str, Given] = {}
        run = {"model": digest(dict(fingerprint)), "prompts": prompts}
        try:
            # JSON may hold U+2028, U+0085 and \f as they are, at which `splitlines` would cut
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"knowledge={path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._add(f"knowledge={path}, line {number}", line, run)
        if not self._by_question:
            raise UserError(f"knowledge={path}: empty; one JSON object per line is needed")

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
        question, text = encodable(question), encodable(text)
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
        """Raises UserError if none of the first call's questions is in the file.

        A later call may be of another task, which the file is not for.
        """
        self._used = self._used or any(question in self._by_question for question in questions)
        if not self._used and not self.in_batches:
            raise UserError(f"knowledge={self.path}: has none of this run's questions")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Export the knowledge in a store as JSONL, to stdout.")
    parser.add_argument(
        "store", type=Path, help="a store file (its path is in the results: config.ske.store)"
    )
    parser.add_argument("--prompts", metavar="HASH", help="the prompt set, where the store has several")
    parser.add_argument("--think", default="default", help="marks of thoughts, as in --model_args")
    args = parser.parse_args()
    try:
        for record in export(args.store, args.prompts, marks_of(args.think)):
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
