"""The stage `questions`: new questions for a round, without near-duplicates and without items of test sets.

    python -m training.stage questions runs/mine 2   # writes round2/questions.jsonl and round2/dropped.jsonl

Each source gives an equal share, in an order that all rounds have in common: a round continues where the last
one stopped. Whatever is dropped is listed with what it resembles.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import Row, write_jsonl
from ske_models.fingerprint import digest
from ske_models.reply import reply_of
from training import domains
from training.data import asking, keys, passages
from training.data.overlap import NearDuplicates, TestItems
from training.data.shots import of_round as shots_of
from training.data.sources import rows as column
from training.data.texts import PassageRow, QuestionRow, rows_of
from training.domain import Source
from training.recipe import DatasetQuestions, PassageQuestions, Recipe, has_key
from training.run_folder import RunFolder
from training.serving.where import of_checkpoint
from training.settings.key import KeyJudge
from training.stages import Stage, checkpoint_files, local_files, part, prompting

log = logging.getLogger(__name__)

ASKINGS = 4  # how often more passages are asked about, at most, when too few questions came of them
LEAST_YIELD = 0.25  # questions of a passage that are reckoned with, at least


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes the questions of round n and what was dropped, and returns the counts.

    Rows: {"id", "question", "ending", "source", "round"}; "gold" and "kind" of a domain's, "stem" and "key"
    (training/data/keys.py) of those with a known answer. A round that the key judges has no others.
    Raises UserError: a source cannot be read or has no question left, an earlier round has none.
    """
    recipe = folder.recipe
    earlier = [row for k in range(1, n) for row in rows_of(folder.round(k) / "questions.jsonl", QuestionRow)]
    sources = recipe.questions.sources
    pools = [_pool(recipe, place) for place in range(len(sources))]
    places = _places(folder, n)
    sieve = _Sieve(recipe, earlier, [row["question"] for pool in pools for row in pool])
    wanted = folder.settings(n).questions
    taken = {}
    for turn, place in enumerate(places):
        source = sources[place]
        share = wanted // len(places) + (turn < wanted % len(places))
        if isinstance(source, PassageQuestions):
            count = _from_passages(folder, n, place, source, share, sieve)
        else:
            count = sieve.take(pools[place], share)
        taken[f"{place + 1} {source.label}"] = {"wanted": share, "taken": count}
    write_jsonl(folder.round(n) / "dropped.jsonl", sieve.dropped)
    why = dict(Counter(row["why"] for row in sieve.dropped))
    found = (
        f"{len(sieve.taken)} of {wanted} questions, dropped: {_listed(why)}; {sieve.used} were used before"
    )
    if not sieve.taken:
        raise UserError(
            f"round {n}: no question survives ({found}); see {folder.round(n) / 'dropped.jsonl'}, and "
            "give the recipe more or other questions.sources"
        )
    if len(sieve.taken) < wanted:
        log.warning("round %d: only %s", n, found)
    random.Random(f"{recipe.seed}-questions-{n}").shuffle(sieve.taken)
    rows = [{"ending": recipe.questions.ending} | row | {"round": n} for row in sieve.taken]
    write_jsonl(folder.round(n) / "questions.jsonl", rows)
    return {
        "wanted": wanted,
        "questions": len(rows),
        "sources": taken,
        "dropped": why,
        "used_before": sieve.used,
        "test_items": len(sieve.test),
    }


def _places(folder: RunFolder, n: int) -> list[int]:
    """Which sources round `n` takes questions from."""
    sources = folder.recipe.questions.sources
    by_key = isinstance(folder.recipe.judge, KeyJudge) and folder.settings(n).judge == "judge"
    return [place for place, source in enumerate(sources) if not by_key or has_key(source)]


def available(recipe: Recipe) -> dict[str, int]:
    """How many questions each source has before any is dropped; of a corpus, how many texts."""
    counts = {}
    for place, source in enumerate(recipe.questions.sources):
        whole = _column(source) if isinstance(source, PassageQuestions) else _pool(recipe, place)
        counts[f"{place + 1} {source.label}"] = len(whole)
    return counts


class _Sieve:
    """Takes candidates, and says why it does not take one."""

    def __init__(self, recipe: Recipe, earlier: list[Row], candidates: list[str]) -> None:
        self.taken: list[Row] = []
        self.dropped: list[Row] = []
        self.used = 0  # candidates that an earlier round has
        self._used = {row["id"] for row in earlier}
        self.test = TestItems(recipe.questions.decontaminate, recipe.questions.ngram)
        texts = [row["question"] for row in earlier]
        self._near = NearDuplicates(recipe.questions.near_duplicate, itertools.chain(texts, candidates))
        for text in texts:
            self._near.accept(text)

    def take(self, candidates: Iterable[Row], most: int) -> int:
        """Takes up to `most` of them, in order, and returns how many it took."""
        taken = 0
        for row in candidates:
            if taken == most:
                break
            taken += self._take(row)
        return taken

    def drop(self, row: Row, why: str, of: str) -> None:
        """Lists a candidate that is not taken."""
        what = {name: row[name] for name in ("id", "question", "source")}
        self.dropped.append(what | {"why": why, "of": of})

    def _take(self, row: Row) -> bool:
        if row["id"] in self._used:
            self.used += 1
            return False
        if not row["question"] or row.get("key", row) is None:
            self.drop(row, "no key" if row["question"] else "empty", "")
            return False
        # a test item is known by its words without options, and one with a key is shown with them
        texts = [row[name] for name in ("stem", "question") if name in row]
        of = next((item for item in map(self.test.resembles, texts) if item is not None), None)
        if of is not None:
            self.drop(row, "contaminated", of)
            return False
        of = self._near.resembles(row["question"])
        if of is not None:
            self.drop(row, "near-duplicate", of)
            return False
        self._near.accept(row["question"])
        self.taken.append(row)
        return True


