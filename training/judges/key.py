"""The judge `key`: an answer key scores the texts about questions whose answer is known.

    judge: {kind: key, samples: 4}      # in a recipe whose questions.sources name the columns of the answers

A reasoning scores 10 if the answer that it states is right, else 1. A knowledge is scored by how often
answers that are sampled with it are right: the checkpoint that wrote it answers `samples` times, and the
share becomes 1 to 10. The critique is a template that says what was compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ske_models.files import Row
from ske_models.fingerprint import digest
from ske_models.method import Shot, answer_messages
from ske_models.reply import reply_of
from training.data import keys
from training.data.shots import load as load_shots
from training.data.texts import as_question
from training.data.windows import in_windows
from training.engine import identity, load_engine
from training.judges.verdict import Verdict
from training.judges.writing import at, write
from training.run_folder import RunFolder
from training.settings.key import KeyJudge

if TYPE_CHECKING:
    from training.stages.judge import Judged

NO_KEY = "no key"
RIGHT, WRONG = 10, 1


def ask(
    folder: RunFolder,
    checkpoint: int,
    items: Sequence[Judged],
    rows: Mapping[str, Row],
    path: Path,
    label: str,
) -> tuple[list[Verdict], dict[str, Any]]:
    """The verdict on each item, and {"tokens": {"input": ..., "output": ...}} of the sampled answers.

    checkpoint: M`checkpoint` answers with the knowledge. rows: id -> row of questions.jsonl; an item whose
    question has no key there is unscored. path: beside it lie the unfinished answers. A killed call goes
    on.
    Raises UserError: no such checkpoint, a server that does not answer.
    """
    found = [rows.get(item.id, {}).get("key") for item in items]
    asked = [i for i, key in enumerate(found) if key and items[i].reasoning is None]
    answers, tokens = _answers(folder, checkpoint, [items[i] for i in asked], rows, path, label)
    of_item = dict(zip(asked, answers, strict=True))
    verdicts = []
    for i, (item, key) in enumerate(zip(items, found, strict=True)):
        if not key:
            verdicts.append(Verdict(None, "", 1, NO_KEY))
        elif item.reasoning is not None:
            verdicts.append(of_reasoning(key, item.reasoning))
        else:
            verdicts.append(of_knowledge(key, of_item[i]))
    return verdicts, {"tokens": tokens}


def of_reasoning(key: Row, text: str) -> Verdict:
    """Whether the answer that a reasoning states is the key's."""
    stated, is_right = keys.right(key, text)
    said = "The reasoning states no answer, so it does not answer the question."
    if stated is not None:
        same = "which is the same" if is_right else "which is another one"
        said = f"The reasoning ends in {keys.shown(key, stated)}, {same}."
    return _verdict(key, said, RIGHT if is_right else WRONG)


def of_knowledge(key: Row, answers: Sequence[tuple[str | None, bool]]) -> Verdict:
    """How often answers with a knowledge are the key's: none of them 1, all of them 10, linear between.

    answers: (stated answer, whether it is right) of each sample.
    """
    good = sum(is_right for _, is_right in answers)
    others = Counter(stated for stated, is_right in answers if not is_right)
    said = f"Of {len(answers)} answers that use this knowledge, {good} {'is' if good == 1 else 'are'} right"
    wrong = [
        f"{count} without an answer" if stated is None else f"{count} {keys.shown(key, stated)}"
        for stated, count in others.most_common()
    ]
    said += f" (wrong: {', '.join(wrong)})." if wrong else "."
    return _verdict(key, said, score_of(good, len(answers)))


def score_of(good: int, samples: int) -> int:
    """1 to 10 for `good` of `samples`, the halves upwards: of 4 samples 1, 3, 6, 8, 10."""
    return int(WRONG + (RIGHT - WRONG) * good / samples + 0.5)


def _verdict(key: Row, said: str, score: int) -> Verdict:
    answers = " or ".join(keys.shown(key, gold) for gold in key["gold"])
    return Verdict(score, f"The correct answer is {answers}. {said}\nScore: {score}")


def _answers(
    folder: RunFolder,
    checkpoint: int,
    items: Sequence[Judged],
    rows: Mapping[str, Row],
    path: Path,
    label: str,
) -> tuple[list[list[tuple[str | None, bool]]], dict[str, int]]:
    """(the sampled answers with each knowledge, tokens)."""
    judge, recipe = folder.recipe.judge, folder.recipe
    assert isinstance(judge, KeyJudge)
    shots = load_shots(recipe.generation.shots if checkpoint == 0 else None)
    examples = tuple(Shot(shot.question, shot.knowledge, shot.reasoning) for shot in shots.steps)
    size = recipe.generation.window
    windows = [items[start : start + size] for start in range(0, len(items), size)]
    engines = load_engine(folder, checkpoint, len(windows)) if items else []
    engines = [at(engine, judge.temperature) for engine in engines]

    def messages(item: Judged) -> list[dict[str, str]]:
        question = as_question(rows[item.id], examples)
        return answer_messages(question, folder.prompts, "explicit", recipe.layout, item.knowledge)

    def work(worker: int, index: int, window: Sequence[Judged]) -> list[Row]:
        engine = engines[worker]
        limit = recipe.generation.max_reasoning_tokens
        chats = [messages(item) for item in window]
        made = [write(engine, chats, limit, "key", checkpoint, index, s) for s in range(judge.samples)]
        return [made[s][i] for i in range(len(window)) for s in range(judge.samples)]

    parts = path.with_name(f"{path.name}.answers")
    asked = [[item.question, item.knowledge] for item in items]
    key = digest([identity(folder, checkpoint), asked, judge.samples, judge.temperature, shots.hash])
    written = in_windows(parts, key, windows, work, max(len(engines), 1), f"{label}: answers")
    parts.unlink()
    stated = [
        [
            keys.right(rows[item.id]["key"], reply_of(row["text"], folder.marks), row["truncated"])
            for row in written[i * judge.samples : (i + 1) * judge.samples]
        ]
        for i, item in enumerate(items)
    ]
    return stated, {name: sum(row[name] for row in written) for name in ("input", "output")}
