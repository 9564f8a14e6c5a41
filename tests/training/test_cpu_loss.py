"""The loss on a CPU is TRL's and that of a plain loop; where it would not be, the trainer is TRL's."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)
from trl import SFTTrainer

from benchmarks import sft_runs
from training import cpu_loss
from training.cpu_loss import CpuTrainer, trainer_for
from training.settings.sft import Lora, Sft
from training.trainer import arguments

ROWS = [
    {
        "prompt": [{"role": "user", "content": f"What is the capital of {'France ' * (i % 9 + 1)}?"}],
        "completion": [{"role": "assistant", "content": f"The capital is Paris{' and Paris' * (i % 4)}."}],
    }
    for i in range(40)
]
FULL = Sft(batch=8, per_device_batch=4, learning_rate=1e-3, warmup_steps=1, bf16=False, attention="sdpa")
ADAPTERS = FULL.model_copy(update={"lora": Lora(r=4), "learning_rate": 0.02})
TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@pytest.mark.parametrize("sft", [FULL, ADAPTERS, FULL.model_copy(update={"gradient_checkpointing": True})])
def test_it_is_trls_loss_and_that_of_a_plain_loop(tiny_llama, tmp_path, sft, monkeypatch):
    monkeypatch.setattr(cpu_loss, "PIECE", 7)  # several in a batch, and the last one shorter
    work = partial(sft_runs.Work, str(tiny_llama), ROWS, sft, 3, 0)
    ours = sft_runs.ours(work(tmp_path / "ours"))
    trls = sft_runs.ours(work(tmp_path / "trls"), trls_loss=True)
    loop = sft_runs.loop(work(tmp_path / "loop"))
    assert ours.losses == pytest.approx(trls.losses, rel=1e-5)
    assert ours.losses == pytest.approx(loop.losses, rel=1e-5)
    assert ours.losses[2] < ours.losses[0] - 1e-3  # steps were made
    assert len({(one.tokens, one.positions, one.trained) for one in (ours, trls, loop)}) == 1


def test_its_accuracy_is_that_of_the_tokens(tiny_llama, tmp_path):
    work = sft_runs.Work(str(tiny_llama), ROWS[:8], FULL, 1, 0, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    dataset, _ = work.dataset()
    right, learned = 0, 0
    for row in dataset:
        labels = torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            found = model(torch.tensor([row["input_ids"]])).logits[0, :-1].argmax(-1)
        right += int((found == labels)[labels >= 0].sum())
        learned += int((labels >= 0).sum())
    config = arguments(FULL, tmp_path, 0)
    trainer = CpuTrainer(model, args=config, train_dataset=dataset, processing_class=work.tokenizer)
    trainer.train()
    assert trainer.state.log_history[0]["mean_token_accuracy"] == pytest.approx(right / learned)


def test_where_it_is_trls_own(tiny_llama, monkeypatch):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert trainer_for(model, cpu=True) is CpuTrainer
    assert trainer_for(model, cpu=False) is SFTTrainer
    capped = Gemma2ForCausalLM(Gemma2Config(**TINY, final_logit_softcapping=1.0))
    assert trainer_for(capped, cpu=True) is SFTTrainer
    experts = MixtralForCausalLM(MixtralConfig(**TINY, num_local_experts=2))
    assert trainer_for(experts, cpu=True) is SFTTrainer
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert trainer_for(model, cpu=True) is SFTTrainer
