"""Bad inputs to `opencompass eval_configs/ske.py`, with the line that each ends in; none is a traceback.

All in one process, by the functions that the config and the models call: a UserError is that line on stderr
and exit status 1, as tests/opencompass/test_opencompass_cli.py shows for the command itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opencompass")

from opencompass.models import HuggingFaceBaseModel, HuggingFacewithChatTemplate, OpenAISDK
from safetensors.torch import load_file, save_file

from ske_models.errors import UserError
from ske_models.opencompass import SKEExplicit
from ske_models.opencompass.config import requested
from ske_tasks.world import default_world
from ske_tasks.world.opencompass import require_its_model

TINY = {"SKE_MODELS": "M0=TINY", "SKE_DATASETS": "tinyworld"}
LONG = "x" * 300

VARIABLES: list[tuple[dict[str, str], str]] = [
    ({"SKE_MODEL": "x"}, "SKE_MODEL: no such variable; these are known: SKE_RUN, SKE_MODELS"),
    ({"SKE_MODELS": ""}, "SKE_MODELS is empty; give it a value, or unset it"),
    ({"SKE_MODELS": " , ,"}, "SKE_MODELS is empty"),
    ({"SKE_MODELS": "M0="}, "SKE_MODELS: 'M0=': write NAME=PATH"),
    ({"SKE_MODELS": "../x=TINY"}, "SKE_MODELS: '../x=TINY': write NAME=PATH; a name has up to 80 letters"),
    ({"SKE_MODELS": f"{LONG}=TINY"}, f"SKE_MODELS: '{LONG[:200]}': write NAME=PATH"),
    ({"SKE_MODELS": "M0=~nosuchuser/M0"}, "SKE_MODELS=~nosuchuser/M0: Could not determine home directory"),
    ({"SKE_MODELS": f"M0=/{LONG}"}, f"SKE_MODELS=/{LONG[:199]}: File name too long"),
    ({"SKE_MODELS": "/nowhere/M0"}, "pretrained=/nowhere/M0: no such folder"),
    ({"SKE_MODELS": "/a/M0,/b/M0"}, "SKE_MODELS: two models are called M0"),
    ({"SKE_MODELS": "/a", "SKE_RUN": "/b"}, "SKE_RUN and SKE_MODELS are both set"),
    ({"SKE_RUN": "/nowhere"}, "SKE_RUN=/nowhere: no checkpoints in it"),
    ({"SKE_RUN": "~nosuchuser"}, "SKE_RUN=~nosuchuser: Could not determine home directory"),
    ({"SKE_METHODS": ","}, "SKE_METHODS is empty"),
    ({"SKE_METHODS": "direct,magic"}, "SKE_METHODS=magic: unknown; one of: direct, cot, explicit"),
    ({"SKE_DATASETS": "mmlu"}, "SKE_DATASETS=mmlu: unknown; one of: tinyworld, zero-shot, 2024"),
    ({"SKE_DATASETS": "zero-shot"}, "the embedded model answers TinyWorld's questions, with hf or vllm"),
    ({"SKE_BACKEND": "tgi"}, "SKE_BACKEND=tgi: unknown; one of: hf, hf-base, vllm"),
    ({"SKE_BACKEND": "api"}, "the embedded model answers TinyWorld's questions, with hf or vllm"),
    (TINY | {"SKE_BACKEND": "api"}, "SKE_BACKEND=api: set OPENAI_API_KEY"),
    (TINY | {"SKE_BACKEND": "api", "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "localhost"},
     "OPENAI_BASE_URL: 'localhost' is no address"),
    ({"SKE_NUM_GPUS": "all"}, "SKE_NUM_GPUS=all: a whole number is needed"),
    ({"SKE_NUM_GPUS": "-1"}, "SKE_NUM_GPUS=-1: a whole number is needed, 0 or more"),
    ({"SKE_NUM_GPUS": "²"}, "SKE_NUM_GPUS=²: a whole number is needed"),
    ({"SKE_NUM_GPUS": "999"}, "SKE_NUM_GPUS=999: this machine has "),
    ({"SKE_PROMPTS": "nope.yaml"}, "prompts=nope.yaml: no such file"),
    ({"SKE_PROMPTS": "default"}, "SKE_PROMPTS=default: the embedded model knows only `world`"),
    ({"SKE_LAYOUT": "flat"}, "SKE_LAYOUT=flat: unknown; one of: single, multiturn"),
    (TINY | {"SKE_LAYOUT": "multiturn", "SKE_BACKEND": "hf-base"}, "SKE_LAYOUT=multiturn needs a"),
    ({"SKE_STORE": "/dev/null"}, "SKE_STORE=/dev/null: cannot be made a folder: File exists"),
    ({"SKE_STORE": "~nosuchuser/s"}, "SKE_STORE=~nosuchuser/s: cannot be made a folder: Could not determine"),
    ({"SKE_SLICE": "ten"}, "SKE_SLICE=ten: a range of items per dataset is needed, such as [:10]"),
    ({"SKE_SLICE": "[:²]"}, "SKE_SLICE=[:²]: a range of items"),
    ({"SKE_SLICE": "[::0]"}, "SKE_SLICE=[::0]: a range of items"),
    ({"SKE_SLICE": "[5]"}, "SKE_SLICE=[5]: a range of items"),
    ({"SKE_SLICE": "[5:5]"}, "SKE_SLICE=[5:5]: holds no item"),
    ({"SKE_SLICE": "[:0]"}, "SKE_SLICE=[:0]: holds no item"),
    ({"SKE_SLICE": f"[:{'9' * 5000}]"}, "SKE_SLICE=[:9"),
    ({"SKE_WORLD_SEED": "two"}, "SKE_WORLD_SEED=two: a whole number is needed"),
]  # fmt: skip

COMMANDS = [
    (["--max-num-workers", "0"], "--max-num-workers=0: at least 1 is needed"),
    (["--mode", "eval"], "--mode eval needs a run: add -r for the newest, or -r TIME"),
    (["-m", "viz"], "--mode viz needs a run"),
    (["-r", "20250101_000000"], "-r 20250101_000000: no folder outputs/ske/20250101_000000; without -r"),
    (["-r", "t", "-w", "o"], "-r t: no folder o/t; without -r"),
]
# What the run before had, beside the embedded model by all methods, and what -r then says of it.
OTHERS: list[tuple[dict[str, str], str]] = [
    ({"SKE_SLICE": "[:10]"}, "SKE_SLICE=[:10] (now [:])"),
    ({"SKE_MODELS=M0": "/models/M0"}, "SKE_MODELS=M0=/models/M0 (now "),
    ({"SKE_PROMPTS": "world 000000"}, "SKE_PROMPTS=world 000000 (now world "),
    ({"SKE_LAYOUT": "multiturn"}, "SKE_LAYOUT=multiturn (now single)"),
    ({"SKE_BACKEND": "vllm"}, "SKE_BACKEND=vllm (now hf)"),
    ({"SKE_DATASETS": "2024"}, "SKE_DATASETS=2024 (now tinyworld)"),
    ({"SKE_WORLD_SEED": "3"}, "SKE_WORLD_SEED=3 (now 0)"),
]


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    """A copy of the tiny checkpoint, to be broken."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr("sys.argv", ["opencompass", "eval_configs/ske.py"])


