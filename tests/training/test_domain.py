"""Closed domains: the general modules know none of them, and another one needs no change there."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, Literal

import pytest

from ske_models.errors import UserError
from ske_models.files import Row, read_jsonl, write_jsonl
from ske_models.prompts import PromptSet
from training import domains
from training.domain import Chat, ChatSource, Domain, JudgeSettings, QuestionSource, Source, TruthfulJudge
from training.judges.verdict import Verdict
from training.recipe import Recipe
from training.reporting import report
from training.run_folder import RunFolder
from training.stages import judge, mix, questions, select

ROOT = Path(__file__).resolve().parents[2]
REGISTERED = ("training/domains.py", "training/recipes/world.yaml")
OF_LIBRARIES = re.compile(r"WORLD_SIZE|is_world_process_zero")  # names that torch and transformers chose
KINDS = ("knowledge", "reasoning")


def test_general_modules_know_no_domain():
    files = [path for path in (ROOT / "training").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    said = []
    for file in files:
        name = str(file.relative_to(ROOT))
        if name.startswith("training/tinyworld/") or name in REGISTERED:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if re.search("world|embedded", OF_LIBRARIES.sub("", line), re.IGNORECASE):
                said.append(f"{name}:{number}: {line}")
    assert len(files) > 50
    assert not said, "\n".join(said)


# A domain of ten questions ---------------------------------------------------------------------------

SUMS = {f"What is {i} + {i + 1}?": str(2 * i + 1) for i in range(10)}


class SumQuestions(Source):
    source: Literal["sums"]
    largest: int = 100


class SumChats(Source):
    source: Literal["sums"]


class SumJudge(JudgeSettings):
    kind: Literal["sums"]


def draw(source: SumQuestions, rng: random.Random) -> list[Row]:
    rows = [
        {"id": f"sum-{gold}", "question": question, "gold": gold, "kind": "odd"}
        for question, gold in SUMS.items()
        if int(gold) <= source.largest
    ]
    rng.shuffle(rows)
    return rows


def truth(question: str, knowledge: str, reasoning: str) -> dict[str, int] | None:
    if question not in SUMS:
        return None
    return {"knowledge": 9 if knowledge else 1, "reasoning": 10 if reasoning.endswith(SUMS[question]) else 2}


def verdict(id_: str, question: str, knowledge: str, reasoning: str | None) -> Verdict:
    scores = truth(question, knowledge, reasoning or "")
    if scores is None:
        raise UserError(f"judge sums: {id_} is no sum")
    score = scores["knowledge" if reasoning is None else "reasoning"]
    return Verdict(score, f"I have added it up.\nScore: {score}")


def chats(prompts: PromptSet, count: int, seed: str) -> list[Chat]:
    asked = [{"role": "user", "content": prompts.render("extract", question=seed)}]
    return [Chat(f"count-{i}", asked, f"{i}") for i in range(count)]


DOMAIN = Domain(
    name="sums",
    questions=QuestionSource(SumQuestions, draw, lambda: [next(iter(SUMS))]),
    judge=TruthfulJudge(SumJudge, verdict),
    chats=ChatSource(SumChats, chats),
    truth=truth,
)


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "sums",
        "model": {"checkpoint": "org/any"},
        "questions": {"sources": [{"source": "sums", "largest": 17}], "decontaminate": ["sums"]},
        "generation": {"samples": 2, "temperature": 0.8},
        "judge": {"kind": "sums"},
        "select": {},
        "general": [{"source": "sums"}],
        "sft": {},
        "rounds": [{"judge": "judge", "questions": 6, "mix": {"general": 5}}],
        "evaluate": {},
    } | changes


@pytest.fixture
def sums(tmp_path, monkeypatch) -> RunFolder:
    """A run on the domain, which is registered for the test."""
    monkeypatch.setitem(domains.KNOWN, "sums", DOMAIN)
    return RunFolder(tmp_path, Recipe.model_validate(recipe()))


def write_texts(folder: RunFolder) -> None:
    """Two samples per question: a right one, and one that is wrong for every second question."""
    rows = []
    for i, row in enumerate(read_jsonl(folder.round(1) / "questions.jsonl")):
        for sample in range(2):
            answer = "0" if sample and i % 2 else row["gold"]
            rows.append(
                {
                    "id": row["id"],
                    "sample": sample,
                    "question": row["question"],
                    "ending": row["ending"],
                    "knowledge": "Adding is counting on.",
                    "reasoning": f"So it is {'very surely ' * sample}{answer}",
                    "truncated": dict.fromkeys(KINDS, False),
                }
            )
    write_jsonl(folder.round(1) / "written.jsonl", rows)


def test_another_domain_goes_through_the_stages(sums):
    counts = questions.run(sums, 1)
    rows = read_jsonl(sums.round(1) / "questions.jsonl")
    assert counts["questions"] == 6
    assert counts["sources"] == {"1 sums": {"wanted": 6, "taken": 6}}
    assert {row["source"] for row in rows} == {"sums"}
    assert all(SUMS[row["question"]] == row["gold"] and int(row["gold"]) <= 17 for row in rows)
    assert "1" not in {row["gold"] for row in rows}  # the test set's question
    write_texts(sums)
    assert judge.run(sums, 1)["scored"] == 24
    selected = select.run(sums, 1)
    assert selected["selected"] == 9  # of 12 texts 3 are wrong
    assert selected["truth"]["all"] == {"n": 12, "base_rate": 0.75, "precision": 1.0, "recall": 1.0}
    mixed = mix.run(sums, 1)
    assert {kind: row["examples"] for kind, row in mixed["kinds"].items()} == {
        "knowledge": 6,
        "reasoning": 9,
        "scoring_knowledge": 6,
        "scoring_reasoning": 12,
        "general": 5,
    }
    general = [row for row in read_jsonl(sums.round(1) / "sft.jsonl") if row["kind"] == "general"]
    assert {row["completion"][0]["content"] for row in general} == set("01234")
    assert report.run(sums)["checkpoints"] == []
    assert not any(stage.settings(sums, 1) == {} for stage in (questions.STAGE, judge.STAGE, mix.STAGE))


def test_its_settings_are_checked(sums):
    for wrong, said in [
        ({"source": "sums", "largest": "x"}, "valid integer"),
        ({"source": "sums", "smallest": 1}, "Extra inputs"),
        ({"source": "products"}, "does not match any of the expected tags: 'dataset', 'passages', .*'sums'"),
        ({"largest": 1}, "Unable to extract tag"),
        ("sums", "valid dictionary"),
    ]:
        with pytest.raises(ValueError, match=said):
            Recipe.model_validate(recipe(questions={"sources": [wrong]}))


def test_without_it_nothing_is_known():
    with pytest.raises(ValueError, match="'sums' found using 'kind' does not match"):
        Recipe.model_validate(
            recipe(questions={"sources": [{"source": "passages", "path": "a"}]}, general=[])
        )


def test_the_recipe_is_read_back_as_it_was(sums):
    dumped = sums.recipe.model_dump(mode="json")
    assert dumped["questions"]["sources"] == [{"source": "sums", "largest": 17}]
    assert dumped["judge"] == {"kind": "sums"}
    assert Recipe.model_validate(dumped) == sums.recipe
