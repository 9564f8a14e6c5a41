"""The sections of the report as plain tables and sentences; draws the pictures that belong to them.

from training.reporting.page import content
content(folder)["progress"]        # "Rounds done: 1 and 2 of 4. Evaluated: M0, M1 and M2."
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from ske_models.files import read_jsonl
from ske_tasks.intervals import Interval
from training import domains
from training.data import agreement
from training.data.objects import COUNTED, read_object
from training.reporting import analysis, page_accuracy, plots, tables
from training.reporting.cells import NONE, by_checkpoint, listed, share, table
from training.reporting.tables import Results
from training.run_folder import RunFolder
from training.settings.judge import OpenAIJudge
from training.settings.key import KeyJudge

Done = Mapping[tuple[int, str], dict[str, Any]]  # the record of each stage that is done, by (round, stage)


def content(folder: RunFolder) -> dict[str, Any]:
    """All that report.html.j2 shows but the pictures, which are drawn into the run's folder."""
    found, done = tables.results(folder), tables.records(folder)
    return {
        **_head(folder, found, done),
        **page_accuracy.section(folder, found),
        **_data(folder, done),
        **_agreement(folder, done),
        **_analysis(folder),
        **_cost(folder, done),
        **_lineage(folder, done),
    }


def _head(folder: RunFolder, found: Results, done: Done) -> dict[str, Any]:
    evaluated = sorted({k for _, _, k in found})
    whole = [n for n in range(1, folder.rounds + 1) if (n, "sft") in done]
    progress = f"Rounds done: {listed(map(str, whole)) or 'none'} of {folder.rounds}. "
    progress += f"Evaluated: {listed(f'M{k}' for k in evaluated) or 'nothing'}."
    recipe = folder.recipe
    return {
        "name": recipe.name,
        "recipe_hash": recipe.hash,
        "prompts": f"{recipe.prompts} ({folder.prompts.hash})",
        "seed": recipe.seed,
        "judge": _judge(folder),
        "progress": progress,
        "samples": [
            {"n": n, "writer": folder.writer(n), "judge": _judge_of(folder, n), "samples": samples}
            for n in range(1, folder.rounds + 1)
            if (samples := tables.followed(folder, n))
        ],
        "recipe": yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    }


def _data(folder: RunFolder, done: Done) -> dict[str, Any]:
    mixed, selected = _counts(done, "mix"), _counts(done, "select")
    kinds = list(dict.fromkeys(kind for counts in mixed.values() for kind in counts["kinds"]))
    rows = []
    for kind in kinds:
        sizes = [counts["kinds"].get(kind, {}).get("examples", 0) for counts in mixed.values()]
        rows.append([kind.replace("_", " "), *(f"{size:,}" for size in sizes)])
    rows.append(["total", *(f"{counts['examples']:,}" for counts in mixed.values())])
    head = ["examples", *(f"M{n}" for n in mixed)]
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "questions": lambda c: f"{c['questions']:,}",
        "texts": lambda c: f"{c['written']:,}",
        "unscored": lambda c: f"{c['unscored']:,}",
        "passed": lambda c: f"{c['passed']:,}",
        "of the scored": lambda c: share(c["share_passed"]),
        "passed, but equal to another": lambda c: f"{c['passed_equal']:,}",
        "above the quota": lambda c: f"{c['dropped_by_quota']:,}",
        "selected": lambda c: f"{c['selected']:,}",
        "questions with a selected text": lambda c: f"{c['questions_selected']:,}",
        "chosen by": lambda c: str(c["by"]),
    }
    funnel = [["judge", *(_judge_of(folder, n) for n in selected)]]
    funnel += [[name, *(line(counts) for counts in selected.values())] for name, line in lines.items()]
    scores = [
        [f"round {n}, {kind}", *(f"{value:,}" for value in values)]
        for n, counts in selected.items()
        for kind, values in counts["histogram"].items()
    ]
    if selected:
        plots.histograms(folder.path / "scores.png", selected)
    lacking = [str(n) for n in range(1, folder.rounds + 1) if n not in mixed]
    return {
        "data": table("data", head, rows, "The SFT set of each checkpoint") if mixed else None,
        "funnel": table(
            "funnel", ["", *(f"round {n}" for n in selected)], funnel, "From questions to selected texts"
        )
        if selected
        else None,
        "scores": table("score-counts", ["score", *map(str, range(1, 11))], scores, ""),
        "scores_note": "A text passes if its knowledge and its reasoning both reach the threshold (coloured)."
        + "".join(
            f" Round {n} chose by `{counts['by']}` instead."
            for n, counts in selected.items()
            if counts["by"] != "score"
        ),
        "warnings": [
            f"Round {n}: {text}"
            for counts in (_counts(done, "agreement"), selected)
            for n, c in counts.items()
            for text in c.get("warnings", ())
        ],
        "not_made": [f"No SFT set yet: round {listed(lacking)}."] if lacking else [],
    }


