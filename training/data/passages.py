"""Questions that a model writes from the passages of a corpus.

from training.passages import cut
cut("First paragraph.\\n\\nSecond one.", 1500)    # the passages of a text
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from ske_models.files import Row, read_jsonl
from ske_models.fingerprint import digest
from ske_models.records import Request, measured
from training.data.shots import load as load_shots
from training.data.windows import in_windows
from training.engine import CheckpointEngine, identity, load_engine
from training.run_folder import RunFolder

SHORTEST = 50  # characters; what is shorter is a heading, or the rest of a table
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_LABEL = re.compile(r"^\W*question\W*:\W*", re.IGNORECASE)  # "**Question:** ..."
_ANSWERED = re.compile(r"^\W*answer\b", re.IGNORECASE | re.MULTILINE)


def cut(text: str, size: int) -> list[str]:
    """A text as passages of at most `size` characters: whole paragraphs, whole sentences of a long paragraph.

    Only a sentence longer than `size` is cut within. Passages of under 50 characters are left out.
    """
    passages, current = [], ""
    for separator, piece in _pieces(text, size):
        if current and len(current) + len(separator) + len(piece) > size:
            passages.append(current)
            current = ""
        current = f"{current}{separator}{piece}" if current else piece
    return [passage for passage in [*passages, current] if len(passage) >= min(SHORTEST, size)]


def shuffled(texts: Sequence[Any], size: int, seed: str) -> Iterator[str]:
    """All passages in an order that follows from `seed`: one of each text, then a second of each ..."""
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    turn = 0
    while order:
        left = []
        for place in order:
            text = texts[place]
            passages = cut(text, size) if isinstance(text, str) else []
            random.Random(f"{seed}-{place}").shuffle(passages)
            if turn < len(passages):
                yield passages[turn]
            if turn + 1 < len(passages):
                left.append(place)
        order, turn = left, turn + 1


def ask(folder: RunFolder, n: int, path: Path, passages: list[str]) -> list[Row]:
    """Has the model that writes in round n ask a question about each passage; rows as in `path`.

    Rows: {"passage_id", "passage", "text" (what the model wrote), "truncated", "made_from"}. A file that was
    made from the same is read, an unfinished one continued. Raises UserError as `load_engine` does.
    """
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
        rows = read_jsonl(path)
        if rows and all(row.get("made_from") == key for row in rows):
            return rows
    engines = load_engine(folder, writer)

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

    windows = [
        passages[start : start + generation.window] for start in range(0, len(passages), generation.window)
    ]
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


def _pieces(text: str, size: int) -> Iterator[tuple[str, str]]:
    """(what stands before it in a passage, piece): paragraphs, or their sentences, or parts of these."""
    for paragraph in map(str.strip, re.split(r"\n\s*\n", text)):
        if not paragraph:
            continue
        if len(paragraph) <= size:
            yield "\n\n", paragraph
            continue
        for sentence in _SENTENCE_END.split(paragraph):
            for start in range(0, len(sentence), size):
                yield " ", sentence[start : start + size]
