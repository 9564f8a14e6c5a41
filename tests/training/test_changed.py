"""What is not as it was when a stage was done: another M0, other data, results that are gone."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import synthetic_run
from test_domain import recipe as sums_recipe
from test_domain import sums

from ske_models import embedded
from ske_models.errors import UserError
from ske_models.files import read_json, read_jsonl, write_json, write_jsonl
from training import rounds
from training import stage as stages
from training.data import earlier
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.stages import base, evaluate, mix, questions

__all__ = ["sums"]  # a fixture


def folder_of(sums: RunFolder, path: Path, **changes: Any) -> RunFolder:
    """A run on the domain of `sums`."""
    return RunFolder(path, Recipe.model_validate(sums_recipe(**changes)))


@pytest.fixture
def m0(tmp_path) -> Path:
    """A checkpoint that is no run's."""
    return Path(shutil.copytree(embedded.path(), tmp_path / "models" / "first"))


def test_another_m0_than_the_one_that_was_linked_is_refused(sums, m0):
    run = folder_of(sums, sums.path / "run", model={"checkpoint": str(m0)})
    rounds._begin(run)
    rounds._begin(run)
    other = shutil.copytree(m0, m0.with_name("second"))
    for model, said in [
        ({"checkpoint": str(other)}, f"model.checkpoint is '{m0}', not '{other}'"),
        ({"checkpoint": str(m0), "revision": "main"}, "model.revision is None, not 'main'"),
    ]:
        with pytest.raises(UserError, match=r"run/M0\.json: M0 is that of another recipe") as error:
            rounds._begin(folder_of(sums, run.path, model=model))
        assert said in str(error.value)
    assert read_json(run.path / "recipe.json")["model"]["checkpoint"] == str(m0)
    run.origin.unlink()  # a release before this one wrote none; its recipe.json says it
    with pytest.raises(UserError, match="model.checkpoint is"):
        rounds._begin(folder_of(sums, run.path, model={"checkpoint": str(other)}))
    run.checkpoint(0).unlink()  # before it is there, the recipe may change
    rounds._begin(folder_of(sums, run.path, model={"checkpoint": str(other)}))
    assert run.checkpoint(0).resolve() == other


def test_weights_of_m0_that_change_in_their_place_are_noticed(sums, m0):
    run = folder_of(sums, sums.path / "run", model={"checkpoint": str(m0)})
    rounds._begin(run)
    stages.execute(evaluate.STAGE, run, 0)  # of no task
    assert stages.is_done(evaluate.STAGE, run, 0)
    weights = m0 / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert not stages.is_done(evaluate.STAGE, run, 0)
    record = read_json(evaluate.STAGE.record(run, 0))
    del record["inputs"]["M0"]  # a release before this one has not noted it
    write_json(evaluate.STAGE.record(run, 0), record)
    assert stages.is_done(evaluate.STAGE, run, 0)


def test_edited_data_is_noticed(sums, tmp_path):
    data, chats = tmp_path / "q.jsonl", tmp_path / "chats.jsonl"
    write_jsonl(data, [{"question": f"What is {i}?"} for i in range(4)])
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    write_jsonl(chats, [{"messages": talk}])
    first = {"judge": "judge", "questions": 3}
    first["mix"] = {"knowledge": 0, "reasoning": 0, "scoring_knowledge": 0, "scoring_reasoning": 0}
    run = folder_of(
        sums,
        tmp_path / "run",
        questions={"sources": [{"source": "dataset", "path": str(data)}]},
        general=[{"source": "dataset", "path": str(chats)}],
        rounds=[first],
    )
    for name in ("selected", "scores", "written"):
        write_jsonl(run.round(1) / f"{name}.jsonl", [])
    for stage, file in [(questions.STAGE, data), (mix.STAGE, chats)]:
        stages.execute(stage, run, 1)
        assert stages.is_done(stage, run, 1)
        rows = read_jsonl(file)
        write_jsonl(file, [*rows, *rows])
        assert not stages.is_done(stage, run, 1)


def test_base_follows_its_data_its_template_and_the_seed(sums, tmp_path):
    data, template = tmp_path / "chats.jsonl", tmp_path / "chat.jinja"
    data.touch()
    template.touch()
    from_base = {"checkpoint": "org/base", "data": {"source": "dataset", "path": str(data)}, "sft": {}}
    model = {"base": from_base | {"chat_template": str(template)}}
    run = folder_of(sums, tmp_path / "run", model=model)
    assert base.STAGE.inputs(run, 0) == [data, template]
    assert base.STAGE.settings(run, 0)["seed"] == 1
    old = {name: value for name, value in base.STAGE.settings(run, 0).items() if name != "seed"}
    record = {"settings": old, "inputs": {}, "counts": {}, "seconds": 1, "recipe": "", "versions": {}}
    write_json(base.STAGE.record(run, 0), record)
    write_json(run.path / "recipe.json", run.recipe.model_dump(mode="json"))
    (run.checkpoint(0)).mkdir()
    (run.checkpoint(0) / "config.json").touch()
    earlier.renamed(run)  # a record of the release before this one, which had no seed
    assert stages.is_done(base.STAGE, run, 0)
    other = folder_of(sums, tmp_path / "run", model=model, seed=2)
    with pytest.raises(UserError, match="seed is 1, not 2"):
        stages.is_done(base.STAGE, other, 0)


def test_a_result_that_is_gone_is_an_evaluation_that_is_not_done(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=1)
    record = read_json(run.round(1) / "evaluate.json")
    record |= {"settings": evaluate.STAGE.settings(run, 1), "inputs": stages._digests(evaluate.STAGE, run, 1)}
    write_json(run.round(1) / "evaluate.json", record)
    for name in ("made_up.cot.json", "made_up.explicit.samples.jsonl"):
        file = run.results(1) / name
        assert stages.is_done(evaluate.STAGE, run, 1)
        whole = file.read_bytes()
        file.unlink()
        assert not stages.is_done(evaluate.STAGE, run, 1)
        file.write_bytes(whole)


def test_a_disk_that_can_only_be_read_is_a_line(sums, monkeypatch):
    def refuses(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", refuses)  # so it does for a file that is not there, too
    with pytest.raises(UserError, match="round1: cannot be written: Read-only file system; do the stage in"):
        stages.execute(questions.STAGE, sums, 1)


def test_the_marks_of_thoughts_are_those_of_the_run_in_its_evaluation_too(sums, monkeypatch):
    from ske_models.lm_eval import model

    given: dict[str, Any] = {}

    def loads(**kwargs: Any) -> None:
        given.update(kwargs)
        raise InterruptedError

    monkeypatch.setattr(model, "SKEExplicitLM", loads)
    for think, wanted in [(None, "default"), ("<plan>...</plan>", "<plan>...</plan>"), ("off", "off")]:
        run = folder_of(sums, sums.path, generation={"think": think}, evaluate={"tasks": ["ske_world_dev"]})
        with pytest.raises(InterruptedError):
            evaluate.run(run, 0)
        assert given["think"] == wanted
        assert evaluate.STAGE.settings(run, 0)["think"] == think
