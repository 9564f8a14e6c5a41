"""Stage `mix`: the SFT set of a round, in the very turns that the evaluation sends.

python -m training.stage mix runs/mine 1     # round1/selected.jsonl -> round1/sft.jsonl

knowledge    question -> the selected knowledge
reasoning    question and knowledge -> the selected reasoning
scoring      the judge's prompt -> its critique and score, as it wrote them in round 1
general      instruction data
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ske_models.errors import UserError
from ske_models.files import Row, write_jsonl
from ske_models.method import Message, answer_messages, knowledge_messages
from ske_models.reply import reply_of
from training import domains
from training.data.sources import chats
from training.data.texts import ScoredRow, SelectedRow, TextRow, as_question, replies, rows_of
from training.recipe import DatasetChats, Recipe
from training.run_folder import RunFolder
from training.stages import Stage, local_files, part, prompting
from training.stages.judge import KINDS, Judged, Kind, prompt

MADE = 2_000  # chats that a domain makes, where the recipe sets no count
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Writes sft.jsonl of round `n` in random order; returns counts.

    kinds: of each kind, the examples, how many there were to draw from, and how many equal ones were dropped.
    scores: examples of scoring by kind and score.
    Raises UserError if the round is to have self-written examples and there are none.
    """
    mix, seed = folder.settings(n).mix, f"{folder.recipe.seed}-mix-{n}"
    written: dict[str, list[Row]] = {}
    if mix.kept_as == "cot":
        written["reasoning"] = [] if mix.reasoning == 0 else _cot(folder, _selected(folder, n))
    elif mix.knowledge != 0 or mix.reasoning != 0:
        written["knowledge"], written["reasoning"] = _explicit(folder, _selected(folder, n), mix.thoughts)
    found: list[Row] = []
    kinds: dict[str, dict[str, int]] = {}
    for kind, rows in written.items():
        distinct, had = _distinct(rows), len(rows)
        wanted = mix.knowledge if kind == "knowledge" else mix.reasoning
        drawn = _draw(distinct, wanted, random.Random(f"{seed}-{kind}"))
        kinds[kind] = {"examples": len(drawn), "there": len(distinct), "duplicates": had - len(distinct)}
        found += drawn
    scores: dict[str, dict[str, int]] = {}
    limits = {"knowledge": mix.scoring_knowledge, "reasoning": mix.scoring_reasoning}
    for about in KINDS:
        if limits[about] != 0:
            drawn, had, there = scorings(folder, n, about, limits[about])
            kinds[f"scoring_{about}"] = {"examples": len(drawn), "there": there, "duplicates": had - there}
            scores[about] = _histogram(drawn)
            found += [{key: row[key] for key in ("id", "kind", "prompt", "completion")} for row in drawn]
    if mix.general != 0:
        check(folder.recipe)
        drawn, kinds["general"] = _general(folder, mix.general, seed)
        found += drawn
    if not found:
        raise UserError(
            f"round {n}, mix: no examples; the counts of rounds[{n - 1}].mix in the recipe are all 0"
        )
    random.Random(f"{seed}-order").shuffle(found)
    write_jsonl(folder.round(n) / "sft.jsonl", found)
    return {"kinds": kinds, "scores": scores, "examples": len(found)}


def table(counts: dict[str, Any]) -> list[tuple[str, int]]:
    """(kind of example, how many), as the paper's Table 1 has them, and the total."""
    rows = [(kind.replace("_", " "), row["examples"]) for kind, row in counts["kinds"].items()]
    return [*rows, ("total", counts["examples"])]


def _selected(folder: RunFolder, n: int) -> list[Row]:
    file = folder.round(n) / "selected.jsonl"
    rows = rows_of(file, SelectedRow)
    if not rows:
        raise UserError(
            f"{file}: empty, nothing was selected; the histogram of the scores is in "
            f"{folder.round(n) / 'select.json'}"
        )
    return rows