def _agreement(folder: RunFolder, done: Done) -> dict[str, Any]:
    selected = _counts(done, "select")
    itself = [n for n in range(1, folder.rounds + 1) if folder.settings(n).judge == "self"]
    rows = []
    for n, counts in selected.items():
        for which in ("all", "distinct") if "truth" in counts else ():
            rates = counts["truth"][which]
            shares = [share(rates[name]) for name in ("base_rate", "precision", "recall")]
            rows.append([f"{n} ({_judge_of(folder, n)})", which, f"{rates['n']:,}", *shares])
    pairs = {
        n: counts["agreement"] for n, counts in selected.items() if "agreement" in counts and n in itself
    }
    pairs = pairs or analysis.agreement(_analysed(folder))
    sampled = {n: counts["kinds"] for n, counts in _counts(done, "agreement").items()}
    pairs |= {n: {kind: found["pairs"] for kind, found in kinds.items()} for n, kinds in sampled.items()}
    if pairs:
        plots.agreement(folder.path / "agreement.png", pairs, _judge(folder))
    agreed = []
    for n, kinds in pairs.items():
        for kind, cells in kinds.items():
            least = folder.select(n).threshold
            texts = sum(count for _, _, count in cells)
            same = sum(count for own, judged, count in cells if own == judged)
            side = sum(count for own, judged, count in cells if (own >= least) == (judged >= least))
            shares = [share(part / texts if texts else None) for part in (same, side)]
            found = sampled[n][kind] if n in sampled else agreement.of_cells(cells, least)
            shares += [NONE if found["spearman"] is None else f"{found['spearman']:.2f}"]
            shares += [share(found["precision"]), share(found["base_rate"])]
            shares += [share(found["unscored"]) if n in sampled else NONE]
            agreed.append([f"round {n}, {kind}", f"{texts:,}", *shares])
    head = ["", "texts", "same score", "same side of the threshold", "Spearman", "precision", "base rate"]
    head += ["unscored"]
    others = [n for n in selected if n not in itself]
    oracle = f"Round {listed(map(str, others))} was scored by the oracle itself." if others else ""
    return {
        "truth": table("truth", ["round (judge)", "texts", "n", "base rate", "precision", "recall"], rows, "")
        if rows
        else None,
        "oracle_rounds": oracle if domains.named(folder.recipe.judge.kind) else "",
        "agreement": table("agreement-shares", head, agreed, ""),
        "no_agreement": "No round in which the model scores itself has been compared with the judge yet."
        if itself
        else "In this recipe no model scores itself.",
    }


