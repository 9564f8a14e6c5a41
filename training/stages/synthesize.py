"""The stage `synthesize`: knowledge, then reasoning, for every question of a round, by the current model.

    python -m training.stage synthesize runs/mine 2     # round2/questions.jsonl -> round2/written.jsonl

It is the method of the evaluation, with its prompts and its pipeline. Only M0 is shown examples.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance

from ske_models.errors import UserError
from ske_models.files import Row, file_digest, read_jsonl
from ske_models.fingerprint import digest
from ske_models.method import Shot
from ske_models.pipeline import Pipeline
from ske_models.prompts import load as load_prompts
from ske_models.records import Item
from ske_models.reply import Marks, split_thought
from ske_models.store import Store
from training.data.shots import load as load_shots
from training.data.shots import of_round as shots_of
from training.data.texts import as_question
from training.data.windows import in_windows
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.serving.where import of_checkpoint
from training.stages import Stage, checkpoint_files, part, prompting

if TYPE_CHECKING:
    from training.engine import CheckpointEngine

STEPS = {"knowledge": "knowledge", "reasoning": "answer"}  # our name of a text -> the pipeline's of its step


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes round n's written.jsonl: for each question `generation.samples` rows, in order.

    Returns how many texts there are, and how many are truncated, empty, or distinct among a question's.
    Raises UserError: no questions, a row without a field, a server that does not answer.
    """
    from training.engine import identity, load_engine

    generation = folder.recipe.generation
    path = folder.round(n) / "questions.jsonl"
    questions = read_jsonl(path)
    for number, row in enumerate(questions, start=1):
        missing = [name for name in ("id", "question", "ending") if not isinstance(row.get(name), str)]
        if missing:
            raise UserError(f"{path}, row {number}: {', '.join(missing)} missing or no text; add it")
    if not questions:
        raise UserError(f"{path}: no questions; make them with python -m training.stage questions")
    writer = folder.writer(n)
    shots = load_shots(generation.shots if writer == 0 else None)
    examples = tuple(Shot(shot.question, shot.knowledge, shot.reasoning) for shot in shots.steps)
    windows = [
        questions[start : start + generation.window] for start in range(0, len(questions), generation.window)
    ]
    engines = load_engine(folder, writer, len(windows))

    def work(worker: int, index: int, window: list[Row]) -> list[Row]:
        samples = [
            _sample(folder, n, engines[worker], examples, index, sample, window)
            for sample in range(generation.samples)
        ]
        return [samples[sample][row] for row in range(len(window)) for sample in range(generation.samples)]

    key = digest([identity(folder, writer), shots.hash, file_digest(path)])
    written = in_windows(
        folder.round(n) / "written.jsonl", key, windows, work, len(engines), f"M{writer} writes"
    )
    return _counts(questions, written, folder.marks)


def estimate(recipe: Recipe, n: int) -> dict[str, int]:
    """What round n would have written, at most: questions, texts, and the tokens of all texts."""
    questions, samples = recipe.rounds[n - 1].questions, recipe.generation.samples
    limits = load_prompts(recipe.prompts).knowledge_tokens + recipe.generation.max_reasoning_tokens
    return {
        "questions": questions,
        "texts": 2 * questions * samples,
        "output_tokens_at_most": questions * samples * limits,
    }


def _sample(
    folder: RunFolder,
    n: int,
    engine: CheckpointEngine,
    shots: tuple[Shot, ...],
    window: int,
    sample: int,
    questions: list[Row],
) -> list[Row]:
    """One sample of both texts for each question of a window."""
    recipe, prompts = folder.recipe, folder.prompts
    seed = ("synthesize", n, window, sample)
    answer_limit = recipe.generation.max_reasoning_tokens
    answer_settings = engine.settings(answer_limit, *seed)
    pipeline = Pipeline(
        engine=engine,
        method="explicit",
        layout=recipe.layout,
        prompts=prompts,
        store=Store(None, {}),  # a window is repeated whole, see `in_windows`
        knowledge_settings=engine.settings(prompts.knowledge_tokens, *seed),
        knowledge_limit=prompts.knowledge_tokens,
        max_in_flight=len(questions),
        marks=folder.marks,
    )
    items = [
        Item(
            as_question(row, shots),
            answer_settings,
            answer_limit,
            Instance("generate_until", row, ("", {}), 0),
        )
        for row in questions
    ]
    return [
        {
            "id": row["id"],
            "sample": sample,
            **{name: row[name] for name in ("question", "ending", "stem") if name in row},
            "knowledge": answer.knowledge.text if answer.knowledge else "",
            "reasoning": str(answer),
            "truncated": {text: answer.trace["truncated"][step] for text, step in STEPS.items()},
            "tokens": {text: answer.trace["tokens"][step] for text, step in STEPS.items()},
        }
        for row, answer in zip(questions, pipeline.run(items), strict=True)
    ]


def _counts(questions: list[Row], written: list[Row], marks: Marks) -> dict[str, Any]:
    """Truncated and tokens are of whole texts; empty and distinct are of what is used of them.

    thoughts, unfinished: texts that began with a thought, and those whose thought did not end; where there
    are some.
    """
    counts: dict[str, Any] = {"questions": len(questions), "rows": len(written)}
    for text in STEPS:
        length = Counter(row["truncated"][text] for row in written)
        split = [split_thought(row[text], marks) for row in written]
        counts[text] = {
            "truncated": length[True],
            "unknown_length": length[None],
            "empty": sum(not part.reply.strip() for part in split),
            "distinct": len(
                {(row["id"], part.reply.strip()) for row, part in zip(written, split, strict=True)}
            ),
            "tokens": sum(row["tokens"][text] or 0 for row in written),
        }
        if thoughts := sum(bool(part.thought) or not part.finished for part in split):
            unfinished = sum(not part.finished for part in split)
            counts[text] |= {"thoughts": thoughts, "unfinished": unfinished}
    return counts


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    return [folder.round(n) / "questions.jsonl", *checkpoint_files(folder, folder.writer(n))]


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    return part(folder, "generation") | prompting(folder) | shots_of(folder, n)


def _says(counts: dict[str, Any]) -> str:
    parts = [f"{2 * counts['rows']:,} texts for {counts['questions']:,} questions"]
    tokens = sum(counts[text]["tokens"] for text in STEPS)
    parts += [f"{tokens:,} tokens"] if tokens else []
    for what in ("truncated", "empty", "thoughts", "unfinished"):
        n = sum(counts[text].get(what, 0) for text in STEPS)
        parts += [f"{n:,} {what}"] if n else []
    return ", ".join(parts)


STAGE = Stage(
    name="synthesize",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/written.jsonl",),
    run=run,
    says=_says,
    prompts=lambda folder, n: of_checkpoint(folder, folder.writer(n)),
)
