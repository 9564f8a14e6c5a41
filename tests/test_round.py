"""`python training/round.py`: what it says of mistakes, what it plans, and whole runs on TinyWorld."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from training import recipe

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "training" / "round.py"


def command(*args, **environment) -> subprocess.CompletedProcess:
    """The command, to its end."""
    import os

    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, args)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(done: subprocess.CompletedProcess) -> str:
    """The message of a command that must have failed without a traceback."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ske-learn: ")
    return message


def write_recipe(file: Path, **changes) -> Path:
    """recipes/world.yaml with other values for some top-level keys."""
    content = yaml.safe_load((recipe.FOLDER / "world.yaml").read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(content | changes, sort_keys=False), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--recipe", "nowhere.yaml"], "no such file, nor a recipe of that name"),
        (["--rounds", "0-2"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "3-2"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "two"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "5"], "rounds 1 to 4 are in the recipe"),
        (["--until", "selection"], "no stage; one of: base, questions, synthesize, judge, select"),
        (["--rounds", "3"], "is missing; do what makes"),
        (["--status"], "no run here; start one with"),
    ],
)
def test_mistakes_of_the_command(tmp_path, args, said):
    assert said in refused(command("--run", tmp_path / "run", *args))


def test_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(command("--run", tmp_path / "file"))


def test_key_is_asked_for_before_anything_is_done(tmp_path):
    file = write_recipe(
        tmp_path / "r.yaml", judge={"kind": "openai", "model": "gpt-4", "key_env": "NO_SUCH_KEY"}
    )
    assert "NO_SUCH_KEY" in refused(command("--recipe", file, "--run", tmp_path / "run"))
    assert not (tmp_path / "run" / "M0").exists()


def test_prompt_set_that_is_not_there(tmp_path):
    file = write_recipe(tmp_path / "r.yaml", prompts="nowhere.yaml")
    assert "prompts=nowhere.yaml" in refused(command("--recipe", file, "--run", tmp_path / "run"))


def test_model_that_is_not_there(tmp_path):
    file = write_recipe(tmp_path / "r.yaml", model={"checkpoint": "nobody/nothing"})
    message = refused(command("--recipe", file, "--run", tmp_path / "run", HF_HUB_OFFLINE="1"))
    assert "nobody/nothing: no such folder, and not to be had" in message


def test_folder_in_use(tmp_path, monkeypatch):
    from training import round as rounds

    monkeypatch.setattr(rounds, "PATIENCE", 0.5)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another command works there"), rounds.locked(tmp_path / "run"):
            pass


@pytest.mark.parametrize("name", ["world", "paper"])
def test_dry_run_loads_nothing_and_writes_nothing(tmp_path, name):
    done = command(
        "--recipe", name, "--run", tmp_path / "run", "--dry-run", HF_HUB_OFFLINE="1", COLUMNS="200"
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    loaded = recipe.load(name)
    for n, settings in enumerate(loaded.rounds, start=1):
        assert f"to M{n}" in done.stdout
        assert f"{2 * settings.questions * loaded.generation.samples:,}" in done.stdout
    if name == "paper":
        assert "$" in done.stdout
