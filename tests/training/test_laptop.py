"""recipes/laptop.yaml: what it says is whole, and with the local data sets it begins."""

from __future__ import annotations

import json

import pytest
from laptop import laptop
from small_runs import command, write

from ske_models.files import read_jsonl
from training import recipe
from training.settings.key import KeyJudge


def test_the_recipe_is_small_enough_for_a_night():
    loaded = recipe.load("laptop")
    assert loaded.sft.lora is not None
    assert isinstance(loaded.judge, KeyJudge)
    assert [settings.judge for settings in loaded.rounds] == ["judge", "self", "self", "self"]
    assert loaded.analysis.self_scored
    for settings in loaded.rounds:
        counts = settings.mix.model_dump(include={"knowledge", "reasoning", "general"}).values()
        assert sum(counts) + settings.mix.scoring_knowledge + settings.mix.scoring_reasoning == 500
    keyed = [source for source in loaded.questions.sources if recipe.has_key(source)]
    assert len(keyed) == 4
    assert set(loaded.questions.decontaminate) == set(recipe.BENCHMARKS)


@pytest.mark.slow
def test_it_begins_with_the_data_of_this_machine(hub, tiny_llama, tmp_path):
    content = json.loads(json.dumps(laptop(str(tiny_llama), tiny=True, evaluate={"tasks": []})))
    file = write(tmp_path / "laptop.yaml", content)
    until = ("--rounds", "1", "--until", "questions")
    done = command("--recipe", file, "--run", tmp_path / "run", *until, env=hub.env)
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "run" / "round1" / "questions.jsonl")
    assert len(rows) == 12
    assert {row["key"]["kind"] for row in rows} == {"choice"}
    assert all(row["stem"] in row["question"] and "(A) " in row["question"] for row in rows)
