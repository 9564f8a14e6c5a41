"""The judge `self`: a checkpoint judges, greedily, by the engine that it writes with.

from training.judges.itself import ask
ask(folder, 1, texts, folder.round(2) / "scores.jsonl", "judge, round 2")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from ske_models.files import Row
from ske_models.fingerprint import digest
from ske_models.records import Request, measured, prompt_tokens
from ske_models.reply import Marks
from training.data.windows import in_windows
from training.engine import CheckpointEngine, identity, load_engine
from training.judges.verdict import AGAIN, Verdict, read_verdict
from training.run_folder import RunFolder


def ask(
    folder: RunFolder, checkpoint: int, prompts: Sequence[str], path: Path, label: str
) -> tuple[list[Verdict], dict[str, Any]]:
    """The verdicts of M`checkpoint`, one per prompt, and {"tokens": {"input": ..., "output": ...}}.

    A killed call does at most the windows again that were under way, and ends with the same verdicts.
    path: beside it lie its parts meanwhile. Raises UserError: no checkpoint, a server that does not answer.
    """
    size = folder.recipe.generation.window
    windows = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    engines = load_engine(folder, checkpoint) if prompts else []
    greedy, sampled = ([_at(engine, heat) for engine in engines] for heat in (0.0, AGAIN))

    def work(worker: int, index: int, window: Sequence[str]) -> list[Row]:
        rows = _write(greedy[worker], window, "judge", checkpoint, index)
        again = [place for place, row in enumerate(rows) if _read(row, folder.marks).score is None]
        second = _write(sampled[worker], [window[place] for place in again], "judge again", checkpoint, index)
        for place, row in zip(again, second, strict=True):
            for name in ("input", "output"):
                row[name] += rows[place][name]
            rows[place] = row | {"attempts": 2}
        return rows

    parts = path.with_name(f"{path.name}.verdicts")
    key = digest([identity(folder, checkpoint), list(prompts), AGAIN])
    rows = in_windows(parts, key, windows, work, max(len(engines), 1), label)
    parts.unlink()
    spent = {name: sum(row[name] for row in rows) for name in ("input", "output")}
    return [_read(row, folder.marks) for row in rows], {"tokens": spent}


def _at(engine: CheckpointEngine, temperature: float) -> CheckpointEngine:
    """The same engine with another temperature than that of the recipe's generation."""
    generation = engine.recipe.generation.model_copy(update={"temperature": temperature})
    recipe = engine.recipe.model_copy(update={"generation": generation})
    return CheckpointEngine(engine.inner, recipe, engine.name)


def _write(engine: CheckpointEngine, window: Sequence[str], *seed: str | int) -> list[Row]:
    """A verdict's text for each prompt: {"text", "truncated", "attempts": 1, "input", "output" (tokens)}.

    A backend that cannot tell lengths counts no tokens, and its texts are taken to be whole.
    """
    if not window:
        return []
    limit = engine.recipe.generation.max_verdict_tokens
    settings = engine.settings(limit, *seed)
    origin = Instance("generate_until", {}, ("", {}), 0)
    chats = [engine.render([{"role": "user", "content": text}], chat=True) for text in window]
    requests = [Request("judge", chat, settings, limit, "", origin) for chat in chats]
    rows = []
    for request, text in zip(requests, engine.generate(requests, lambda *_: ()), strict=True):
        wrote, truncated = measured(engine, request, text)
        rows.append(
            {
                "text": text,
                "truncated": bool(truncated),
                "attempts": 1,
                "input": prompt_tokens(engine, request, text),
                "output": wrote or 0,
            }
        )
    return rows


def _read(row: Row, marks: Marks) -> Verdict:
    return read_verdict(row["text"], row["truncated"], row["attempts"], marks)
