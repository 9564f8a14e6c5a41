"""The training of a round: what the trainer sees, that a batch may be split in any way, and that a kill costs
nothing; the checkpoint that comes out, and the mistakes that are reported."""

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ske_models import embedded, files
from training import card, launch, recipe, trainer
from training.data import examples
from training.run_folder import RunFolder
from training.settings.sft import Sft
from training.stages import base

ROOT = Path(__file__).resolve().parents[2]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROWS = [
    {
        "id": str(i),
        "kind": "general",
        "prompt": [{"role": "user", "content": f"What is the capital of {'France ' * (i % 9 + 1)}?"}],
        "completion": [{"role": "assistant", "content": f"The capital is Paris{' and Paris' * (i % 4)}."}],
    }
    for i in range(40)
]
SFT: dict[str, Any] = {
    "epochs": 1,
    "batch": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "bf16": False,
    "attention": "eager",
    "save_steps": 100,
    "threads": 1,
    "max_length": 512,
}


def make(folder, start, rows=ROWS, **settings):
    """A run whose round 1 has its SFT set."""
    world = recipe.load("world")
    first = recipe.Round(judge="judge", questions=10, mix=recipe.Mix())
    chosen = {"sft": Sft(**{**SFT, **settings}), "rounds": [first], "prompts": "default"}
    run = RunFolder(folder, world.model_copy(update=chosen))
    files.write_json(folder / "recipe.json", run.recipe.model_dump(mode="json"))
    files.write_jsonl(run.round(1) / "sft.jsonl", rows)
    if start:
        run.checkpoint(0).symlink_to(start)
    return run


def losses(run):
    return [row["loss"] for row in files.read_jsonl(run.round(1) / "sft" / "log.jsonl")]


def process(command, **env):
    # with none of the variables that a trainer in this process leaves behind
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "FSDP_"))}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**inherited, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def checkpoints(tiny_llama, tmp_path_factory):
    """Checkpoints with three kinds of chat template."""
    folder = tmp_path_factory.mktemp("templates")
    for name in ("chatml", "llama3", "bos_added"):
        shutil.copytree(tiny_llama, folder / name)
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        if name == "bos_added":  # by the tokenizer itself, not by its template
            from tokenizers.processors import TemplateProcessing

            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
            )
        else:
            tokens = {"chatml": ["<|im_start|>", "<|im_end|>"]}.get(
                name, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
            )
            tokenizer.add_special_tokens({"additional_special_tokens": tokens})
            tokenizer.eos_token = tokens[-1]
            llama3 = (ROOT / "training/recipes/llama3.jinja").read_text()
            tokenizer.chat_template = CHATML if name == "chatml" else llama3
        tokenizer.save_pretrained(folder / name)
        model = LlamaForCausalLM.from_pretrained(folder / name)
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(folder / name)
    return {path.name: path for path in folder.iterdir()} | {
        "embedded": embedded.path(),
        "plain": tiny_llama,
    }


@pytest.fixture(scope="module")
def trained(tiny_llama, tmp_path_factory):
    """A run whose M1 was trained in this process, 32 x 1."""
    run = make(tmp_path_factory.mktemp("trained"), tiny_llama, batch=32, epochs=4)
    counts = trainer.train(run, 1)
    return run, counts


def test_it_is_not_trained_by_cudnns_attention(trained):
    """Its gradients are NaN for some lengths on an H100; a machine without one sees only the switch."""
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.parametrize("name", ["embedded", "plain", "chatml", "llama3", "bos_added"])
def test_the_loss_covers_the_completion_and_the_text_is_the_evaluations(checkpoints, name):
    from lm_eval.models.huggingface import HFLM

    from ske_models.lm_eval.engine import LMEvalEngine

    folder = str(checkpoints[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = examples.end_of_turn(tokenizer)
    assert end == {"chatml": "<|im_end|>", "llama3": "<|eot_id|>"}.get(name, "<|end|>")
    said = "Facts" if name == "embedded" else " Paris.\nIt is."
    turns = [{"role": "user", "content": "Facts:"}, {"role": "assistant", "content": said}]
    turns.append({"role": "user", "content": "Check the facts."})
    rows = [{"prompt": turns[:k], "completion": [{"role": "assistant", "content": said}]} for k in (1, 3)]
    features = [
        {"input_ids": ids.tolist(), "labels": labels.tolist()}
        for ids, labels in examples.encode(tokenizer, end, rows)
    ]
    batch = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)(features)
    lm = HFLM(pretrained=folder, device="cpu", dtype="float32")
    engine = LMEvalEngine(lm)
    for i, row in enumerate(rows):
        prompt = engine.render(row["prompt"], chat=True)
        context = lm.tok_batch_encode([prompt])[0][0].tolist()
        there = batch["attention_mask"][i] == 1
        ids, labels = batch["input_ids"][i][there], batch["labels"][i][there]
        assert ids[: len(context)].tolist() == context == lm.tok_encode(prompt)
        assert (labels[: len(context)] == examples.IGNORED).all()
        completion = labels[len(context) :]
        assert completion.tolist() == ids[len(context) :].tolist()
        assert tokenizer.decode(completion[:-1]) == said
        assert tokenizer.decode(completion[-1:]) == end
        assert completion[-1] == tokenizer.eos_token_id  # it learns to stop, where the evaluation stops
        assert (batch["labels"][i][~there] == examples.IGNORED).all()
        whole = tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], tokenize=False)
        if name in ("plain", "embedded", "chatml"):  # llama3's trims the text
            assert whole.rstrip("\n") == prompt + said + end
    assert (name in ("llama3", "bos_added")) == (context[0] == tokenizer.bos_token_id)
    assert context.count(tokenizer.bos_token_id) <= 1