def _pool(recipe: Recipe, place: int) -> list[Row]:
    """The candidates of one source in the order of all rounds. None of a corpus: they are yet to be written.

    Raises UserError if the source cannot be read or is empty.
    """
    source = recipe.questions.sources[place]
    rng = random.Random(f"{recipe.seed}-questions-source-{place}")
    if isinstance(source, PassageQuestions):
        return []
    if not isinstance(source, DatasetQuestions):
        domain = domains.named(source.source)
        assert domain is not None  # the recipe was checked
        assert domain.questions is not None
        drawn = domain.questions.draw(source, rng)
        # "id", "question", "source", and what the domain knows of it
        return [{"id": row["id"], "question": row["question"], "source": source.label} | row for row in drawn]
    if source.answer is not None:
        named = {source.column, source.answer}
        named |= set([source.choices] if isinstance(source.choices, str) else source.choices or ())
        keyed = list(keys.candidates(source, {name: _column(source, name) for name in sorted(named)}))
        rng.shuffle(keyed)
        return keyed
    texts = [value.strip() if isinstance(value, str) else "" for value in _column(source)]
    rng.shuffle(texts)
    return [{"id": digest(text), "question": text, "source": source.label} for text in texts]


def _from_passages(
    folder: RunFolder, n: int, place: int, source: PassageQuestions, share: int, sieve: _Sieve
) -> int:
    """Has questions written until the share is full, about passages that no earlier round asked about."""
    asked = {
        row["passage_id"]
        for k in range(1, n)
        for file in sorted(folder.round(k).glob(f"asked-{place + 1}-*.jsonl"))
        for row in rows_of(file, PassageRow)
    }
    seed = f"{folder.recipe.seed}-questions-source-{place}"
    left: Iterator[str] = (
        passage
        for passage in passages.shuffled(_column(source), source.passage_chars, seed)
        if digest(passage) not in asked
    )
    taken = given = 0
    for attempt in range(1, ASKINGS + 1):
        reckoned = max(taken / given, LEAST_YIELD) if given else 0.8
        # a corpus may repeat a passage
        batch = list(dict.fromkeys(itertools.islice(left, math.ceil((share - taken) / reckoned))))
        asked.update(map(digest, batch))
        if taken == share or not batch:
            break
        given += len(batch)
        rows = asking.ask(folder, n, folder.round(n) / f"asked-{place + 1}-{attempt}.jsonl", batch)
        candidates = []
        for row in rows:
            question, why = asking.read_question(reply_of(row["text"], folder.marks), row["truncated"])
            candidate = {"id": digest(question), "question": question, "source": source.label}
            if why is None:
                candidates.append(candidate)
            else:
                sieve.drop(candidate, why, "")
        taken += sieve.take(candidates, share - taken)
    return taken


def _column(source: Source, name: str | None = None) -> Any:
    assert isinstance(source, DatasetQuestions | PassageQuestions)  # those that have a path
    return column(source.path, source.config, source.split, name or source.column, source.rows)


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {why}" for why, count in counts.items()) or "none"


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    earlier = [folder.round(k) / "questions.jsonl" for k in range(1, n)]
    sources = [folder.recipe.questions.sources[place] for place in _places(folder, n)]
    data = local_files(s.path for s in sources if isinstance(s, DatasetQuestions | PassageQuestions))
    return earlier + data + (checkpoint_files(folder, folder.writer(n)) if _asks(folder, n) else [])


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    said = part(folder, "questions", *(["generation"] if _asks(folder, n) else [])) | prompting(folder)
    return said | shots_of(folder, n) | {"count": folder.settings(n).questions}


def _asks(folder: RunFolder, n: int) -> bool:
    """Whether a model writes questions of round `n`."""
    sources = folder.recipe.questions.sources
    return any(isinstance(sources[place], PassageQuestions) for place in _places(folder, n))


def _says(counts: dict[str, Any]) -> str:
    dropped = f", dropped: {_listed(counts['dropped'])}" if counts["dropped"] else ""
    return f"{counts['questions']:,} of {counts['wanted']:,} questions{dropped}"


STAGE = Stage(
    name="questions",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/questions.jsonl", "round{n}/dropped.jsonl"),
    run=run,
    says=_says,
    prompts=lambda folder, n: of_checkpoint(folder, folder.writer(n)) if _asks(folder, n) else None,
)
