"""LoRA: an adapter alone is trained, merged into a normal checkpoint, and split and killed like the rest."""

from __future__ import annotations

import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_sft import ROWS, killed_once, losses, make
from transformers import AutoModelForCausalLM, AutoTokenizer

from ske_models import files
from ske_models.files import file_digest
from training import card, launch, trainer
from training.settings.sft import Lora, Sft

LORA = {"r": 4, "alpha": 8.0, "dropout": 0.1}
SETTINGS = {"batch": 32, "epochs": 4, "lora": LORA, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def trained(tiny_llama, tmp_path_factory):
    """A run whose M1 was trained by LoRA in this process."""
    run = make(tmp_path_factory.mktemp("lora"), tiny_llama, **SETTINGS)
    counts = trainer.train(run, 1)
    return run, counts


def written(model, folder) -> list[list[int]]:
    """What a model writes, greedily: token ids for each prompt of the examples."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = []
    for row in ROWS[:9]:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_tensors="pt")
        out = model.generate(**prompt, max_new_tokens=24, do_sample=False)
        ids.append(out[0, prompt["input_ids"].shape[1] :].tolist())
    return ids


def test_merged_weights_write_what_parent_and_adapter_write(trained, tiny_llama):
    run, counts = trained
    merged = AutoModelForCausalLM.from_pretrained(run.checkpoint(1))
    parent = AutoModelForCausalLM.from_pretrained(tiny_llama)
    before = written(parent, tiny_llama)
    adapted = PeftModel.from_pretrained(parent, run.checkpoint(1) / "adapter")
    texts = written(merged, run.checkpoint(1))
    assert texts == written(adapted, tiny_llama)
    assert texts != before
    assert len(set(map(tuple, texts))) > 1
    assert counts["loss"]["last"] < counts["loss"]["first"]


def test_the_result_is_a_normal_checkpoint(trained, tiny_llama):
    run, counts = trained
    made, parent = (load_file(path / "model.safetensors") for path in (run.checkpoint(1), tiny_llama))
    assert made.keys() == parent.keys()
    changed = {name for name, value in made.items() if not torch.equal(value, parent[name])}
    linear = {name for name, value in parent.items() if value.dim() == 2 and ".layers." in name}
    assert changed == linear  # all-linear: neither the embeddings nor the head
    adapter = load_file(run.checkpoint(1) / "adapter" / "adapter_model.safetensors")
    assert len(adapter) == 2 * len(linear)
    of_linear = sum(4 * (sum(parent[name].shape)) for name in linear)
    assert counts["trained_parameters"] == sum(value.numel() for value in adapter.values()) == of_linear
    config = files.read_json(run.checkpoint(1) / "adapter" / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8.0, "M0")
    assert config["target_modules"] == sorted(config["target_modules"])  # the same bytes each time
    text = (run.checkpoint(1) / "README.md").read_text()
    assert "LoRA on frozen weights (r 4, alpha 8, dropout 0.1, all-linear), merged into the parent" in text
    assert card.read_lineage(run.checkpoint(1))["sft"]["lora"]["r"] == 4
    assert sorted(path.name for path in run.checkpoint(1).glob("*.safetensors")) == ["model.safetensors"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            {"targets": ["q_proj", "lm_head", "none"]},
            "targets: lm_head, none: no linear layer.*this model has down_proj",
        ),
        ({"load_in_4bit": True}, "load_in_4bit: needs a CUDA GPU, and there is none here; leave it out"),
    ],
)
def test_mistakes(tiny_llama, tmp_path, lora, message):
    run = make(tmp_path / "run", tiny_llama, lora=lora)
    with pytest.raises(SystemExit, match=message):
        trainer.train(run, 1)
    assert not run.checkpoint(1).exists()


def test_4_bits_are_for_one_gpu():
    with pytest.raises(ValueError, match="load_in_4bit is for one GPU; leave out `accelerate`"):
        Sft(accelerate="fsdp2", lora=Lora(load_in_4bit=True))


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(tiny_llama, tmp_path):
    settings = SETTINGS | {"save_steps": 7, "epochs": 12, "batch": 8}
    straight = make(tmp_path / "straight", tiny_llama, **settings)
    killed = make(tmp_path / "killed", tiny_llama, **settings)
    killed_once([sys.executable, "-m", "training.stage", "sft", str(killed.path), "1"], killed)
    trainer.train(straight, 1)
    assert len(losses(killed)) == 60
    assert losses(killed) == losses(straight)  # dropout included
    for file in ("model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert file_digest(killed.checkpoint(1) / file) == file_digest(straight.checkpoint(1) / file), file


@pytest.mark.slow
def test_two_processes_under_fsdp2_killed_once_equal_one(tiny_llama, tmp_path):
    settings = SETTINGS | {"lora": LORA | {"dropout": 0.0}}
    one = make(tmp_path / "one", tiny_llama, **settings)
    two = make(tmp_path / "two", tiny_llama, **settings, accelerate="fsdp2_cpu", save_steps=2)
    killed_once(launch.command(two, 1, "sft"), two)
    trainer.train(one, 1)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        found, expected = (load_file(run.checkpoint(1) / file) for run in (two, one))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
