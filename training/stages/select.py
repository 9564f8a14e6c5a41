"""Selection: of what was written for a round, the texts whose knowledge and reasoning both scored high.

    python -m training.stage select runs/mine 2    # round 2: written.jsonl + scores.jsonl -> selected.jsonl

Equal texts of one question count once. Where a domain knows the truth, the counts also say how good the
scores were: precision, recall and base rate of what passed, against the scores that the truth gives.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import write_jsonl
from training import domains
from training.data.texts import KINDS, QuestionRow, Text, distinct, rank, read, rows_of
from training.data.truth import against_truth
from training.recipe import Select
from training.run_folder import RunFolder
from training.stages import Stage

SCORES = range(1, 11)
NEARLY_ALL, NEARLY_NONE = 0.95, 0.05


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes selected.jsonl of round `n`: rows of written.jsonl, with their scores, in their order.

    Raises UserError if a row lacks a field or a verdict, or has a score that is none, and if nothing is
    selected; then nothing is written.
    """
    select = folder.select(n)
    texts = read(folder.round(n), folder.marks)
    counts = count(texts, select)
    chosen = choose(_of_kinds(folder, n, texts), select, random.Random(f"{folder.recipe.seed}-select-{n}"))
    if not chosen:
        raise UserError(_nothing_selected(folder, n, counts))
    counts["selected"] = len(chosen)
    counts["questions_selected"] = len({text.written.id for text in chosen})
    known = [domains.named(source.source) for source in folder.recipe.questions.sources]
    if truths := [domain.truth for domain in known if domain and domain.truth]:
        truth, agreement = against_truth(texts, chosen, select.threshold, truths)
        counts |= {"truth": truth, "agreement": agreement} if truth["all"]["n"] else {}
    write_jsonl(folder.round(n) / "selected.jsonl", [{**text.row, "scores": text.scores} for text in chosen])
    return counts


def _of_kinds(folder: RunFolder, n: int, texts: list[Text]) -> list[Text]:
    """The texts for the kinds of question that the recipe selects from."""
    kinds = folder.select(n).kinds
    if kinds is None:
        return texts
    questions = {
        row["id"]: row.get("kind") for row in rows_of(folder.round(n) / "questions.jsonl", QuestionRow)
    }
    return [text for text in texts if questions.get(text.written.id) in kinds]


def choose(texts: Sequence[Text], select: Select, rng: random.Random) -> list[Text]:
    """What `select` keeps, in the order of `texts`.

    A quota keeps a question's highest sums of scores, ties by sample number; where scores shall not matter
    (`random`, `all`) it keeps the samples as they come: in drawn order, or by number.
    """
    by_score = _quota(sorted(distinct(t for t in texts if t.passes(select.threshold)), key=rank), select)
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
