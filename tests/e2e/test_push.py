"""`python training/round.py --push ORG/NAME`: checkpoints and data arrive on a hub as the run has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from small_runs import TEXTS, command, refused
from upload_hub import UploadHub

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path):
    with UploadHub(tmp_path / "hub") as server:
        yield server


def push(run, hub, tmp_path: Path, **env: str):
    """The command for a run that is done, with `--push`."""
    return command(
        *("--recipe", run.recipe, "--run", run.folder, "--push", "org/small"),
        **{
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }
        | env,
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def one_line(failed) -> str:
    """The message of a push that failed; the token is nowhere."""
    message = refused(failed)
    assert "--push org/small: the upload failed: " in message
    assert "give the same command again" in message
    assert "hf_" not in failed.stdout + failed.stderr
    return message


def test_checkpoints_and_data_arrive_once(small_run, hub, tmp_path):
    hub.faults = [403]
    assert "model.safetensors" in one_line(push(small_run, hub, tmp_path))
    hub.faults = [503]  # that the library asks again after
    done = push(small_run, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not hub.faults
    for n in (1, 2):
        uploaded = hub.folder / "models" / "org" / f"small-M{n}"
        assert files(uploaded) == files(small_run.folder / f"M{n}")
        assert ModelCard.load(uploaded / "README.md").data.model_name == f"small-M{n}"
    data = files(hub.folder / "datasets" / "org" / "small-data")
    assert data == {name: (small_run.folder / name).read_bytes() for name in data}
    assert {f"round{n}/{text}.jsonl" for n in (1, 2) for text in TEXTS} | {"recipe.json"} <= data.keys()
    assert {Path(name).parent.name for name in data if name.startswith("results/")} == {"M1", "M2"}
    repositories = ("models/org/small-M1", "models/org/small-M2", "datasets/org/small-data")
    assert hub.private == dict.fromkeys(repositories, True)
    commits, held = list(hub.commits), len(hub.received)
    done = push(small_run, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert hub.commits == commits, "what is there is not committed again"
    assert len(hub.received) == held == 2


@pytest.mark.parametrize(
    "env", [{"HF_TOKEN": "hf_another"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=["token", "nobody there"]
)
def test_a_hub_that_refuses_or_is_not_there(small_run, hub, tmp_path, env):
    one_line(push(small_run, hub, tmp_path, **env))
    assert not hub.commits