def test_every_example_comes_once_an_epoch_in_whole_batches():
    lengths = [5 + i * 7 % 40 for i in range(90)]
    for grouped in (True, False):
        found = examples.order(lengths, 8, 3, "1", grouped)
        assert len(found) == 272  # 3 x 90 and two to fill the last batch
        assert {found.count(i) for i in range(90)} <= {3, 4}
        assert (
            found
            == examples.order(lengths, 8, 3, "1", grouped)
            != examples.order(lengths, 8, 3, "2", grouped)
        )
    padded = [
        sum(8 * max(lengths[i] for i in order[k : k + 8]) for k in range(0, len(order), 8))
        for order in (examples.order(lengths, 8, 3, "1", grouped) for grouped in (True, False))
    ]
    assert padded[0] < 0.8 * padded[1]
    assert sorted(examples.order([9], 4, 1, "1", True)) == [0] * 4


def test_accumulation_of_8_x_4_equals_32_x_1(trained, tiny_llama, tmp_path):
    run = make(tmp_path, tiny_llama, batch=32, epochs=4, per_device_batch=8)
    counts = trainer.train(run, 1)
    assert counts["steps"] == len(losses(run)) == 5
    assert losses(run) == pytest.approx(losses(trained[0]), rel=1e-5)
    weights = [load_file(r.checkpoint(1) / "model.safetensors") for r in (run, trained[0])]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_under_fsdp2_equal_one(trained, tiny_llama, tmp_path):
    run = make(tmp_path, tiny_llama, batch=32, epochs=4, accelerate="fsdp2_cpu", save_steps=2)
    files.write_json(run.round(1) / "mix.json", {"counts": {"kinds": {}}})
    started = process(launch.command(run, 1, "sft"))
    output = started.communicate(timeout=600)[0]
    assert started.returncode == 0, output[-3_000:]
    assert losses(run) == pytest.approx(losses(trained[0]), rel=1e-4)
    weights = [load_file(r.checkpoint(1) / "model.safetensors") for r in (run, trained[0])]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-4)
    assert files.read_json(run.checkpoint(1) / "config.json") == files.read_json(
        trained[0].checkpoint(1) / "config.json"
    )


def killed_once(command, run: RunFolder, meanwhile=lambda work: None) -> None:
    """Runs a training, kills it at its first whole checkpoint, and gives the command again."""
    files.write_json(run.round(1) / "mix.json", {"counts": {"kinds": {}}})
    first = process(command)
    work = run.round(1) / "sft"
    deadline = time.monotonic() + 900
    while not list(work.glob(f"checkpoint-*/{trainer.STATE}")):
        assert first.poll() is None, first.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not run.checkpoint(1).exists()
    assert trainer.last_whole(work)
    meanwhile(work)
    again = process(command)
    output = again.communicate(timeout=900)[0]
    assert again.returncode == 0, output[-3_000:]


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(tiny_llama, tmp_path):
    settings = {"epochs": 12, "save_steps": 7}
    straight = make(tmp_path / "straight", tiny_llama, **settings)
    killed = make(tmp_path / "killed", tiny_llama, **settings)
    files.write_json(straight.round(1) / "mix.json", {"counts": {"kinds": {}}})

    def half_written(work):
        """As if it had been killed while it wrote the next checkpoint."""
        (work / "checkpoint-56").mkdir()
        (work / "checkpoint-56" / "model.safetensors").write_bytes(b"half")

    command = [sys.executable, "-m", "training.stage", "sft", str(killed.path), "1"]
    killed_once(command, killed, half_written)
    trainer.train(straight, 1)
    assert losses(killed) == losses(straight)
    assert len(losses(killed)) == 60
    made = [card.read_lineage(run.checkpoint(1)) | {"project": None} for run in (killed, straight)]
    assert made[0] == made[1]
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (killed.checkpoint(1) / file).read_bytes() == (straight.checkpoint(1) / file).read_bytes()
    assert not list((killed.round(1) / "sft").glob("checkpoint-*"))


