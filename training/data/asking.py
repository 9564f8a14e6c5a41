"""Questions that a model writes from the passages of a corpus.

rows = asking.ask(folder, 2, folder.round(2) / "asked-1-1.jsonl", passages)
question, why_not = asking.read_question(rows[0]["text"], rows[0]["truncated"])
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lm_eval.api.instance import Instance

from ske_models.files import Row
from ske_models.fingerprint import digest
from ske_models.records import Request, measured
from training.data.shots import load as load_shots
from training.data.texts import PassageRow, rows_of
from training.data.windows import in_windows
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from training.engine import CheckpointEngine

_LABEL = re.compile(r"^\W*question\W*:\W*", re.IGNORECASE)  # "**Question:** ..."
_ANSWERED = re.compile(r"^\W*answer\b", re.IGNORECASE | re.MULTILINE)


def ask(folder: RunFolder, n: int, path: Path, passages: list[str]) -> list[Row]:
    """Has the model that writes in round n ask a question about each passage; rows as in `path`.

    Rows: {"passage_id", "passage", "text" (what the model wrote), "truncated", "made_from"}. A file that was
    made from the same is read, an unfinished one continued. Raises UserError as `load_engine` does.
    """
    from training.engine import identity, load_engine

    writer = folder.writer(n)
    generation, prompts = folder.recipe.generation, folder.prompts
    limit = generation.max_question_tokens
    shots = load_shots(generation.shots if writer == 0 else None).ask
    before = []
    for shot in shots:
        before.append({"role": "user", "content": prompts.render("ask", passage=shot.passage)})
        before.append({"role": "assistant", "content": shot.question})
    key = digest([identity(folder, writer), [shot.model_dump() for shot in shots], path.name, passages])
    if path.is_file():
        rows = rows_of(path, PassageRow)
        if rows and all(row.get("made_from") == key for row in rows):
            return rows
    windows = [
        passages[start : start + generation.window] for start in range(0, len(passages), generation.window)
    ]
    engines = load_engine(folder, writer, len(windows))

    def work(worker: int, index: int, window: list[str]) -> list[Row]:
        engine: CheckpointEngine = engines[worker]
        settings = engine.settings(limit, "questions", n, path.name, index)
        requests = []
        for passage in window:
            turn = {"role": "user", "content": prompts.render("ask", passage=passage)}
            prompt = engine.render([*before, turn], chat=True)
            origin = Instance("generate_until", {"passage": passage}, ("", {}), 0)
            requests.append(Request("question", prompt, settings, limit, passage, origin))
        rows = []
        for request, text in zip(requests, engine.generate(requests, lambda *_: ()), strict=True):
            passage, (_, truncated) = request.question, measured(engine, request, text)
            rows.append(
                {
                    "passage_id": digest(passage),
                    "passage": passage,
                    "text": text,
                    "truncated": truncated,
                    "made_from": key,
                }
            )
        return rows

    return in_windows(path, key, windows, work, len(engines), f"M{writer} asks")


def read_question(text: str, truncated: bool | None) -> tuple[str, str | None]:
    """(the question in what a model wrote, or why there is none)."""
    question = _LABEL.sub("", text.strip()).strip()
    if truncated:
        return question, "truncated"
    if not question:
        return question, "empty"
    if "?" not in question and "？" not in question:
        return question, "no question"
    if _ANSWERED.search(question):
        return question, "with its answer"
    return question, None