def _analysis(folder: RunFolder) -> dict[str, Any]:
    rows = _analysed(folder)
    means = analysis.means(rows)
    parts: dict[str, dict[int, list[Interval]]] = {}
    for (_, kind), series in means.items():
        for k, mean in series.items():
            parts.setdefault(kind, {}).setdefault(k, []).append(mean)
    if means:
        over_tasks = {kind: {k: tables.average(of) for k, of in one.items()} for kind, one in parts.items()}
        plots.meta_skills(folder.path / "meta_skills.png", over_tasks, folder.rounds, _judge(folder))
    shares = []
    threshold = folder.recipe.select.threshold
    for task in dict.fromkeys(task for task, _ in means):
        columns = {kind: series for (its_task, kind), series in means.items() if its_task == task}
        shares.append(
            by_checkpoint(f"analysis-{task}", columns, f"{task}: mean score [95 % interval]", places=2)
        )
        high = {
            f"{kind}: {threshold} or more": analysis.reaching(rows, task, kind, threshold) for kind in columns
        }
        shares.append(
            by_checkpoint(
                f"analysis-high-{task}", high, f"{task}: percent of the texts that reach the threshold"
            )
        )
    note = (
        f"The same {folder.recipe.analysis.items:,} items a task (all, if it has fewer) for every checkpoint"
    )
    missing = "Not part of this run (analysis.items is 0 in the recipe)."
    if folder.recipe.analysis.items:
        missing = "Not done yet: it follows the last round."
    if (folder.path / "analysis.json").is_file():
        counts = read_object(folder.path / "analysis.json", COUNTED, "delete it to analyse again")["counts"]
        left_out = {"unscored": counts["unscored"], **counts["skipped"]}
        said = listed(f"{n:,} {why.replace('_', ' ')}" for why, n in left_out.items())
        note += f", answered by explicit. Left out: {said}."
        missing = f"No text of a checkpoint has a score. Left out: {said}."
    return {
        "analysis": shares,
        "analysis_note": note,
        "no_analysis": missing,
    }


def _cost(folder: RunFolder, done: Done) -> dict[str, Any]:
    seconds: dict[int, dict[str, float]] = {}
    rows, total, dollars = [], 0.0, 0.0
    for (n, stage), record in done.items():
        seconds.setdefault(n, {})[stage] = record["seconds"]
        tokens, usd = tables.tokens(record["counts"]), record["counts"].get("usd")
        total += record["seconds"]
        dollars += usd or 0
        cost = NONE if usd is None else f"{usd:.2f}"
        rows.append([f"{n}", stage, f"{record['seconds'] / 60:.2f}", f"{tokens:,}" if tokens else NONE, cost])
    if rows:
        plots.times(folder.path / "times.png", seconds)
        rows.append(["total", "", f"{total / 60:.2f}", "", f"{dollars:.2f}" if dollars else NONE])
    return {
        "cost": table("cost-stages", ["round", "stage", "minutes", "tokens", "USD"], rows, "")
        if rows
        else None
    }


def _lineage(folder: RunFolder, done: Done) -> dict[str, Any]:
    recipe, latest = folder.recipe, list(done.values())[-1:]
    start = recipe.model.base.checkpoint + ", fine-tuned" if recipe.model.base else recipe.model.checkpoint
    rows = [
        ["recipe", f"{recipe.name}, {recipe.hash}"],
        ["prompts", f"{recipe.prompts}, {folder.prompts.hash}, layout {recipe.layout}"],
        ["seed", str(recipe.seed)],
        ["M0", str(start)],
        *(
            [f"M{n}", f"from M{folder.start(n)}, scored by {_judge_of(folder, n)}"]
            for n in range(1, folder.rounds + 1)
        ),
    ]
    versions = [", ".join(f"{name} {at}" for name, at in record["versions"].items()) for record in latest]
    rows += [["versions", version] for version in versions]
    other = sorted({f"round {n}, {stage}" for (n, stage), r in done.items() if r["recipe"] != recipe.hash})
    said = f"Done with a recipe that has another hash (other settings of later stages): {listed(other)}."
    return {"lineage": table("origin", ["", ""], rows, ""), "other_recipe": [said] if other else []}


def _counts(done: Done, stage: str) -> dict[int, dict[str, Any]]:
    return {n: record["counts"] for (n, name), record in done.items() if name == stage}


def _analysed(folder: RunFolder) -> list[dict[str, Any]]:
    file = folder.path / "analysis.jsonl"
    return read_jsonl(file) if (folder.path / "analysis.json").is_file() else []


def _judge(folder: RunFolder) -> str:
    judge = folder.recipe.judge
    if isinstance(judge, KeyJudge):
        return "the answer key"
    return judge.model if isinstance(judge, OpenAIJudge) else "the oracle"


def _judge_of(folder: RunFolder, n: int) -> str:
    return f"M{folder.writer(n)}" if folder.settings(n).judge == "self" else _judge(folder)
