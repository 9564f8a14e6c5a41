"""Bad recipes, arguments and files of a run: each ends in one line that says what is wrong and where.

All in this process: `training.rounds.main` is what `python training/round.py` calls.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import synthetic_run
import yaml
from test_domain import recipe as sums_recipe
from test_domain import sums, write_texts

from ske_models.errors import UserError
from ske_models.files import read_json, read_jsonl, write_json, write_jsonl
from training import recipe, rounds
from training import stage as stages
from training.data import shots
from training.launch import accelerate_config
from training.reporting import report, tables
from training.run_folder import RunFolder
from training.settings.secret import revealed

__all__ = ["sums"]  # a fixture
WORLD = (recipe.FOLDER / "world.yaml").read_text(encoding="utf-8")
LONG = "x" * 300
SECRET = "hunter2secret"
JUDGE = "judge: {kind: openai, model: m, "
HF_ARGS = "args: {dtype: float32, device: cpu, batch_size: 128}\n  samples"


def refused(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message: one line, or one per mistake; short, and without a secret."""
    message = str(error.value)
    assert message.startswith("ske-learn: ")
    assert all(len(line) < 700 for line in message.splitlines())
    assert "Traceback" not in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: 1", "seed: 20261125123456", "seed: input should be less than 4294967296, not 20261125123456"),
        ("seed: 1", "seed: -1", "seed: input should be greater than or equal to 0, not -1"),
        ("seed: 1", "seed: 1.5", "seed: input should be a valid integer"),
        ("seed: 1", "seed: true", "seed: input should be a valid integer"),
        ("seed: 1", "seed: '1'", "seed: input should be a valid integer"),
        ("seed: 1", f"seed: {'9' * 5_000}", "digits"),
        ("rate: 4.0e-4", "rate: .inf", "sft.learning_rate: input should be a finite number"),
        ("rate: 4.0e-4", "rate: .nan", "sft.learning_rate: input should be a finite number"),
        ("rate: 4.0e-4", "rate: 1.0e+300", "sft.learning_rate: input should be less than or equal to"),
        ("temperature: 0.8", "temperature: .inf", "generation.temperature: input should be a finite number"),
        ("temperature: 0.8", "temperature: -0.1", "generation.temperature: input should be greater than or"),
        ("near_duplicate: 1.0", "near_duplicate: .nan", "near_duplicate: input should be a finite number"),
        ("near_duplicate: 1.0", "near_duplicate: 0", "near_duplicate: input should be greater"),
        (
            "epochs: 2",
            "epochs: 1000000000000",
            "sft.epochs: input should be less than or equal",
        ),
        (
            "temperature: 0.8",
            "temperature: 0.0",
            "at temperature 0 they would all be the same; write samples",
        ),
        (
            "  epochs: 2",
            "  epochs: 2\n  padding_free: true",
            "sft: padding_free needs flash attention; write",
        ),
        ("window: 256", "window: 0", "generation.window: input should be greater than 0"),
        ("samples: 4", "samples: null", "generation.samples: input should be a valid integer"),
        ("name: world", "name: ../elsewhere", "name: letters, digits, blanks and"),
        ("name: world", "name: a/b", "name: letters, digits, blanks and"),
        ("name: world", "name: '[/] x'", "name: letters, digits, blanks and"),
        ("name: world", "name: ''", "name: letters, digits, blanks and"),
        ("name: world", "name: .hidden", "name: letters, digits, blanks and"),
        ("name: world", "name: ~nosuchuser", "name: letters, digits, blanks and"),
        ("name: world", 'name: "a\\nb"', "name: letters, digits, blanks and"),
        ("name: world", f"name: {LONG}", "name: string should have at most 60 characters"),
        ("name: world", "name: [a]", "name: input should be a valid string"),
        ("[ske_world]", "[../../etc/passwd]", "evaluate.tasks.0: letters, digits, blanks and"),
        ("[ske_world]", f"[{LONG}]", "evaluate.tasks.0: string should have at most 200 characters"),
        (
            HF_ARGS,
            "args: {pretrained: x}\n  samples",
            "args: `pretrained` is set by the run itself",
        ),
        (
            HF_ARGS,
            f"args: {{token: {SECRET}}}\n  samples",
            "args: `token` is a secret; write $NAME",
        ),
        (
            HF_ARGS,
            f"args: {{header: {{Authorization: Bearer {SECRET}}}}}\n  samples",
            "generation.args: `header` is a secret; write $NAME",
        ),
        (
            HF_ARGS,
            f"args: {{proxy: 'http://me:{SECRET}@host'}}\n  samples",
            "generation.args: `proxy` has a password in its address",
        ),
        (
            HF_ARGS,
            f"args: {{model_kwargs: {{hf_token: {SECRET}}}}}\n  samples",
            "args: `hf_token` is a secret; write $NAME",
        ),
        (HF_ARGS, f"args: {{x: sk-{SECRET}abcdef}}\n  samples", "args: `x` is a secret; write $NAME"),
        (HF_ARGS, f"args: {{api-key: {SECRET}}}\n  samples", "args: `api-key` is a secret; write $NAME"),
        (HF_ARGS, f"args: {{hub_token: {SECRET}}}\n  samples", "args: `hub_token` is a secret"),
        (HF_ARGS, f"args: {{api_token: {SECRET}}}\n  samples", "args: `api_token` is a secret"),
        (HF_ARGS, f"args: {{Bearer: {SECRET}}}\n  samples", "args: `Bearer` is a secret"),
        (HF_ARGS, f"args: {{key: {SECRET}}}\n  samples", "args: `key` is a secret"),
        (HF_ARGS, f"args: {{x: [{{y: 1}}, {{token: {SECRET}}}]}}\n  samples", "args: `token` is a secret"),
        (HF_ARGS, f"args: {{x: AIza{SECRET}abcdef}}\n  samples", "args: `x` is a secret"),
        (
            HF_ARGS,
            f"args: {{header: {{Authorization: 'Bearer {SECRET} $X'}}}}\n  samples",
            "args: `header` is a secret; write $NAME",
        ),
        (HF_ARGS, f"args: {{token: $X{SECRET[:3]}-{SECRET}}}\n  samples", "args: `token` is a secret"),
        ("judge: {kind: world}", f"{JUDGE}base_url: 'https://{SECRET}@h/v1'}}", "has a token in its address"),
        (
            "judge: {kind: world}",
            f"{JUDGE}base_url: 'https://h/v1?v=1&key={SECRET}'}}",
            "judge.base_url: `the address` has a key in its address",
        ),
        (
            "judge: {kind: world}",
            f"{JUDGE}base_url: 'https://h/v1?api-key={SECRET}&x=$X'}}",
            "has a key in its address",
        ),
        ("judge: {kind: world}", f"{JUDGE}key_env: sk-{SECRET}abcdef}}", "judge.key_env: the name of an env"),
        (
            "judge: {kind: world}",
            f"{JUDGE}key_env: gsk_4{SECRET}ab7d9f}}",
            "of an environment variable is nee",
        ),
        (
            "judge: {kind: world}",
            f"{JUDGE}key_env: [{SECRET}]}}",
            "judge.key_env: input should be a valid str",
        ),
        ("prompts: world", 'prompts: "a\\nb"', "prompts: a line of text is needed"),
        ("backend: hf\n", f"backend: {LONG * 4}\n", "backend: string should have at most 1000 characters"),
        (HF_ARGS, "args: {top_p: .nan}\n  samples", "generation.args: `top_p` must be a finite number"),
        ("backend: hf\n", f"backend: hf\n  endpoints: ['http://me:{SECRET}@host/v1']\n", "has a password"),
        (
            "backend: hf\n",
            "backend: hf\n  endpoints: [host:8000]\n",
            "endpoints.0: no server's address; write",
        ),
        ("judge: {kind: world}", f"{JUDGE}base_url: 'https://me:{SECRET}@h/v1'}}", "has a password in its"),
        ("judge: {kind: world}", f"{JUDGE}api_key: {SECRET}}}", "judge.api_key is no setting"),
        (
            "judge: {kind: world}",
            f"{JUDGE}usd_per_million: {{input: -1.0, output: 1.0}}}}",
            "greater than or",
        ),
        ("judge: {kind: world}", f"{JUDGE}deadline_s: .inf}}", "judge.deadline_s: input should be a finite"),
        ("judge: {kind: world}", "judge: world", "judge: input should be a valid dictionary"),
        ("judge: {kind: world}", "judge: {kind: [world]}", "judge: input tag"),
        ("[world]", "[worlds]", "questions.decontaminate.0: input should be 'mmlu'"),
        ("- {source: world, split: rounds}", "- null", "questions.sources.0: input should be a valid dict"),
        ("    - {source: world, split: rounds}", "    []", "questions.sources: list should have at least 1"),
        ("- {source: world}", "- {source: passages, path: a}", "general.0: input tag 'passages' found"),
        (
            "general: 1400}",
            "general: -5}",
            "rounds.0.mix.general: input should be greater than",
        ),
        ("general: 1400}", "generals: 5}", "rounds.0.mix.generals is no setting"),
        ("threshold: 8", "threshold: 8\n  threshold: 9", "the key `threshold` occurs twice"),
        ("threshold: 8", "8: 8", "a key must be text"),
        ("seed: 1", "seed: &a [*a]", "anchors (&) and aliases (*) are not supported"),
        ("seed: 1", f"seed: {'[' * 5_000}", "lists and mappings in each other"),
        ("seed: 1", "seed: !!python/object/apply:os.system [id]", "the tag"),
        ("seed: 1", "seed: !!timestamp abc", "the tag"),
        ("seed: 1", "seed:\t1", "not YAML"),
        ("seed: 1", "seed: \x00", "not YAML"),
        (
            "  threshold: 8",
            "  threshold: eight",
            "threshold: input should be a valid integer, not 'eight'",
        ),
        ("prompts: world", "prompts: 5", "prompts: input should be a valid string, not 5"),
    ],
)
def test_bad_recipes(tmp_path, old, new, said):
    assert old in WORLD
    file = tmp_path / "mine.yaml"
    file.write_text(WORLD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        recipe.load(str(file))
    message = refused(error)
    assert said in message
    assert f"{file}, line " in message


def run_command(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    """`python training/round.py ARGS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["round.py", *args])
    rounds.main()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--recipe", "~nosuchuser/x.yaml"], "--recipe ~nosuchuser/x.yaml: no such file"),
        (["--recipe", f"{LONG}.yaml"], "no such file, nor a recipe of that name"),
        (["--recipe", "."], "--recipe .: no such file"),
        (["--recipe", "a\0b"], "no such file"),
        (["--recipe", "../training/recipes"], "no such file"),
        (["--rounds", "99999999999999999999"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "1-"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", ""], "rounds 1 to 4 are in the recipe"),
        (["--until", "base"], "--until base: the recipe has an M0 (model.checkpoint) and no base model"),
        (["--until", "[/]"], "--until [/]: no stage; one of: base, questions"),
        (["--run", LONG], "cannot be used: File name too long"),
        (["--run", "a\0b"], "cannot be used"),
        (["--run", "/proc/run"], "cannot be used"),
        (["--status", "--run", "nowhere"], "nowhere: no run here"),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, args, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        run_command(monkeypatch, *args)
    assert said in refused(error)
    assert not list(tmp_path.rglob("recipe.json"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "recipe.json: name is missing"),
        ([], "recipe.json: a recipe is a mapping, not list"),
        ("text", "recipe.json: a recipe is a mapping, not str"),
        (None, "recipe.json: a recipe is a mapping, not NoneType"),
        ({"seed": "one"}, "recipe.json: seed: input should be a valid integer, not 'one'"),
        ({"extra": 1}, "recipe.json: extra is no setting"),
    ],
)
def test_recipe_of_a_run_that_is_none(tmp_path, monkeypatch, content, said):
    run = synthetic_run.make(tmp_path, rounds_done=-1)
    whole = read_json(run.path / "recipe.json")
    write_json(
        run.path / "recipe.json", whole | content if content and isinstance(content, dict) else content
    )
    with pytest.raises(UserError) as error:
        run_command(monkeypatch, "--status", "--run", str(run.path))
    message = refused(error)
    assert said in message
    assert "give the --recipe that it was made with again" in message


@pytest.mark.parametrize(
    "record", [{}, [], None, 1, {"settings": []}, {"counts": None}, {"seconds": "1"}, {"inputs": [1]}]
)
def test_records_that_are_none(tmp_path, record):
    run = synthetic_run.make(tmp_path, rounds_done=1)
    file = run.round(1) / "select.json"
    write_json(file, read_json(file) | record if record and isinstance(record, dict) else record)
    with pytest.raises(UserError) as error:
        stages.is_done(stages.BY_NAME["select"], run, 1)
    assert f"{file}: not what a run writes there" in refused(error)
    with pytest.raises(UserError) as error:
        tables.records(run)
    assert "delete it to do select again" in refused(error)


@pytest.mark.parametrize(
    ("stage", "name", "row", "said"),
    [
        ("judge", "written", {}, "written.jsonl: row {}: id: field required"),
        (
            "judge",
            "written",
            {"id": 1},
            "written.jsonl: id 1, sample None: id: input should be",
        ),
        ("mix", "selected", {}, "selected.jsonl: row {}: id: field required"),
        ("mix", "scores", {"id": "a"}, "scores.jsonl: id a, sample None: sample: field required"),
        ("mix", "written", {"id": "a"}, "written.jsonl: id a, sample None: sample: field required"),
        ("sft", "sft", {"prompt": [], "completion": []}, "sft.jsonl: row"),
        ("sft", "sft", {"prompt": "a", "completion": "b"}, "sft.jsonl: row"),
        ("questions", "questions", {}, "questions.jsonl: row {}: id: field required"),
    ],
)
def test_rows_of_a_wrong_shape(sums, stage, name, row, said):
    """The second round exists for `questions`, which reads those of the first."""
    twice = sums_recipe(rounds=[{"judge": "judge", "questions": 2, "mix": {"general": 5}}] * 2)
    folder = RunFolder(sums.path, recipe.Recipe.model_validate(twice))
    for done in ("questions",):
        stages.execute(stages.BY_NAME[done], folder, 1)
    write_texts(folder)
    for done in ("judge", "select", "mix"):
        stages.execute(stages.BY_NAME[done], folder, 1)
    file = folder.round(1) / f"{name}.jsonl"
    write_jsonl(file, [*read_jsonl(file), row])
    with pytest.raises(UserError) as error:
        stages.execute(stages.BY_NAME[stage], folder, 2 if stage == "questions" else 1)
    assert said in refused(error)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("results/M0/made_up.cot.json", {}, "'task' is missing or of another type"),
        ("results/M0/made_up.cot.json", [], "it is no object but list"),
        ("results/M0/made_up.cot.json", {"metrics": 1}, "'metrics' is missing or of another type"),
        ("analysis.json", {}, "'counts' is missing or of another type"),
    ],
)
def test_results_of_a_wrong_shape(tmp_path, name, content, said):
    run = synthetic_run.make(tmp_path, rounds_done=0)
    file = run.path / name
    old = read_json(file) if file.is_file() and content and isinstance(content, dict) else None
    write_json(file, old | content if old else content)
    write_jsonl(run.path / "analysis.jsonl", [])
    with pytest.raises(UserError) as error:
        report.run(run)
    assert f"{file}: not what a run writes there ({said})" in refused(error)


def test_samples_of_a_wrong_shape(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=0)
    file = run.results(0) / "made_up.cot.samples.jsonl"
    write_jsonl(file, [*read_jsonl(file), {"doc_id": "one"}])
    with pytest.raises(UserError) as error:
        report.run(run)
    assert f"{file}: row" in refused(error)


@pytest.mark.parametrize(
    ("find", "name", "said"),
    [
        (shots.load, "~nosuchuser/shots.yaml", "no such file"),
        (shots.load, LONG, "no such file"),
        (accelerate_config, "~nosuchuser/fsdp.yaml", "no such file"),
        (accelerate_config, LONG, "no such file"),
    ],
)
def test_files_that_a_recipe_names(find: Any, name, said):
    with pytest.raises(UserError) as error:
        find(name)
    assert said in refused(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "shots.yaml, line 1: recipe: input should be a valid dictionary"),
        ("steps: [&a {question: q}, *a]", "anchors (&) and aliases (*) are not supported"),
        (
            "steps:\n- {question: q, knowledge: k, reasoning: ''}",
            "line 2: steps.0.reasoning: string should",
        ),
        ("ask:\n- {passage: p, question: q, answer: a}", "line 2: ask.0.answer is no setting"),
    ],
)
def test_bad_shots(tmp_path, text, said):
    (tmp_path / "shots.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        shots.load(str(tmp_path / "shots.yaml"))
    assert said in refused(error)


@pytest.mark.parametrize(
    "args",
    [
        {"header": {"Authorization": "Bearer $MY_TOKEN", "api-key": "${MY_TOKEN}"}},
        {"base_url": "http://h/v1?api-version=2024-10-21&key=$MY_TOKEN"},
        {"base_url": "https://$ME:$MY_TOKEN@a/v1;https://$MY_TOKEN@b/v1"},
        {
            "think_end_token": "</think>",
            "add_bos_token": True,
            "max_num_batched_tokens": 8,
            "eos_token": "<e>",
        },
        {"use_auth_token": True, "tokenizer": "org/name", "dtype": "float32"},
    ],
)
def test_what_is_no_secret_may_be_written(args):
    content = yaml.safe_load(WORLD)
    content["generation"]["args"] = args
    assert recipe.Recipe.model_validate(content).generation.args == args


def test_a_secret_is_named_and_read_where_it_is_used(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    text = WORLD.replace(HF_ARGS, "args: {token: $MY_TOKEN}\n  samples")
    text = text.replace("backend: hf\n", "backend: hf\n  endpoints: ['https://me:$MY_TOKEN@host/v1']\n", 1)
    made = recipe.Recipe.model_validate(yaml.safe_load(text))
    assert SECRET not in made.model_dump_json()
    assert revealed(made.generation.args) == {"token": SECRET}
    assert revealed(made.generation.endpoints) == [f"https://me:{SECRET}@host/v1"]
    with pytest.raises(UserError, match="the environment variable NOT_SET is not set"):
        revealed({"token": "$NOT_SET"})
