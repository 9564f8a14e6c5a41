"""Selection: of what was written for a round, the texts whose knowledge and reasoning both scored high.

    python -m training.stage select runs/mine 2    # round 2: written.jsonl + scores.jsonl -> selected.jsonl

Equal texts of one question count once. Where the world knows the truth, the counts also say how good the
scores were: precision, recall and base rate of what passed, against the scores that the oracle gives.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ske_models.errors import UserError
from ske_models.files import Row, read_jsonl, write_jsonl
from ske_tasks.world import default_world, oracle
from training.recipe import Select
from training.run_folder import RunFolder
from training.stages import Stage
from training.tinyworld.judge import find

KINDS: tuple[Literal["knowledge", "reasoning"], ...] = ("knowledge", "reasoning")
SCORES = range(1, 11)
NEARLY_ALL, NEARLY_NONE = 0.95, 0.05
M = TypeVar("M", bound=BaseModel)


class TextRow(BaseModel):
    """What this stage needs of a row of written.jsonl."""

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


class Score(BaseModel):
    """What this stage needs of a row of scores.jsonl. `score`: None if the text is unscored."""

    model_config = ConfigDict(strict=True)
    id: str
    sample: int
    kind: Literal["knowledge", "reasoning"]
    score: Annotated[int, Field(ge=1, le=10)] | None


@dataclass(frozen=True)
class Text:
    """One sample of a question: its row of written.jsonl, and its scores where there are any."""

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


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes selected.jsonl of round `n`: rows of written.jsonl, with their scores, in their order.

    Raises UserError if a row lacks a field or a verdict, or has a score that is none, and if nothing is
    selected; then nothing is written.
    """
    select = folder.select(n)
    texts = read(folder.round(n))
    counts = count(texts, select)
    chosen = choose(_of_kinds(folder, n, texts), select, random.Random(f"{folder.recipe.seed}-select-{n}"))
    if not chosen:
        raise UserError(_nothing_selected(folder, n, counts))
    counts["selected"] = len(chosen)
    counts["questions_selected"] = len({text.written.id for text in chosen})
    if any(source.source == "world" for source in folder.recipe.questions.sources):
        truth, agreement = against_truth(texts, chosen, select.threshold)
        counts |= {"truth": truth, "agreement": agreement} if truth["all"]["n"] else {}
    write_jsonl(folder.round(n) / "selected.jsonl", [{**text.row, "scores": text.scores} for text in chosen])
    return counts


def _of_kinds(folder: RunFolder, n: int, texts: list[Text]) -> list[Text]:
    """The texts for the kinds of question that the recipe selects from."""
    kinds = folder.select(n).kinds
    if kinds is None:
        return texts
    questions = {row["id"]: row.get("kind") for row in read_jsonl(folder.round(n) / "questions.jsonl")}
    return [text for text in texts if questions.get(text.written.id) in kinds]


def read(folder: Path) -> list[Text]:
    """The texts of a round with their scores. Raises UserError as `run` does."""
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
        written = _checked(TextRow, row, written_file)
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
            "mend the row, or delete the file to make it anew"
        ) from error


def distinct(texts: Iterable[Text]) -> list[Text]:
    """Of equal texts of a question the one with the highest scores, then with the lowest sample number."""
    best: dict[tuple[str, str, str], Text] = {}
    for text in texts:
        other = best.get(text.content)
        if other is None or _rank(text) < _rank(other):
            best[text.content] = text
    return list(best.values())


def _rank(text: Text) -> tuple[int, int]:
    return -text.total, text.written.sample


def choose(texts: Sequence[Text], select: Select, rng: random.Random) -> list[Text]:
    """What `select` keeps, in the order of `texts`.

    A quota keeps a question's highest sums of scores, ties by sample number; where scores shall not matter
    (`random`, `all`) it keeps the samples as they come: in drawn order, or by number.
    """
    by_score = _quota(sorted(distinct(t for t in texts if t.passes(select.threshold)), key=_rank), select)
    if select.by == "score":
        kept = by_score
    else:
        pool = sorted(distinct(text for text in texts if text.scored), key=lambda text: text.written.sample)
        if select.by == "random":
            rng.shuffle(pool)
        kept = _quota(pool, select)[: len(by_score) if select.by == "random" else None]
    names = {(text.written.id, text.written.sample) for text in kept}
    return [text for text in texts if (text.written.id, text.written.sample) in names]


def _quota(texts: Iterable[Text], select: Select) -> list[Text]:
    """The first `per_question` texts of each question."""
    used: Counter[str] = Counter()
    kept = []
    for text in texts:
        used[text.written.id] += 1
        if select.per_question is None or used[text.written.id] <= select.per_question:
            kept.append(text)
    return kept


