"""The task files: what is shared is in one place, and every task has its own limit and data."""

from __future__ import annotations

from pathlib import Path

from lm_eval.tasks._yaml_loader import load_yaml

FOLDER = Path(__file__).parents[2] / "ske_tasks" / "tasks"
LIMITS = {"mmlu": 1024, "agieval": 2048, "arc_e": 1024, "arc_c": 1024, "bbh": 2048, "nq": 512}
WORLD = ("ske_world", "ske_world_dev", "ske_world_held_out")


def loaded(name: str) -> dict:
    return load_yaml(FOLDER / f"{name}.yaml", resolve_func=False)


def test_the_six_share_one_file_and_quick_is_the_same_task():
    shared = loaded("_default")
    for name, limit in LIMITS.items():
        task, quick = loaded(f"ske_{name}"), loaded(f"ske_quick_{name}")
        assert task.pop("task") == f"ske_{name}"
        assert task["generation_kwargs"] == shared["generation_kwargs"] | {"max_gen_toks": limit}
        assert task.pop("dataset_kwargs") == {"benchmark": name}
        assert quick.pop("task") == f"ske_quick_{name}"
        assert quick.pop("dataset_kwargs") == {"benchmark": name, "quick": True}
        assert quick == task
        own = {"generation_kwargs", "metric_list", "num_fewshot"}
        assert {k: v for k, v in task.items() if k not in own} == {
            k: v for k, v in shared.items() if k not in own
        }


def test_tinyworlds_tasks_differ_in_their_questions_only():
    tasks = [loaded(name) for name in WORLD]
    questions = {(task.pop("task"), task.pop("custom_dataset").rpartition(".")[2]) for task in tasks}
    assert questions == {
        ("ske_world", "load_test"),
        ("ske_world_dev", "load_dev"),
        ("ske_world_held_out", "load_held_out"),
    }
    assert tasks[0] == tasks[1] == tasks[2] == loaded("_world")


def test_the_shared_files_are_no_tasks():
    assert sorted(file.stem for file in FOLDER.glob("_*.yaml")) == ["_default", "_long", "_world"]
    for name in ("_default", "_long", "_world"):
        assert not {"task", "group"} & loaded(name).keys()
