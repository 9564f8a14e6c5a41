"""The judge `self`: a checkpoint judges, greedily, by the engine that it writes with.

from training.judges.itself import ask
ask(folder, 1, texts, folder.round(2) / "scores.jsonl", "judge, round 2")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ske_models.files import Row
from ske_models.fingerprint import digest
from ske_models.reply import Marks
from training.data.windows import in_windows
from training.engine import identity, load_engine
from training.judges.verdict import AGAIN, Verdict, read_verdict
from training.judges.writing import at, write
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
    engines = load_engine(folder, checkpoint, len(windows)) if prompts else []
    greedy, sampled = ([at(engine, heat) for engine in engines] for heat in (0.0, AGAIN))
    limit = folder.recipe.generation.max_verdict_tokens

    def work(worker: int, index: int, window: Sequence[str]) -> list[Row]:
        chats = [[{"role": "user", "content": text}] for text in window]
        first = write(greedy[worker], chats, limit, "judge", checkpoint, index)
        rows = [row | {"attempts": 1} for row in first]
        again = [place for place, row in enumerate(rows) if _read(row, folder.marks).score is None]
        second = write(
            sampled[worker], [chats[place] for place in again], limit, "judge again", checkpoint, index
        )
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


def _read(row: Row, marks: Marks) -> Verdict:
    return read_verdict(row["text"], row["truncated"], row["attempts"], marks)