def one_line(call: Callable[[], Any]) -> str:
    """What a command would print."""
    with pytest.raises(UserError) as error:
        call()
    line = str(error.value)
    assert line.startswith("ske-learn: ")
    assert len(line.splitlines()) == 1
    assert len(line) < 700 or "9" * 500 in line
    return line.removeprefix("ske-learn: ")


@pytest.mark.parametrize(("env", "line"), VARIABLES, ids=[f"{n}" for n in range(len(VARIABLES))])
def test_variables(env, line, tiny_llama):
    env = {name: value.replace("TINY", str(tiny_llama)) for name, value in env.items()}
    assert line.replace("TINY", str(tiny_llama)) in one_line(lambda: requested(env))


@pytest.mark.parametrize(("arguments", "line"), COMMANDS)
def test_arguments_of_opencompass(arguments, line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["opencompass", "eval_configs/ske.py", *arguments])
    assert line in one_line(lambda: requested({}))


def earlier(folder: Path, text: str) -> None:
    """A run, with a config in it as OpenCompass leaves one."""
    configs = folder / "outputs" / "ske" / "20250101_000000" / "configs"
    configs.mkdir(parents=True, exist_ok=True)
    (configs / f"{len(list(configs.iterdir()))}.py").write_text(text)


@pytest.mark.parametrize(("before", "line"), OTHERS)
def test_a_run_is_continued_with_what_it_was_begun_with(before, line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = requested({}).asked
    earlier(tmp_path, f"asked = {asked | before}")
    earlier(tmp_path, f"asked = { ({'SKE_MODELS=M1': '/models/M1'}) }")  # added to it later
    monkeypatch.setattr("sys.argv", ["opencompass", "eval_configs/ske.py", "-r"])
    said = one_line(lambda: requested({}))
    assert said.startswith(f"-r: outputs/ske/20250101_000000 was run with {line}")
    assert said.endswith("; set the variables as they were, or leave -r out")


def test_a_run_is_continued_with_the_same_and_with_more(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    earlier(tmp_path, f"asked = {requested({}).asked}")
    earlier(tmp_path, "")  # ended while it was written
    monkeypatch.setattr("sys.argv", ["opencompass", "eval_configs/ske.py", "-r"])
    assert requested({"SKE_METHODS": "direct"}).methods == ["direct"]
    earlier(tmp_path, "models = []")
    assert "does not say what it was run with; leave -r out" in one_line(lambda: requested({}))


def test_another_world_needs_another_model(monkeypatch):
    monkeypatch.setenv("SKE_WORLD_SEED", "2")
    assert requested({"SKE_WORLD_SEED": "2"}).embedded
    default_world.cache_clear()  # another test of this process may have made the usual one
    try:
        assert "made for world" in one_line(require_its_model)
    finally:
        default_world.cache_clear()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def drop_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def grow_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))


