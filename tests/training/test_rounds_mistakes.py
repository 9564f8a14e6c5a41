"""Bad data and settings in the middle of a run: a clear line, status 1, and what was done is still there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import CHECKPOINT, command, merged, module, records, refused, small, texts, write

from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from training import stage as stages
from training.recipe import Recipe
from training.run_folder import RunFolder

pytestmark = pytest.mark.slow  # those of a finished run; the fixture is what takes long
ROOT_USER = os.geteuid() == 0


@pytest.fixture
def run(small_run, tmp_path) -> RunFolder:
    """A copy of the small run, to be damaged."""
    return RunFolder.open(shutil.copytree(small_run.folder, tmp_path / "run", symlinks=True))


def changed(run: RunFolder, **changes: Any) -> RunFolder:
    """The same folder with other settings."""
    return RunFolder(run.path, Recipe.model_validate(merged(run.recipe.model_dump(mode="json"), changes)))


def failure(run: RunFolder, stage: str, n: int) -> str:
    """The message of a stage that must fail; what the stages before it made is as it was."""
    made = {path: path.read_bytes() for path in stages.BY_NAME[stage].inputs(run, n) if path.is_file()}
    with pytest.raises(UserError) as error:
        stages.execute(stages.BY_NAME[stage], run, n)
    assert all(path.read_bytes() == content for path, content in made.items())
    return str(error.value)


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("synthesize", "questions"),
        ("judge", "written"),
        ("select", "written"),
        ("select", "scores"),
        ("mix", "selected"),
        ("sft", "sft"),
    ],
)
def test_corrupt_line(run, stage, name):
    file = run.round(2) / f"{name}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*lines[:2], lines[2][:-9], "\n", *lines[3:]]), encoding="utf-8")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    message = failure(run, stage, 2)
    assert f"{file}, line 3: not JSON" in message
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_corrupt_line_is_mended_and_the_command_continues(small_run, run):
    file = run.round(2) / "selected.jsonl"
    whole, before = file.read_bytes(), records(run.path)
    file.write_bytes(whole[:-20])
    args = ("--recipe", small_run.recipe, "--run", run.path, "--until", "sft")
    assert f"{file}, line" in refused(command(*args))
    assert (run.checkpoint(2) / "model.safetensors").is_file()
    file.write_bytes(whole)
    done = command(*args)
    assert done.returncode == 0, done.stderr
    assert records(run.path) == before
    assert texts(run.path) == texts(small_run.folder)


def first(**fields: Any) -> Callable[[list[dict]], list[dict]]:
    """Other fields in the first row."""
    return lambda rows: [rows[0] | fields, *rows[1:]]


@pytest.mark.parametrize(
    ("stage", "name", "edit", "said"),
    [
        ("synthesize", "questions", lambda rows: [], "no questions; make them with"),
        ("synthesize", "questions", first(question=None), "row 1: question missing or no text"),
        ("judge", "written", first(question="Who is the tallest?"), "is no question of TinyWorld"),
        ("select", "scores", lambda rows: rows[1:], "no row for its"),
        ("select", "scores", first(score=11), "score: input should be less than or equal to 10"),
        ("select", "scores", lambda rows: [*rows, rows[0]], "two knowledge scores"),
        ("select", "scores", lambda rows: [*rows, rows[0] | {"id": "nobody"}], "is not in written.jsonl"),
        ("select", "written", lambda rows: [*rows, rows[0]], "is there twice"),
        ("select", "written", lambda rows: [{"id": "a"}, *rows], "field required"),
        ("mix", "selected", lambda rows: [], "empty, nothing was selected"),
    ],
)
def test_rows_that_do_not_fit(run, stage, name, edit, said):
    file = run.round(1) / f"{name}.jsonl"
    write_jsonl(file, edit(read_jsonl(file)))
    message = failure(run, stage, 1)
    assert said in message.lower() or said in message
    assert file.name in message or "round 1" in message or "judge world" in message


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        ("synthesize", {"generation": {"backend": "hff"}}, "generation.backend=hff: unknown"),
        ("synthesize", {"generation": {"args": {"dtyp": "float32"}}}, "dtyp"),
        ("synthesize", {"generation": {"endpoints": ["http://127.0.0.1:1/v1"]}}, "generation.endpoints"),
        ("synthesize", {"generation": {"max_reasoning_tokens": 4096}}, "lower the limit"),
        ("synthesize", {"generation": {"shots": "nowhere.yaml"}}, "nowhere.yaml"),
        ("sft", {"sft": {"max_length": 4}}, "none of the"),
        ("sft", {"sft": {"batch": 30, "per_device_batch": 4}}, "cannot be split evenly"),
        (
            "sft",
            {"sft": {"padding_free": True, "attention": "flash_attention_2"}},
            "sft.padding_free: needs a GPU",
        ),
        ("sft", {"sft": {"attention": "flash"}}, "cannot be loaded"),
        ("evaluate", {"evaluate": {"tasks": ["ske_wrld"]}}, "did you mean ske_world"),
        ("evaluate", {"evaluate": {"tasks": ["ske"], "limit": 1}}, "ske is a group; name its tasks"),
        ("evaluate", {"evaluate": {"backend": "hff"}}, "hff"),
        ("evaluate", {"evaluate": {"args": {"dtyp": "float32"}}}, "dtyp"),
    ],
)
def test_settings_that_do_not_fit(run, stage, changes, said):
    assert said in failure(changed(run, **changes), stage, 1)


def test_no_example_is_wanted(run):
    none = dict.fromkeys(("knowledge", "reasoning", "scoring_knowledge", "scoring_reasoning", "general"), 0)
    rounds = [{"judge": "judge", "questions": 1, "mix": none}] * 2
    assert "the counts of rounds[0].mix in the recipe are all 0" in failure(
        changed(run, rounds=rounds), "mix", 1
    )


@pytest.mark.parametrize(
    ("texts_", "kind", "said"),
    [
        ([], "passages", "empty; give a dataset with rows in it"),
        ([{"title": "a"}], "passages", "no column 'text' (found title); set `column`"),
        ([{"question": " "}], "dataset", "no question survives"),
    ],
)
def test_questions_that_cannot_be_had(run, tmp_path, texts_, kind, said):
    write_jsonl(tmp_path / "corpus.jsonl", texts_)
    source = {"source": kind, "path": str(tmp_path / "corpus.jsonl")}
    assert said in failure(changed(run, questions={"sources": [source]}), "questions", 1)


def test_no_question_survives_the_decontamination(run):
    """The questions of the development set are test items."""
    sources = [{"source": "world", "split": "dev"}]
    message = failure(changed(run, questions={"sources": sources}), "questions", 1)
    assert "no question survives" in message
    assert "contaminated" in message
    assert str(run.round(1) / "dropped.jsonl") in message


def damaged(run: RunFolder, name: str) -> None:
    """M1 without one of its files, and nothing that came of it."""
    (run.checkpoint(1) / name).unlink()
    shutil.rmtree(run.checkpoint(2))
    shutil.rmtree(run.results(1))


@pytest.mark.parametrize("stage", ["synthesize", "sft", "evaluate"])
def test_checkpoint_without_chat_template(run, stage):
    damaged(run, "chat_template.jinja")
    assert "chat template" in failure(run, stage, 1 if stage == "evaluate" else 2)


@pytest.mark.parametrize("stage", ["synthesize", "sft", "evaluate"])
def test_checkpoint_without_weights(run, stage):
    damaged(run, "model.safetensors")
    assert str(run.checkpoint(1)) in failure(run, stage, 1 if stage == "evaluate" else 2)


def test_start_model_without_chat_template(tmp_path):
    """It is found before anything is generated."""
    from ske_models import embedded

    source = embedded.path() if CHECKPOINT == "embedded" else Path(CHECKPOINT)
    shutil.copytree(source, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").unlink()
    file = write(tmp_path / "r.yaml", small(model={"checkpoint": str(tmp_path / "model")}))
    assert "chat template" in refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert not (tmp_path / "run" / "round0").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": {"kind": "openai", "model": "gpt-4", "key_env": "NO_SUCH_KEY"}}, "NO_SUCH_KEY"),
        ({"prompts": "nowhere.yaml"}, "prompts=nowhere.yaml"),
        (
            {"model": {"checkpoint": "nobody/nothing"}},
            "nobody/nothing: no such folder, and it cannot be downloaded",
        ),
        ({"model": {"checkpoint": "."}}, "no config.json in it, so no model"),
    ],
)
def test_mistakes_that_are_found_before_anything_is_done(tmp_path, changes, said):
    file = write(tmp_path / "r.yaml", small(**changes))
    assert said in refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert not list((tmp_path / "run").glob("round*"))


def test_prompt_set_without_a_template(tmp_path):
    from ske_models.prompts import FOLDER

    content = (FOLDER / "world.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(
        content.replace("score_knowledge:", "rate_knowledge:"), encoding="utf-8"
    )
    file = write(tmp_path / "r.yaml", small(prompts=str(tmp_path / "mine.yaml")))
    message = refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert "templates missing: ['score_knowledge']" in message


def test_nothing_is_good_enough(small_run, run):
    """The histogram is printed, nothing is trained, and the mended file takes the run on."""
    file = run.round(1) / "scores.jsonl"
    whole = file.read_bytes()
    write_jsonl(file, [row | {"score": min(row["score"], 7)} for row in read_jsonl(file)])
    args = ("--recipe", small_run.recipe, "--run", run.path, "--rounds", "1", "--until", "mix")
    message = refused(command(*args))
    assert "none of 240 texts is selected" in message
    assert "threshold 8" in message
    given = [row["score"] for row in read_jsonl(file) if row["kind"] == "knowledge"]
    [line] = [line for line in message.splitlines() if line.startswith("knowledge")]
    assert line.split()[1:] == [str(given.count(score)) for score in range(1, 11)]
    assert (run.checkpoint(1) / "config.json").is_file()
    file.write_bytes(whole)
    done = command(*args)
    assert done.returncode == 0, done.stderr
    assert texts(run.path) == texts(small_run.folder)


def test_push_without_token(small_run, tmp_path):
    args = ("--recipe", small_run.recipe, "--run", small_run.folder, "--until", "sft", "--push", "org/name")
    message = refused(command(*args, HF_HOME=str(tmp_path), HF_TOKEN=""))
    assert "--push org/name: no token for the hub" in message


def test_stage_of_a_round_that_there_is_not(run):
    assert "round 9: this run has rounds 1 to 2" in refused(module("mix", run.path, "9"))
    assert "no run here" in refused(module("mix", run.path / "nowhere", "1"))


def test_broken_record(small_run, run):
    (run.round(1) / "mix.json").write_text("{")
    message = refused(command("--recipe", small_run.recipe, "--run", run.path))
    assert f"{run.round(1) / 'mix.json'}: cannot be read" in message
    assert "delete it" in message


@pytest.fixture
def disk(small_run, tmp_path) -> Iterator[Path]:
    """A disk of 32 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if not ROOT_USER or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_no_space_left(small_run, disk):
    folder = shutil.copytree(small_run.folder, disk / "run", symlinks=True)
    run = RunFolder.open(folder)
    (run.round(2) / "mix.json").unlink()
    (run.round(2) / "sft.jsonl").unlink()
    before = texts(folder)
    with (disk / "rest").open("wb", buffering=0) as rest:
        block = b"0" * (1 << 16)
        try:
            while rest.write(block) == len(block):
                pass
        except OSError:
            pass
    args = ("--recipe", small_run.recipe, "--run", folder, "--until", "mix")
    message = refused(command(*args))
    assert "cannot be written: No space left on device; make room" in message
    assert texts(folder) == before
    (disk / "rest").unlink()
    done = command(*args)
    assert done.returncode == 0, done.stderr
    assert texts(folder) == texts(small_run.folder)


def test_no_space_for_a_checkpoint(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    shutil.rmtree(run.checkpoint(2))
    assert "GB are needed for two checkpoints" in failure(run, "sft", 2)