def count(texts: Sequence[Text], select: Select) -> dict[str, Any]:
    """What there is, before anything is chosen.

    `unscored`: without a clear score, or not judged, as they are truncated or empty.
    `passed`: texts with both scores >= threshold; of them `passed_equal` repeat another one. `histogram`:
    texts by score, [1, 2, ... 10]. `share_passed` and the warnings are of the scored texts.
    `dropped_by_quota`: distinct texts that passed (for `all`: that are scored), above a question's quota.
    """
    scored = [text for text in texts if text.scored]
    passed = [text for text in scored if text.passes(select.threshold)]
    pool = distinct(scored if select.by == "all" else passed)
    share = len(passed) / len(scored) if scored else 0.0
    return {
        "written": len(texts),
        "scored": len(scored),
        "unscored": len(texts) - len(scored),
        "not_judged": sum(not text.written.whole for text in texts),
        "unscored_by_kind": {kind: sum(text.scores[kind] is None for text in texts) for kind in KINDS},
        "equal": len(texts) - len({text.content for text in texts}),
        "passed": len(passed),
        "passed_equal": len(passed) - len(distinct(passed)),
        "share_passed": round(share, 4),
        "dropped_by_quota": len(pool) - len(_quota(pool, select)),
        "questions": len({text.written.id for text in texts}),
        "by": select.by,
        "threshold": select.threshold,
        "histogram": {kind: histogram(text.scores[kind] for text in texts) for kind in KINDS},
        "warnings": _warnings(share, len(passed), len(scored), select.threshold),
    }


def histogram(scores: Iterable[int | None]) -> list[int]:
    """How many scores are 1, 2, ... 10."""
    counter = Counter(scores)
    return [counter[score] for score in SCORES]


def _warnings(share: float, passed: int, scored: int, threshold: int) -> list[str]:
    if NEARLY_NONE < share < NEARLY_ALL:
        return []
    what = "nearly all pass: the judge hardly tells texts apart; another judge or a higher threshold would"
    if share <= NEARLY_NONE:
        what = "nearly none passes: a lower threshold, another judge or more samples would leave more"
    return [f"select: {passed:,} of {scored:,} scored texts ({share:.1%}) reach {threshold}: {what}"]


def _nothing_selected(folder: RunFolder, n: int, counts: dict[str, Any]) -> str:
    lines = [
        f"round {n}, select: none of {counts['written']:,} texts is selected "
        f"({counts['unscored']:,} unscored; threshold {counts['threshold']} for knowledge and reasoning), "
        "so there is nothing to train on",
        "score     " + "".join(f"{score:>7}" for score in SCORES),
    ]
    lines += [
        f"{kind:<10}" + "".join(f"{value:>7,}" for value in counts["histogram"][kind]) for kind in KINDS
    ]
    lines.append(
        "lower select.threshold, take another judge or ask for more generation.samples, in a new --run; "
        f"all files are as they were in {folder.round(n)}"
    )
    return "\n".join(lines)


def against_truth(
    texts: Sequence[Text], chosen: Sequence[Text], threshold: int
) -> tuple[dict[str, Any], dict[str, list[list[int]]]]:
    """How good the scores are where the truth is known: texts whose question is one of TinyWorld's.

    First: all, distinct: of all texts, and of those that differ: n, base_rate (share that the oracle lets
    pass), precision and recall of those that the scores let pass (unscored ones do not; None: nothing to
    divide by); selected: n, and how many of it the oracle lets pass.
    Second, the agreement: kind -> [[score, oracle's score, texts], ...].
    """
    scores = {id(text): truth for text in texts if (truth := _oracle(text)) is not None}
    known = [text for text in texts if id(text) in scores]

    def right(text: Text) -> bool:
        return all(score >= threshold for score in scores[id(text)].values())

    def rates(some: Sequence[Text]) -> dict[str, Any]:
        passed = [text for text in some if text.passes(threshold)]
        good, hits = sum(map(right, some)), sum(map(right, passed))
        return {
            "n": len(some),
            "base_rate": _share(good, len(some)),
            "precision": _share(hits, len(passed)),
            "recall": _share(hits, good),
        }

    pairs = {kind: Counter((text.scores[kind], scores[id(text)][kind]) for text in known) for kind in KINDS}
    chosen_known = [text for text in chosen if id(text) in scores]
    rated = {"all": rates(known), "distinct": rates(distinct(known))}
    return rated | {"selected": {"n": len(chosen_known), "right": sum(map(right, chosen_known))}}, {
        kind: sorted([mine, truth, n] for (mine, truth), n in pairs[kind].items() if mine is not None)
        for kind in KINDS
    }


def _oracle(text: Text) -> dict[str, int] | None:
    """The scores that the oracle gives; None if the question is none of the world's."""
    question, world = find(text.written.question), default_world()
    if question is None:
        return None
    knowledge, reasoning = text.written.knowledge, text.written.reasoning
    return {
        "knowledge": oracle.judge_knowledge(question, knowledge, world).score,
        "reasoning": oracle.judge_reasoning(question, knowledge, reasoning, world).score,
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    return [folder.round(n) / f"{name}.jsonl" for name in ("questions", "written", "scores")]


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    return {"select": folder.select(n).model_dump(mode="json"), "seed": folder.recipe.seed}


def _says(counts: dict[str, Any]) -> str:
    said = f"{counts['selected']:,} of {counts['written']:,} texts selected"
    if "truth" in counts and counts["truth"]["all"]["precision"] is not None:
        said += f"; precision {counts['truth']['all']['precision']:.2f}"
    return said


STAGE = Stage(
    name="select",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/selected.jsonl",),
    run=run,
    says=_says,
    light=True,
)
