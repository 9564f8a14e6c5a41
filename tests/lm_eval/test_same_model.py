"""What of a changed command finds its texts again: speed, copies and lengths do, another adapter does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

from ske_models.errors import UserError
from ske_models.lm_eval.model import SKEExplicitLM

TASKS = Path(__file__).parents[1] / "tasks"


def answered(store: Path, pretrained: Path, **args: Any) -> dict[str, int]:
    """The counts of two direct answers of at most 8 tokens."""
    model = SKEExplicitLM(method="direct", pretrained=str(pretrained), device="cpu", store=str(store), **args)
    lm_eval.simple_evaluate(
        model=model,
        tasks=["toy_write"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=True,
        bootstrap_iters=0,
        limit=2,
        gen_kwargs={"max_gen_toks": 8},
    )
    return model.get_model_info()["ske"]["steps"]["answer"]


def test_a_copy_with_other_settings_of_speed_goes_on(tiny_llama, tmp_path):
    store = tmp_path / "s.sqlite"
    assert answered(store, tiny_llama)["generated"] == 2
    shutil.copytree(tiny_llama, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("A copy.")
    counts = answered(store, tmp_path / "copy", batch_size=3, max_batch_size=8)
    assert (counts["generated"], counts["reused"]) == (0, 2)
    (tmp_path / "copy" / "config.json").write_text(
        (tmp_path / "copy" / "config.json")
        .read_text()
        .replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05')
    )
    with pytest.raises(
        UserError, match="belongs to another run: pretrained is .*; give that run's arguments"
    ):
        answered(store, tmp_path / "copy")


def test_only_prompts_that_are_cut_depend_on_the_length(tiny_llama, tmp_path):
    store = tmp_path / "s.sqlite"
    found = {}
    for name, length in [("whole", 2048), ("shorter", 1024), ("cut", 18), ("again", 18), ("long", 2048)]:
        counts = answered(store, tiny_llama, max_length=length)
        found[name] = counts["generated"], counts["reused"], counts["prompts_cut"]
        if name == "cut":
            assert counts["prompt_tokens"] == 2 * (18 - 8), "as sent"
    assert found == {
        "whole": (2, 0, 0),
        "shorter": (0, 2, 0),
        "cut": (2, 0, 2),
        "again": (0, 2, 2),
        "long": (0, 2, 0),
    }
