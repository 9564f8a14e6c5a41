"""The paper's recipe with small counts and a random model: the whole loop on real text, judged over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CHAT_TEMPLATE
from judge_server import Call, JudgeServer, score
from small_runs import command, merged, write
from transformers import AutoModelForCausalLM, AutoTokenizer
from upload_hub import UploadHub

from ske_models.files import read_json, read_jsonl
from training.recipe import FOLDER
from training.run_folder import RunFolder

KEY = "sk-a-key-that-nobody-shall-see"
POSITIONS = 8192  # few-shot prompts of a byte-level tokenizer are long


def lenient(call: Call) -> str:
    """7 to 10, the same for the same prompt: about half of the texts pass."""
    return f"say It could be shorter.\nScore: {7 + score(call.prompt) % 4}"


@pytest.fixture(scope="module")
def base_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama without a chat template. It writes noise that ends, with a question mark at times."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = None
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.config.max_position_embeddings = POSITIONS
    with torch.no_grad():
        for token in ("<|end|>", "?"):
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token)] *= 2
    model.save_pretrained(folder)
    return folder


def scaled(base_model: Path, template: Path, server: JudgeServer) -> dict[str, Any]:
    """recipes/paper.yaml with other counts, model, data, backend and judge's address, for a CPU."""
    paper = yaml.safe_load((FOLDER / "paper.yaml").read_text(encoding="utf-8"))
    del paper["generation"]["serve"], paper["generation"]["args"], paper["evaluate"]["args"]  # vLLM's
    args = {"dtype": "float32", "device": "cpu", "batch_size": 16}
    cpu = {"gradient_checkpointing": False, "attention": "sdpa", "padding_free": False, "accelerate": None}
    sft = cpu | {"bf16": False, "max_length": 3000}
    chats = {"source": "dataset", "path": "local/instruct", "column": "messages", "rows": 200}
    mix = {"knowledge": 5, "reasoning": 5, "scoring_knowledge": 2, "scoring_reasoning": 2, "general": 25}
    base = {
        "checkpoint": str(base_model),
        "data": chats | {"rows": 40},
        "chat_template": str(template),
        "sft": sft,
    }
    return merged(
        paper,
        {
            "name": "scaled",
            "model": {"base": base},
            "questions": {
                "sources": [
                    {"source": "dataset", "path": "local/stem_questions", "column": "question", "rows": 500},
                    {"source": "passages", "path": "local/stem_corpus"},
                ],
            },
            "generation": {
                "backend": "hf",
                "args": args,
                "window": 16,
                "max_reasoning_tokens": 64,
                "max_question_tokens": 64,
            },
            "judge": {"base_url": server.base_url},
            "general": [chats],
            "sft": sft,
            "rounds": [
                {"judge": "judge", "start": "M0", "questions": 24, "mix": mix},
                {"judge": "judge", "start": "previous", "questions": 24, "mix": mix},
            ],
            "evaluate": {"tasks": ["ske_arc_e"], "limit": 4, "backend": "hf", "args": args},
            "analysis": {"items": 2},
        },
    )


@pytest.mark.slow
def test_the_papers_recipe_on_real_text(hub, base_model, tmp_path):
    (tmp_path / "chat.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    with JudgeServer(lenient) as server:
        recipe = write(tmp_path / "scaled.yaml", scaled(base_model, tmp_path / "chat.jinja", server))
        env = hub.env | {"OPENAI_API_KEY": KEY}
        done = command("--recipe", recipe, "--run", tmp_path / "run", env=env)
        assert done.returncode == 0, done.stderr
        with UploadHub(tmp_path / "hub") as uploads:
            env |= {"HF_ENDPOINT": uploads.endpoint, "HF_TOKEN": uploads.token}
            pushed = command("--recipe", recipe, "--run", tmp_path / "run", "--push", "org/scaled", env=env)
    assert pushed.returncode == 0, pushed.stderr
    assert {name for name, _, _ in uploads.commits} == {
        *(f"models/org/scaled-M{n}" for n in (0, 1, 2)),
        "datasets/org/scaled-data",
    }
    run = RunFolder.open(tmp_path / "run")
    ids = set()
    for n in (1, 2):
        folder = run.round(n)
        counts = {
            stage: read_json(folder / f"{stage}.json")["counts"]
            for stage in ("questions", "judge", "select", "mix", "sft")
        }
        questions = read_jsonl(folder / "questions.jsonl")
        sources = {row["source"] for row in questions}
        assert sources == {"dataset:local/stem_questions", "passages:local/stem_corpus"}
        assert counts["questions"]["test_items"] > 30_000  # of the six benchmarks
        ids |= {row["id"] for row in questions}
        assert len(read_jsonl(folder / "written.jsonl")) == len(questions)
        assert counts["judge"]["scored"] == len(read_jsonl(folder / "scores.jsonl")) > 0
        assert counts["judge"]["usd"] > 0
        assert counts["select"]["selected"] == len(read_jsonl(folder / "selected.jsonl")) > 0
        kinds = counts["mix"]["kinds"]
        assert kinds["general"]["examples"] == 25
        assert kinds["scoring_knowledge"]["examples"] == kinds["scoring_reasoning"]["examples"] == 2
        assert counts["sft"]["steps"] == -(-counts["sft"]["examples"] * 2 // 32)
        assert AutoTokenizer.from_pretrained(run.checkpoint(n)).chat_template == CHAT_TEMPLATE
        for method in ("direct", "cot", "explicit"):
            assert read_json(run.results(n) / f"ske_arc_e.{method}.json")["n"] == 4
    assert len(ids) == sum(len(read_jsonl(run.round(n) / "questions.jsonl")) for n in (1, 2))
    base = read_json(run.checkpoint(0) / "lineage.json")
    assert base["training"]["examples"] + base["training"]["too_long"] == 40
    assert read_json(run.checkpoint(2) / "lineage.json")["judge"] == {
        "kind": "openai",
        "model": "gpt-4-0125-preview",
    }
    assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
    assert set(server.answered.values()) == {1}, "a verdict was paid twice"
    assert KEY not in done.stderr + done.stdout
    assert not [path for path in run.path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert "M2" in (run.path / "report.html").read_text(encoding="utf-8")