def _explicit(folder: RunFolder, rows: Sequence[Row], thoughts: bool) -> tuple[list[Row], list[Row]]:
    """The two steps of each selected text; with what the model thought before each, if `thoughts`."""
    prompts, layout = folder.prompts, folder.recipe.layout
    knowledge, reasoning = [], []
    for row in rows:
        question, name = as_question(row), f"{row['id']}.{row['sample']}"
        reply = replies(row, folder.marks)
        learned = row if thoughts else reply
        asked = knowledge_messages(question, prompts)
        knowledge.append(_example("knowledge", name, asked, learned["knowledge"]))
        asked = answer_messages(question, prompts, "explicit", layout, reply["knowledge"])
        reasoning.append(_example("reasoning", name, asked, learned["reasoning"]))
    return knowledge, reasoning


def _cot(folder: RunFolder, rows: Sequence[Row]) -> list[Row]:
    """Each selected text as one: the knowledge, then what the reasoning adds to it."""
    prompts, layout = folder.prompts, folder.recipe.layout
    return [
        _example(
            "reasoning",
            f"{row['id']}.{row['sample']}",
            answer_messages(as_question(row), prompts, "cot", layout, None),
            as_cot(row["knowledge"], row["reasoning"]),
        )
        for row in (replies(row, folder.marks) for row in rows)
    ]


def as_cot(knowledge: str, reasoning: str) -> str:
    """Knowledge and reasoning in one text.

    Sentences (of three words or more) that the knowledge has already are left out of the reasoning.
    """
    said = {sentence for line in knowledge.splitlines() for sentence in _SENTENCE.split(line.strip())}
    said = {sentence for sentence in said if len(sentence.split()) >= 3}
    lines = [
        " ".join(sentence for sentence in _SENTENCE.split(line.strip()) if sentence not in said)
        for line in reasoning.splitlines()
    ]
    rest = "\n".join(line for line in lines if line)
    between = "\n" if "\n" in knowledge + rest else " "
    return f"{knowledge}{between}{rest}" if rest else knowledge


def scorings(folder: RunFolder, n: int, about: Kind, count: int | None) -> tuple[list[Row], int, int]:
    """(examples of scoring of round `n`, how many scorings the judge of round 1 made, how many differ).

    All rounds draw from the same scorings, as in the paper: those that round 1 has (all, if it has none).
    Scores are represented as evenly as there are scorings of each.
    """
    prompts = folder.prompts
    written, scores = folder.round(1) / "written.jsonl", folder.round(1) / "scores.jsonl"
    texts = {(row["id"], row["sample"]): row for row in rows_of(written, TextRow)}
    rows = []
    for row in rows_of(scores, ScoredRow):
        if row["kind"] != about or row["score"] is None:
            continue
        if (row["id"], row["sample"]) not in texts:
            raise UserError(
                f"{scores}: {row['id']}, sample {row['sample']} is not in {written.name}; "
                "delete the file to judge again"
            )
        text = replies(texts[row["id"], row["sample"]], folder.marks)
        reasoning = text["reasoning"] if about == "reasoning" else None
        judged = Judged(row["id"], about, text["question"], text["knowledge"], reasoning)
        asked: list[Message] = [{"role": "user", "content": prompt(prompts, judged)}]
        example = _example("scoring", f"{row['id']}.{row['sample']}", asked, reply_of(row["verdict"]))
        rows.append({**example, "score": row["score"]})
    distinct = _distinct(rows)
    pool, first = distinct, getattr(folder.settings(1).mix, f"scoring_{about}")
    if first:
        pool = stratified(distinct, first, random.Random(f"{folder.recipe.seed}-mix-scoring-{about}"))
    if count is not None:
        pool = stratified(pool, count, random.Random(f"{folder.recipe.seed}-mix-{n}-scoring-{about}"))
    return pool, len(rows), len(distinct)


