"""Recipes: those that come with the project, and what a mistake in one says."""

import pytest
import yaml

from ske_models.errors import UserError
from training import recipe
from training.settings.judge import OpenAIJudge

WORLD = (recipe.FOLDER / "world.yaml").read_text(encoding="utf-8")


def line_of(text: str, needle: str) -> int:
    return text[: text.index(needle)].count("\n") + 1


def broken(tmp_path, old: str, new: str) -> tuple[str, str]:
    """(the message about world.yaml with `old` replaced, the text of that file)."""
    assert old in WORLD
    text = WORLD.replace(old, new, 1)
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        recipe.load(str(file))
    return str(error.value), text


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 1", "sed: 1", "sed is no setting; remove it"),
        (
            "  threshold: 8",
            "  threshold: 11",
            "select.threshold: input should be less than or equal to 10, not 11",
        ),
        ("  threshold: 8", "  threshold: 0", "select.threshold: input should be greater than or equal to 1"),
        ("  threshold: 8", "  threshold: 7.5", "select.threshold: input should be a valid integer"),
        ("  batch: 32", "  batch: many", "sft.batch: input should be a valid integer, not 'many'"),
        ("  batch: 32", "  batch: 0", "sft.batch: input should be greater than 0"),
        (
            "  learning_rate: 4.0e-4",
            "  learning_rate: -1.0",
            "sft.learning_rate: input should be greater than 0",
        ),
        (
            "  learning_rate: 4.0e-4",
            "  learning_rate: 4e-4",
            "sft.learning_rate: input should be a valid number",
        ),
        ("  epochs: 2", "  epochs: -2", "sft.epochs: input should be greater than 0"),
        ("split: rounds", "split: test", "split: input should be 'train', 'rounds' or 'dev', not 'test'"),
        ("split: rounds", "spilt: rounds", "spilt is no setting"),
        ("source: world, split", "source: moon, split", "questions.sources.0: input tag 'moon'"),
        ("judge: {kind: world}", "judge: {kind: openai}", "judge.model is missing; add it"),
        ("judge: {kind: world}", "judge: {kind: oracle}", "input tag 'oracle'"),
        (
            "judge: {kind: world}",
            "judge: {kind: openai, model: gpt-4, max_usd: 5.0}",
            "max_usd needs usd_per_million",
        ),
        ("  checkpoint: embedded", "  base: {checkpoint: x}", "model.base.data is missing"),
        ("  checkpoint: embedded", "  revision: main", "give `checkpoint` or `base`"),
        ("judge: self", "judge: me", "rounds.1.judge: input should be 'judge' or 'self', not 'me'"),
        (
            "  decontaminate: [world]",
            "  decontaminate: [gsm8k]",
            "questions.decontaminate.0: input should be",
        ),
        ("  tasks: [ske_world]", "  tasks: ske_world", "evaluate.tasks: input should be a valid list"),
        ("name: world", "", "name is missing; add it"),
        ("  samples: 4", "  samples: 4\n  methods: [m]", "generation.methods is no setting"),
        ("rounds:\n", "rounds: []\nround:\n", "rounds: list should have at least 1 item"),
        ("seed: 1", "seed: [", "not YAML"),
    ],
)
def test_mistake_is_named_with_its_line(tmp_path, old, new, said):
    message, text = broken(tmp_path, old, new)
    assert said.lower() in message.lower()
    changed = new.strip().split("\n")[0]
    if "missing" not in said and "not YAML" not in said and changed and "give `ch" not in said:
        assert f"line {line_of(text, changed)}" in message or f"line {line_of(text, changed) + 1}" in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_no_mapping(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="a mapping is needed"):
        recipe.load(str(tmp_path / "r.yaml"))


def test_no_such_recipe():
    with pytest.raises(UserError, match=r"no such file, nor a recipe of that name \(laptop, paper, world\)"):
        recipe.load("worlds")


def test_published_figures():
    """Figures of the paper (SKE-Learn, AAAI 2025)."""
    paper = recipe.load("paper")
    first = paper.rounds[0]
    assert paper.model.base is not None
    assert paper.model.base.data.rows == 100_000
    for sft in (paper.sft, paper.model.base.sft):
        assert (sft.epochs, sft.batch, sft.learning_rate, sft.warmup_steps) == (2, 32, 2e-5, 100)
    mix = first.mix
    assert (mix.knowledge, mix.reasoning, mix.general) == (5_000, 5_000, 25_000)
    assert (mix.scoring_knowledge or 0) + (mix.scoring_reasoning or 0) == 4_237
    assert paper.select.threshold == 8
    assert isinstance(paper.judge, OpenAIJudge)
    assert paper.judge.model == "gpt-4-0125-preview"
    assert [r.judge for r in paper.rounds] == ["judge", "self", "self", "self"]
    assert (paper.generation.temperature, paper.analysis.items) == (0.0, 500)


def test_a_round_selects_by_the_recipe_where_it_says_nothing_else():
    content = yaml.safe_load(WORLD)
    content["select"] = {"threshold": 7, "per_question": 1, "kinds": ["two_hop"]}
    content["rounds"][3]["select"] = {"by": "random"}
    content["rounds"][2]["select"] = {"per_question": None, "threshold": 9}
    made = recipe.Recipe.model_validate(content)
    common = {"by": "score"} | content["select"]
    assert made.rounds[1].select is None
    for settings, own in [
        (made.rounds[2].select, {"per_question": None, "threshold": 9}),
        (made.rounds[3].select, {"by": "random"}),
    ]:
        assert settings is not None
        assert settings.model_dump() == common | own
    assert recipe.Recipe.model_validate(made.model_dump(mode="json")) == made  # as a run's folder has it


def test_hash_is_of_the_content(tmp_path):
    (tmp_path / "same.yaml").write_text("# a comment\n" + WORLD, encoding="utf-8")
    (tmp_path / "other.yaml").write_text(WORLD.replace("seed: 1", "seed: 2"), encoding="utf-8")
    assert recipe.load(str(tmp_path / "same.yaml")).hash == recipe.load("world").hash
    assert recipe.load(str(tmp_path / "other.yaml")).hash != recipe.load("world").hash