def test_the_loss_that_is_said_is_that_of_a_quarter_of_the_steps():
    assert trainer._ends([4.0, 2.0, 9.0, 9.0, 9.0, 9.0, 0.0, 1.0]) == {"first": 3.0, "last": 0.5}
    assert trainer._ends([4.0, 2.0]) == {"first": 4.0, "last": 2.0}


def test_the_checkpoint(trained, tiny_llama):
    run, counts = trained
    folder = run.checkpoint(1)
    assert (counts["examples"], counts["seen"], counts["steps"], counts["too_long"]) == (40, 160, 5, 0)
    assert counts["loss"]["last"] < counts["loss"]["first"]
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (tiny_llama, folder))
    assert after.dtype == before.dtype == torch.float32
    assert after.config.architectures == ["LlamaForCausalLM"]
    assert after.config.use_cache == before.config.use_cache
    assert not torch.equal(after.lm_head.weight, before.lm_head.weight)
    assert after.generation_config.do_sample is False
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert after.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(tiny_llama).chat_template
    assert trainer.train(run, 1) == counts  # it is there: nothing is trained again
    assert not list(run.path.glob(".M*"))


def test_lineage_and_card(trained):
    run, counts = trained
    made = card.read_lineage(run.checkpoint(1))
    assert made["parent"]["name"] == "M0"
    assert re.fullmatch("[0-9a-f]{64}", made["parent"]["sha256"])
    assert made["recipe"] == {"name": "world", "hash": run.recipe.hash}
    assert made["prompts"]["hash"] == run.prompts.hash
    assert made["judge"] == {"kind": "world"}
    assert made["training"] == counts
    result = {"task": "ske_nq", "method": "explicit", "n": 8, "metrics": {"acc": 0.375, "acc_stderr": 0.1}}
    files.write_json(run.results(1) / "ske_nq.explicit.json", result)
    card.write(run, 1)
    text = (run.checkpoint(1) / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    (entry,) = metadata["model-index"][0]["results"]
    assert entry["dataset"]["type"] == "ske_nq"
    assert entry["metrics"][0]["value"] == 0.375
    assert run.recipe.hash in text
    before = (run.checkpoint(0) / "config.json").read_bytes()
    card.write(run, 0)  # made elsewhere: left alone
    assert (run.checkpoint(0) / "config.json").read_bytes() == before
    assert not (run.checkpoint(0) / "README.md").exists()


def test_weights_of_an_older_form_are_hashed_too(tmp_path):
    safe, other = tmp_path / "safe", tmp_path / "other"
    for folder, name in [(safe, "model.safetensors"), (other, "pytorch_model.bin")]:
        folder.mkdir()
        (folder / name).write_bytes(b"weights")
    (other / "training_args.bin").write_bytes(b"others")
    assert card._content(safe) == card._content(other) == hashlib.sha256(b"weights").hexdigest()


def test_embedded_checkpoints_stay_embedded(tmp_path):
    rows = [{**row, "prompt": [{"role": "user", "content": "Facts:"}]} for row in ROWS[:8]]
    run = make(tmp_path, embedded.path(), rows, bf16=True)
    trainer.train(run, 1)
    embedded.verify(run.checkpoint(1))
    weights = load_file(run.checkpoint(1) / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    assert weights.keys() == load_file(embedded.path() / "model.safetensors").keys()
    assert files.read_json(run.checkpoint(1) / "config.json")["dtype"] == "bfloat16"
    assert yaml.safe_load((run.checkpoint(1) / "README.md").read_text().split("---")[1])["license"]


def test_m0_from_a_base_model(tiny_llama, tmp_path):
    shutil.copytree(tiny_llama, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    turn = {"from": "human", "value": "What is the capital?"}
    talks = [{"conversations": [turn, {"from": "gpt", "value": f"Paris {i}"}]} for i in range(8)]
    files.write_jsonl(tmp_path / "chats.jsonl", [*talks, {"conversations": [turn]}])
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    made = recipe.Base(
        checkpoint=str(tmp_path / "base"),
        data=recipe.DatasetChats(
            source="dataset", path=str(tmp_path / "chats.jsonl"), column="conversations"
        ),
        chat_template=str(tmp_path / "chat.jinja"),
        sft=Sft(**SFT),
    )
    run = make(tmp_path / "run", None)
    run = RunFolder(run.path, run.recipe.model_copy(update={"model": recipe.Model(base=made)}))
    counts = base.run(run, 0)
    assert (counts["examples"], sum(counts["dropped"].values())) == (8, 1)
    tokenizer = AutoTokenizer.from_pretrained(run.checkpoint(0))
    assert tokenizer.eos_token == "<|end|>"
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
        == "<|user|>?<|end|>"
    )
    assert card.read_lineage(run.checkpoint(0))["parent"]["name"] == made.checkpoint


def untemplated(folder):
    (folder / "chat_template.jinja").unlink()


def endless(folder):
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }} {% endfor %}")


