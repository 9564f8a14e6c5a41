"""Stage `agreement`: how a checkpoint that scored its own texts agrees with the recipe's judge, on a sample.

    python -m training.stage agreement runs/mine 2     # round2/scores.jsonl -> round2/agreement.jsonl

It is there in rounds that score themselves, if `analysis.self_scored` says how many texts the judge scores,
too. Scores that are no better than chance are warned of before anything is trained on what they select.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ske_models.files import Row, write_jsonl
from training import domains
from training.data.agreement import compared, warnings
from training.data.texts import Score, TextRow, replies, rows_of
from training.run_folder import RunFolder
from training.serving.where import of_checkpoint, of_judge
from training.settings.key import KeyJudge
from training.stages import Stage, checkpoint_files, part, prompting
from training.stages.judge import KINDS, is_whole, judge_texts, questions_of, to_judge


def wanted(folder: RunFolder, n: int) -> bool:
    """Whether round `n` has this stage."""
    return folder.settings(n).judge == "self" and folder.recipe.analysis.self_scored > 0


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes agreement.jsonl: {"id", "sample", "kind", "self", "judge", "verdict"}.

    Returns kinds (kind -> `training.data.agreement.compared`), warnings, and what the verdicts cost.
    Raises UserError as `judge_texts` does.
    """
    own = {
        (row["id"], row["sample"], row["kind"]): row["score"]
        for row in rows_of(folder.round(n) / "scores.jsonl", Score)
    }
    texts = [replies(row, folder.marks) for row in rows_of(folder.round(n) / "written.jsonl", TextRow)]
    questions = questions_of(folder, n) if isinstance(folder.recipe.judge, KeyJudge) else None
    texts = _known(folder, [row for row in texts if is_whole(row)], questions)
    size = min(folder.recipe.analysis.self_scored, len(texts))
    drawn = random.Random(f"{folder.recipe.seed}-agreement-{n}").sample(texts, size)
    items = [to_judge(row, kind) for row in drawn for kind in KINDS]
    path = folder.round(n) / "agreement.jsonl"
    judging = judge_texts(folder, "judge", folder.writer(n), items, path, f"agreement, round {n}", questions)
    samples = [row["sample"] for row in drawn for _ in KINDS]
    rows = [
        {
            "id": item.id,
            "sample": sample,
            "kind": item.kind,
            "self": own.get((item.id, sample, item.kind)),
            "judge": verdict.score,
            "verdict": verdict.text,
        }
        for item, sample, verdict in zip(items, samples, judging.verdicts, strict=True)
    ]
    write_jsonl(path, rows)
    threshold = folder.select(n).threshold
    kinds = {
        kind: compared([(row["self"], row["judge"]) for row in rows if row["kind"] == kind], threshold)
        for kind in KINDS
    }
    return {"kinds": kinds, "warnings": warnings(kinds), **judging.counts}


def _known(folder: RunFolder, texts: Sequence[Row], questions: dict[str, Row] | None) -> list[Row]:
    """The texts that the judge can score: those with a key; those whose question a domain knows."""
    if questions is not None:
        return [row for row in texts if questions.get(row["id"], {}).get("key")]
    domain = domains.named(folder.recipe.judge.kind)
    truth = domain.truth if domain else None
    return [row for row in texts if truth is None or truth(row["question"], "", "") is not None]


def _by_key(folder: RunFolder) -> bool:
    return isinstance(folder.recipe.judge, KeyJudge)


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    files = [folder.round(n) / f"{name}.jsonl" for name in ("written", "scores")]
    if _by_key(folder):
        files += [folder.round(n) / "questions.jsonl", *checkpoint_files(folder, folder.writer(n))]
    return files


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    sections = ["judge", "generation"] if _by_key(folder) else ["judge"]
    size = {"self_scored": folder.recipe.analysis.self_scored, "threshold": folder.select(n).threshold}
    return part(folder, *sections) | prompting(folder) | size


def _says(counts: dict[str, Any]) -> str:
    said = []
    for kind, found in counts["kinds"].items():
        rho = "-" if found["spearman"] is None else f"{found['spearman']:+.2f}"
        said.append(f"{kind} {rho} (Spearman, {found['n']:,} texts)")
    return ", ".join(said)


STAGE = Stage(
    name="agreement",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/agreement.jsonl",),
    run=run,
    says=_says,
    prompts=lambda folder, n: (
        of_checkpoint(folder, folder.writer(n)) if _by_key(folder) else of_judge(folder.recipe)
    ),
)
