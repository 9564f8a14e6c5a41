"""`python training/round.py`: its mistakes, its plan, and a small run from start to report."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import ModelCard
from small_runs import STAGES, TEXTS, command, environment, merged, records, refused, small, texts, write
from transformers import AutoModelForCausalLM, AutoTokenizer

from ske_models.files import file_digest, read_json, read_jsonl, write_jsonl
from ske_models.fingerprint import weights
from training import recipe
from training import stage as stages
from training.run_folder import RunFolder
from training.settings.judge import OpenAIJudge

KINDS = {"knowledge", "reasoning"}
ROW = {
    "questions": {"id", "question", "ending", "source", "round"},
    "dropped": {"id", "question", "source", "why", "of"},
    "written": {"id", "sample", "question", "ending", "knowledge", "reasoning", "truncated", "tokens"},
    "scores": {"id", "sample", "kind", "score", "verdict", "attempts", "why"},
    "selected": {"id", "sample", "question", "ending", "knowledge", "reasoning", "scores"},
    "sft": {"id", "kind", "prompt", "completion"},
}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--recipe", "nowhere.yaml"], "no such file, nor a recipe of that name"),
        (["--rounds", "0-2"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "3-2"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "two"], "rounds 1 to 4 are in the recipe"),
        (["--rounds", "5"], "rounds 1 to 4 are in the recipe"),
        (["--until", "selection"], "no stage; one of: base, questions, synthesize, judge, agreement, select"),
        (["--rounds", "3"], "is missing; do what makes"),
        (["--status"], "no run here; start one with"),
    ],
)
def test_mistakes_of_the_command(tmp_path, args, said):
    assert said in refused(command("--run", tmp_path / "run", *args))


def test_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refused(command("--run", tmp_path / "file"))
    assert "cannot be used" in refused(command("--run", "/proc/run"))


def test_folder_in_use(tmp_path, monkeypatch):
    from training import rounds

    monkeypatch.setattr(rounds, "PATIENCE", 0.5)
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another command works there"), rounds.locked(tmp_path / "run"):
            pass


@pytest.mark.parametrize("name", ["world", "paper"])
def test_dry_run_loads_nothing_and_writes_nothing(tmp_path, name):
    done = command("--recipe", name, "--run", tmp_path / "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not (tmp_path / "run").exists()
    table = [line for line in done.stdout.splitlines() if "│" in line or "┃" in line]
    assert table
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80  # the first one names the folder
    assert "…" not in done.stdout
    loaded = recipe.load(name)
    for n, settings in enumerate(loaded.rounds, start=1):
        assert f"M{n} ┃" in table[0]
        assert f"{2 * settings.questions * loaded.generation.samples:,}" in done.stdout
    if name == "paper":  # 500 items of 6 tasks and 5 checkpoints, and of 3 rounds that score themselves
        assert f"analysis: {2 * 500 * (6 * 5 + 3):,} verdicts by openai" in done.stdout
        assert "  30,000: knowledge and reasoning of 500 items x 6 tasks x 5 checkpoints\n" in done.stdout
        assert "  3,000: the same of 500 texts of each of 3 rounds that score themselves\n" in done.stdout
        assert "servers: 8 x vllm serve, 8 GPUs, of M0, M1, ... while each is prompted\n" in done.stdout
        [cost] = re.findall(
            r"judge cost in all, at most, if no verdict is asked for twice: \$([\d,.]+)", done.stdout
        )
        assert isinstance(loaded.judge, OpenAIJudge)
        assert float(cost.replace(",", "")) <= (loaded.judge.max_usd or 0)
        assert "warning" not in done.stdout


def test_a_plan_of_many_rounds_folds(tmp_path):
    rounds = [{"judge": "judge", "questions": 1_000_000 + n, "mix": {}} for n in range(9)]
    file = write(tmp_path / "r.yaml", small() | {"rounds": rounds})
    done = command("--recipe", file, "--run", tmp_path / "[run]", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert all(f" {1_000_000 + n:,} " in done.stdout for n in range(9))
    assert "[run]" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "│" in line]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("general", "examples"), [({"rows": 60}, "212"), ({}, "no bound"), ({"count": 5}, "157")]
)
def test_a_plan_says_where_it_has_no_bound(tmp_path, general, examples):
    """mix.general: null is all there is: of a data set as many as `rows` lets, or nobody knows."""
    count = general.pop("count", None)
    mixed = {"scoring_knowledge": 4, "scoring_reasoning": 4, "general": count}
    content = small() | {"rounds": [{"judge": "judge", "questions": 36, "mix": mixed}]}
    content["general"] = [{"source": "dataset", "path": "org/any"} | general]
    content["generation"] |= {"samples": 2}
    done = command("--recipe", write(tmp_path / "r.yaml", content), "--run", tmp_path / "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if "examples at most" in line]
    assert line.split("│")[2].strip() == examples
    assert ("no bound: mix.general is null" in done.stdout) == (examples == "no bound")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": "nowhere.yaml"}, "prompts=nowhere.yaml"),
        ({"generation": {"shots": "nowhere.yaml"}}, "generation.shots: nowhere.yaml: no such file"),
        ({"sft": {"batch": 30, "per_device_batch": 4}}, "cannot be split evenly"),
        ({"sft": {"batch": 31, "accelerate": "fsdp2_cpu"}}, "a multiple of processes (2)"),
        ({"sft": {"accelerate": "nowhere"}}, "sft.accelerate: nowhere: no such file"),
        ({"sft": {"padding_free": True}}, "padding_free needs flash attention"),
        ({"generation": {"temperature": 0.0}}, "at temperature 0 they would all be the same"),
        ({"evaluate": {"tasks": ["ske_wrld"]}}, "did you mean ske_world"),
        ({"evaluate": {"tasks": ["ske_quick"]}}, "ske_quick is a group; name its tasks"),
        ({"general": []}, "the recipe names no source of it"),
    ],
)
def test_what_can_be_told_at_once_is(tmp_path, monkeypatch, change, said):
    """By the plan and by the run, before anything is made. In this process: a start takes a second."""
    from training import rounds

    file = write(tmp_path / "r.yaml", small(**change))
    for more in (["--dry-run"], []):
        monkeypatch.setattr(
            sys, "argv", ["round.py", "--recipe", str(file), "--run", str(tmp_path / "run"), *more]
        )
        with pytest.raises(SystemExit) as error:
            rounds.main()
        assert said in str(error.value)
    assert not list(tmp_path.glob("run/[!.]*"))


def test_the_same_weights_are_not_downloaded_twice(tmp_path, monkeypatch):
    from training import rounds

    kept = ["model.safetensors", "config.json", "tokenizer.json"]
    twice = ["original/params.json", "consolidated.safetensors", "x.pth", "m.gguf", "onnx/m.onnx"]

    def download(name: str, revision: str | None, ignore_patterns: list[str]) -> str:
        assert (
            list(huggingface_hub.utils.filter_repo_objects(kept + twice, ignore_patterns=ignore_patterns))
            == kept
        )
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert rounds._download("org/name", None) == tmp_path


def test_a_token_is_missed_before_anything_is_made(tmp_path):
    done = command("--run", tmp_path / "run", "--push", "org/name", HF_HOME=str(tmp_path), HF_TOKEN="")
    assert "--push org/name: no token for the hub" in refused(done)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_every_file_of_a_run_is_there_with_its_fields(small_run):
    run = RunFolder.open(small_run.folder)
    for n in (1, 2):
        for name in TEXTS:
            rows = read_jsonl(run.round(n) / f"{name}.jsonl")
            assert rows or name == "dropped"
            assert all(set(row) >= ROW[name] for row in rows), name
            assert all(isinstance(row["id"], str) for row in rows), name
        for stage in (*STAGES, "evaluate"):
            record = read_json(run.round(n) / f"{stage}.json")
            assert (record["stage"], record["round"]) == (stage, n)
            assert record["recipe"] == run.recipe.hash
            assert record["versions"]["torch"]
            files = {name: run.path / name for name in record["inputs"]}
            assert record["inputs"] == {
                name: weights(str(path)) if name == "M0" else file_digest(path)
                for name, path in files.items()
            }, "made from files that are no longer these"
    assert (run.path / "M0").is_symlink()
    for k in range(3):
        for method in ("direct", "cot", "explicit"):
            result = read_json(run.results(k) / f"ske_world_dev.{method}.json")
            samples = read_jsonl(run.results(k) / f"ske_world_dev.{method}.samples.jsonl")
            assert result["n"] == len(samples) == 24
            assert result["metrics"]["acc"] == pytest.approx(sum(row["hit"] for row in samples) / 24)
            assert all(bool(row["knowledge"]) == (method == "explicit") for row in samples)
    left = [p for p in run.path.rglob("*") if ".parts-" in p.name or p.name.endswith(".new")]
    assert not left, "unfinished work was left"
    assert not list(run.path.glob("round*/sft/checkpoint-*"))


@pytest.mark.slow
def test_the_counts_of_a_round_add_up(small_run):
    run = RunFolder.open(small_run.folder)
    for n in (1, 2):
        rows = {name: read_jsonl(run.round(n) / f"{name}.jsonl") for name in TEXTS}
        counts = {stage: read_json(run.round(n) / f"{stage}.json")["counts"] for stage in STAGES}
        select = counts["select"]
        samples = run.recipe.generation.samples
        assert len(rows["questions"]) == run.settings(n).questions
        assert len(rows["written"]) == select["written"] == samples * len(rows["questions"])
        assert select["scored"] + select["unscored"] == select["written"]
        selected = select["passed"] - select["passed_equal"] - select["dropped_by_quota"]
        assert len(rows["selected"]) == select["selected"] == selected
        for kind in KINDS:
            given = Counter(row["score"] for row in rows["scores"] if row["kind"] == kind)
            assert select["histogram"][kind] == [given[score] for score in range(1, 11)]
            assert sum(select["histogram"][kind]) + select["unscored_by_kind"][kind] == select["written"]
        threshold = run.select(n).threshold
        assert all(min(row["scores"].values()) >= threshold for row in rows["selected"])
        assert max(Counter(row["id"] for row in rows["selected"]).values()) <= 2
        kinds = counts["mix"]["kinds"]
        assert sum(kind["examples"] for kind in kinds.values()) == counts["mix"]["examples"]
        assert counts["mix"]["examples"] == len(rows["sft"]) == counts["sft"]["examples"]
        by_kind = Counter(row["kind"] for row in rows["sft"])
        assert by_kind["knowledge"] == kinds["knowledge"]["examples"] <= len(rows["selected"])
        scorings = kinds["scoring_knowledge"]["examples"] + kinds["scoring_reasoning"]["examples"]
        assert by_kind["scoring"] == scorings > 0
        assert by_kind["general"] == 60
        log = read_jsonl(run.round(n) / "sft" / "log.jsonl")
        assert [row["step"] for row in log] == list(range(1, counts["sft"]["steps"] + 1))
        assert n > 1 or log[-1]["loss"] < log[0]["loss"]


@pytest.mark.slow
def test_every_round_has_new_questions(small_run):
    rows = [row for n in (1, 2) for row in read_jsonl(small_run.folder / f"round{n}" / "questions.jsonl")]
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == len(rows) == 160


@pytest.mark.slow
def test_a_checkpoint_says_where_it_comes_from(small_run):
    run = RunFolder.open(small_run.folder)
    for n, judge in (
        (1, {"kind": "world"}),
        (2, {"kind": "self", "model": "M1", "scorings": {"kind": "world"}}),
    ):
        made = read_json(run.checkpoint(n) / "lineage.json")
        assert (made["checkpoint"], made["parent"]["name"]) == (f"M{n}", f"M{n - 1}")
        assert len(made["parent"]["sha256"]) == 64
        assert made["recipe"] == {"name": "small", "hash": recipe.load(str(small_run.recipe)).hash}
        assert made["prompts"]["hash"] == run.prompts.hash
        assert made["seed"] == run.recipe.seed
        assert made["judge"] == judge
        assert made["data"]["sft.jsonl"] == file_digest(run.round(n) / "sft.jsonl")
        assert made["data"]["examples"] == read_json(run.round(n) / "mix.json")["counts"]["kinds"]
        assert {"torch", "transformers", "trl", "lm-eval"} <= set(made["versions"])
        results = ModelCard.load(run.checkpoint(n) / "README.md").data.eval_results
        assert results is not None
        accuracy = {
            result.metric_name: result.metric_value
            for result in results
            if result.dataset_type == "ske_world_dev"
        }
        for method in ("direct", "cot", "explicit"):
            metrics = read_json(run.results(n) / f"ske_world_dev.{method}.json")["metrics"]
            assert accuracy[f"accuracy, method {method}, n = 24"] == pytest.approx(metrics["acc"], abs=1e-4)


@pytest.mark.slow
def test_a_checkpoint_is_a_normal_one(small_run, tmp_path):
    for n in (1, 2):
        folder = small_run.folder / f"M{n}"
        assert list(folder.glob("*.safetensors"))
        assert not list(folder.glob("*.bin"))
        assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 1e6
        chat = [{"role": "user", "content": "Where was Tebok born?"}]
        assert "Tebok" in AutoTokenizer.from_pretrained(folder).apply_chat_template(chat, tokenize=False)
    ours = f"prompts=world,dtype=float32,store={tmp_path / 'store.sqlite'}"
    command_line = [
        *(
            str(Path(sys.executable).parent / "lm_eval"),
            "--model",
            "ske_explicit",
            "--tasks",
            "ske_world_dev",
        ),
        *("--model_args", f"pretrained={small_run.folder / 'M2'},{ours}"),
        *("--device", "cpu", "--batch_size", "8", "--limit", "8", "--apply_chat_template"),
        *("--output_path", str(tmp_path), "--log_samples"),
    ]
    done = subprocess.run(command_line, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.rglob("samples_ske_world_dev_*.jsonl")
    stock = {row["doc_id"]: row["resps"][0][0] for row in map(json.loads, file.read_text().splitlines())}
    rows = read_jsonl(small_run.folder / "results" / "M2" / "ske_world_dev.explicit.samples.jsonl")
    assert stock == {row["doc_id"]: row["answer"] for row in rows if row["doc_id"] < 8}


@pytest.mark.slow
def test_the_report_opens_offline_and_names_every_checkpoint(small_run):
    page = (small_run.folder / "report.html").read_text(encoding="utf-8")
    assert all(f"M{n}" in page for n in range(3))
    assert 'src="http' not in page
    assert "<link" not in page
    analysed = read_jsonl(small_run.folder / "analysis.jsonl")
    assert {row["checkpoint"] for row in analysed} == {0, 1, 2}
    assert {row["kind"] for row in analysed} == KINDS


@pytest.mark.slow
def test_given_again_it_does_nothing_again(small_run):
    before = records(small_run.folder), texts(small_run.folder)
    assert len(before[0]) == 2 * len(STAGES) + 3
    started = time.monotonic()
    done = command("--recipe", small_run.recipe, "--run", small_run.folder)
    assert done.returncode == 0, done.stderr
    assert (records(small_run.folder), texts(small_run.folder)) == before
    assert time.monotonic() - started < small_run.seconds / 2
    shown = command("--run", small_run.folder, "--recipe", small_run.recipe, "--status", COLUMNS="200")
    assert "everything is done" in shown.stdout


@pytest.mark.slow
def test_an_edited_file_redoes_what_follows_and_only_that(small_run, tmp_path):
    folder = shutil.copytree(small_run.folder, tmp_path / "run", symlinks=True)
    selected = folder / "round1" / "selected.jsonl"
    write_jsonl(selected, read_jsonl(selected)[:-5])
    before = records(folder)
    args = ("--recipe", small_run.recipe, "--run", folder)
    done = command(*args, "--rounds", "1", "--until", "mix")
    assert done.returncode == 0, done.stderr
    assert "stopped after mix of round 1" in done.stderr
    redone = {name for name, changed in records(folder).items() if before[name] != changed}
    assert redone == {"round1/mix.json"}
    old, new = (
        {(row["kind"], row["id"]) for row in read_jsonl(place / "round1" / "sft.jsonl")}
        for place in (small_run.folder, folder)
    )
    assert new < old
    run = RunFolder.open(folder)
    assert not stages.is_done(stages.BY_NAME["sft"], run, 1)
    assert re.search(r"^stages left: 1$", command(*args, "--status").stdout, re.MULTILINE)
    # once there is another M1, what the old one wrote, judged and answered is not done
    (run.checkpoint(1) / "lineage.json").write_text("{}")
    undone = [("synthesize", 2), ("judge", 2), ("sft", 2), ("evaluate", 1)]
    assert not any(stages.is_done(stages.BY_NAME[name], run, n) for name, n in undone)
    assert stages.is_done(stages.BY_NAME["questions"], run, 2)


@pytest.mark.slow
def test_a_deleted_result_is_made_again_and_only_that(small_run, tmp_path):
    folder = shutil.copytree(small_run.folder, tmp_path / "run", symlinks=True)
    stage, run = stages.BY_NAME["evaluate"], RunFolder.open(folder)
    files = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in stage.paths(run, 1)}
    assert stages.is_done(stage, run, 1)
    gone = run.results(1) / "ske_world_dev.cot.json"
    gone.unlink()
    done = command("--recipe", small_run.recipe, "--run", folder, "--rounds", "1", "--until", "evaluate")
    assert done.returncode == 0, done.stderr
    assert "round 1, sft: done" in done.stderr
    before, after = json.loads(files[gone][0]), read_json(gone)
    assert {name: after[name] for name in ("n", "metrics")} == {
        name: before[name] for name in ("n", "metrics")
    }
    again = gone.with_suffix(".samples.jsonl")
    assert again.read_bytes() == files[again][0]
    redone = {path.name for path, (_, at) in files.items() if path.stat().st_mtime_ns != at}
    assert redone == {gone.name, "ske_world_dev.cot.samples.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sft": {"batch": 16}}, "sft.batch"),
        ({"generation": {"temperature": 0.5}}, "generation.temperature"),
        ({"seed": 2}, "seed"),
    ],
)
def test_another_recipe_is_refused_in_the_same_folder(small_run, tmp_path, change, said):
    before = texts(small_run.folder), records(small_run.folder)
    file = write(tmp_path / "other.yaml", merged(small(), change))
    message = refused(command("--recipe", file, "--run", small_run.folder))
    assert "done with another recipe" in message
    assert said in message
    assert (texts(small_run.folder), records(small_run.folder)) == before
    assert read_json(small_run.folder / "recipe.json")["name"] == "small"