BROKEN = {
    "cut weights": (cut_weights, "cannot load"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot load"),
    "a tensor is missing": (drop_tensor, "lacks model.layers.1.mlp.up_proj.weight, which would be random"),
    "another shape": (grow_vocabulary, "cannot load"),
    "no config": (lambda folder: (folder / "config.json").write_text("{"), "cannot load"),
    "unknown architecture": (lambda folder: (folder / "config.json").write_text("{}"), "cannot load"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot load"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_checkpoints(kind, folder):
    break_it, line = BROKEN[kind]
    break_it(folder)
    llm = {"type": HuggingFacewithChatTemplate, "path": str(folder)}
    assert line in one_line(lambda: SKEExplicit(llm, store="none"))


def test_a_broken_chat_template_file(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text("[")
    env = {"SKE_MODELS": str(folder), "SKE_DATASETS": "tinyworld"}
    assert "tokenizer_config.json: broken: " in one_line(lambda: requested(env))


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"method": "magic"}, "method=magic: unknown; one of: direct, cot, explicit"),
    ({"layout": "flat"}, "layout=flat: unknown"),
    ({"prompts": "nope.yaml"}, "prompts=nope.yaml: no such file"),
    ({"max_reasoning_toks": 0}, "max_reasoning_toks=0: a whole number of at least 1 is needed"),
    ({"max_knowledge_toks": -3}, "max_knowledge_toks=-3: a whole number"),
    ({"method": "cot", "knowledge": "k.jsonl"}, "method=cot has no knowledge step"),
    ({"knowledge": "/nowhere/k.jsonl"}, "knowledge=/nowhere/k.jsonl: cannot be read"),
    ({"store": "/dev/null/s.sqlite"}, "store=/dev/null/s.sqlite: "),
    ({"think": "<plan>"}, "think=<plan>: unknown; default, off, or the two marks"),
    ({"llm": {"path": "~nosuchuser/M0"}}, "~nosuchuser/M0"),
    ({"llm": {"type": "NoSuchModel"}}, "no model class of OpenCompass"),
    ({"llm": {"type": HuggingFaceBaseModel}, "layout": "multiturn"}, "layout=multiturn needs a conversation"),
    ({"llm": {"generation_kwargs": {"num_return_sequences": 2}}}, "num_return_sequences must be 1"),
    ({"llm": {"model_kwargs": {"torch_dtype": "float99"}}}, "torch_dtype=float99: unknown; one of: auto"),
    ({"llm": {"mode": "left"}}, "cannot load"),
    ({"llm": {"type": OpenAISDK, "openai_api_base": "localhost:80", "key": "k"}}, "is no address"),
    ({"llm": {"type": OpenAISDK, "nosuch": 1, "key": "k"}}, "unexpected keyword argument 'nosuch'"),
    ({"llm": {"type": OpenAISDK}}, "OpenAI API key is not set"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "line"), ARGUMENTS, ids=[f"{n}" for n in range(len(ARGUMENTS))])
def test_model_entries(wrong, line, tiny_llama, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    wrong = dict(wrong)
    llm = {"type": HuggingFacewithChatTemplate, "path": str(tiny_llama), **wrong.pop("llm", {})}
    if llm["type"] is OpenAISDK:
        llm["tokenizer_path"] = str(tiny_llama)
    assert line in one_line(lambda: SKEExplicit(llm, **{"store": "none", **wrong}))