def lacking(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_off(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1_000])


def no_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def reaching_out(folder):
    (folder / "chat_template.jinja").write_text(
        "{{ ''.__class__.__mro__ }}{{ messages[1]['content'] }}<|end|>"
    )


def unknown_filter(folder):
    (folder / "chat_template.jinja").write_text("{{ messages | nothing }}<|end|>")


def unfinished(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (untemplated, {}, "no chat template"),
        (endless, {}, "without a special token"),
        (unfinished, {}, "no checkpoint in it; make M0 first"),
        (lacking, {}, "M0: lacks model.layers.1.mlp.up_proj.weight, which would be random numbers"),
        (cut_off, {}, "M0: cannot be loaded: SafetensorError: "),
        (no_tokenizer, {}, "M0: its tokenizer cannot be loaded: "),
        (reaching_out, {}, "its chat template cannot be used: SecurityError: "),
        (unknown_filter, {}, "its chat template cannot be used: TemplateAssertionError: No filter named"),
        (
            None,
            {"batch": 8, "per_device_batch": 3},
            r"multiple of sft.per_device_batch \(3\) x processes \(1\)",
        ),
        (None, {"max_length": 4}, "none of the 40 examples has at most sft.max_length = 4"),
        (None, {"padding_free": True, "attention": "flash_attention_2"}, "sft.padding_free: needs a GPU"),
        (None, {"attention": "flash_attention_2"}, "cannot be loaded"),
        (
            None,
            {"learning_rate": 1e12, "warmup_steps": 0, "schedule": "constant_with_warmup"},
            "the loss of step",
        ),
    ],
)
def test_mistakes(tiny_llama, tmp_path, spoil, settings, message):
    shutil.copytree(tiny_llama, tmp_path / "start")
    if spoil:
        spoil(tmp_path / "start")
    run = make(tmp_path / "run", tmp_path / "start", **settings)
    with pytest.raises(SystemExit, match=message):
        trainer.train(run, 1)
    assert not run.checkpoint(1).exists()


def test_no_disk_space(tmp_path):
    with pytest.raises(SystemExit, match=r"GB are free, 26,000\.0 GB are needed for two checkpoints"):
        trainer.check_space(tmp_path, tmp_path / "sft", 10**12, 10**12, torch.bfloat16)


def test_too_long_ones_are_left_out_and_counted(tiny_llama):
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    end = examples.end_of_turn(tokenizer)
    lengths = [len(ids) for ids, _ in examples.encode(tokenizer, end, ROWS)]
    limit = sorted(lengths)[30]
    data, counts = trainer.examples(tokenizer, end, ROWS, Sft(**{**SFT, "max_length": limit}), "1")
    assert counts["too_long"] == sum(length > limit for length in lengths) > 0
    assert max(map(len, data["input_ids"])) == limit
    assert math.ceil(counts["examples"] / 8) * 8 == counts["seen"] == len(data)


def test_splitting_a_batch():
    assert launch.split(32, None, 8) == (4, 1)
    assert launch.split(32, 2, 4) == (2, 4)
    for bad in ((32, None, 5), (32, 5, 1), (2, None, 4)):
        with pytest.raises(SystemExit, match="cannot be split evenly"):
            launch.split(*bad)


def test_commands(tiny_llama, tmp_path):
    run = make(tmp_path, tiny_llama)
    assert launch.command(run, 1, "sft")[1:] == ["-m", "training.stage", "sft", str(tmp_path), "1"]
    with pytest.raises(SystemExit, match=r"accelerate: nowhere: no such file.*fsdp2, fsdp2_cpu, zero3"):
        launch.accelerate_config("nowhere")
    for name in ("fsdp2", "fsdp2_cpu", "zero3"):
        config = yaml.safe_load(launch.accelerate_config(name).read_text())
        assert config["num_processes"] == (2 if name == "fsdp2_cpu" else 8)


def test_push_needs_a_token_and_a_checkpoint(trained, tmp_path, monkeypatch, tiny_llama):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="no token for the hub"):
        card.push(trained[0], 1, "org/name")
    with pytest.raises(SystemExit, match="not there yet"):
        card.push(make(tmp_path / "run", tiny_llama), 1, "org/name")


def test_the_log_is_json_lines(trained):
    rows = [json.loads(line) for line in (trained[0].round(1) / "sft/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].keys() == {"step", "epoch", "loss", "learning_rate", "grad_norm", "mean_token_accuracy"}
    assert rows[-1]["epoch"] == 4.0