def stratified(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """`count` rows (all, if there are fewer), as evenly over their `score` as there are rows of each."""
    by_score: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_score[row["score"]].append(row)
    drawn: list[Row] = []
    # The rarest scores first: what they lack is divided among the others.
    groups = sorted(by_score.items(), key=lambda group: (len(group[1]), group[0]))
    for i, (_, group) in enumerate(groups):
        share = -(-(count - len(drawn)) // (len(groups) - i))
        drawn += rng.sample(group, min(share, len(group)))
    return drawn


def check(recipe: Recipe) -> None:
    """Raises UserError if general data is to be mixed in and the recipe names none."""
    for n, settings in enumerate(recipe.rounds, start=1):
        if settings.mix.general != 0 and not recipe.general:
            raise UserError(
                f"rounds: round {n} mixes in general data, and the recipe names no source of it; add one "
                "under general, or write mix: {general: 0}"
            )


def _general(folder: RunFolder, count: int | None, seed: str) -> tuple[list[Row], dict[str, int]]:
    """(`count` general examples, counts): an equal share from each source, new ones every round."""
    found: list[Row] = []
    there, dropped, sources = 0, 0, folder.recipe.general
    rows_of = []
    for i, source in enumerate(sources):
        domain = domains.named(source.source)
        if domain is not None and domain.chats is not None:
            size = -(-(MADE if count is None else count) // len(sources))
            made = domain.chats.make(folder.prompts, size, f"{seed}-general-{i}")
            rows = [_example("general", chat.name, chat.messages, chat.answer) for chat in made]
        else:
            assert isinstance(source, DatasetChats)  # the recipe was checked
            talks, gone = chats(source.path, source.config, source.split, source.column, source.rows)
            dropped += sum(gone.values())
            rows = [
                _example("general", f"{source.path}#{k}", t[:-1], t[-1]["content"])
                for k, t in enumerate(talks)
            ]
        distinct = _distinct(rows)
        there += len(rows)
        rows_of.append(distinct)
    left = count
    # The smallest source first: what it lacks is divided among the others.
    for i, rows in enumerate(sorted(rows_of, key=len)):
        share = None if left is None else -(-left // (len(rows_of) - i))
        drawn = _draw(rows, share, random.Random(f"{seed}-general-draw-{i}"))
        left = None if left is None else left - len(drawn)
        found += drawn
    distinct_there = sum(map(len, rows_of))
    counts = {"examples": len(found), "there": distinct_there, "duplicates": there - distinct_there}
    return found, counts | {"no_chats": dropped}


def _example(kind: str, name: str, asked: Sequence[Message], answer: str) -> Row:
    completion = [{"role": "assistant", "content": answer}]
    return {"id": name, "kind": kind, "prompt": list(asked), "completion": completion}


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """The first of equal examples."""
    return list({repr((row["prompt"], row["completion"])): row for row in reversed(rows)}.values())[::-1]


def _draw(rows: Sequence[Row], count: int | None, rng: random.Random) -> list[Row]:
    """`count` of the rows at random, or all of them."""
    return list(rows) if count is None or count >= len(rows) else rng.sample(rows, count)


def _histogram(rows: Sequence[Row]) -> dict[str, int]:
    found = Counter(row["score"] for row in rows)
    return {str(score): found[score] for score in range(1, 11)}


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    first = folder.round(1)
    general = folder.recipe.general if folder.settings(n).mix.general != 0 else []
    data = local_files(source.path for source in general if isinstance(source, DatasetChats))
    return [folder.round(n) / "selected.jsonl", first / "scores.jsonl", first / "written.jsonl", *data]


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    mix = {"mix": folder.settings(n).mix.model_dump(mode="json")}
    return part(folder, "general") | prompting(folder) | mix


def _says(counts: dict[str, Any]) -> str:
    kinds = ", ".join(f"{kind} {n:,}" for kind, n in table(counts)[:-1])
    return f"{counts['examples']:,} examples ({kinds})"


STAGE = Stage(
    name="mix",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/sft.jsonl",),
    run=run,
    says=_says,
    light=True,
)
