"""A real language model, SmolLM2-135M-Instruct, by every kind of backend: the same texts in float32."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from real_model import RealModel

from ske_models.lm_eval import hf
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.pipeline import answer_request, knowledge_request
from ske_models.prompts import FOLDER
from ske_models.records import Answer
from ske_tasks.six.rows import prompt

TASKS = Path(__file__).parents[1] / "tasks"
TASK = "real_questions"
KNOWLEDGE, ANSWER = 24, 16  # tokens
PROMPTS = {  # the default set, and these: all prompts are read five times, on a CPU
    "extract": "{{ question }}\n\nList the facts that are needed to answer this.",
    "reason": "{{ question }}\n\nFacts:\n{{ knowledge }}\n\nUse them.{% if ending %} {{ ending }}{% endif %}",
}
TIE = 1e-3  # logits that are closer come in either order: sums in float32 depend on the order of their terms
MOST_TIES = 3  # of 48 texts

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Written:
    """The texts of one question."""

    knowledge: str
    answer: str


class Reference:
    """What transformers write in static batches, and why another text is another one."""

    def __init__(self, lm: SKEExplicitLM) -> None:
        self.lm = lm
        asked = requests(lm)
        answers = [answer for answer in lm.generate_until(asked) if isinstance(answer, Answer)]
        self.texts = [written(answer) for answer in answers]
        self.prompts = []
        for request, answer in zip(asked, answers, strict=True):
            item = lm._item(request)
            steps = (
                knowledge_request(lm.pipeline, item),
                answer_request(lm.pipeline, item, answer.knowledge),
            )
            self.prompts.append(tuple(step.prompt for step in steps))

    def ties(self, others: list[Written]) -> list[str]:
        """A line per text that differs where the two best logits are a tie; fails for any other difference.

        An answer that follows other knowledge has another prompt, and is not compared.
        """
        found = []
        for n, (own, other) in enumerate(zip(self.texts, others, strict=True)):
            if own.knowledge != other.knowledge:
                found.append(self._tie(n, "knowledge", self.prompts[n][0], own.knowledge, other.knowledge))
            elif own.answer != other.answer:
                found.append(self._tie(n, "answer", self.prompts[n][1], own.answer, other.answer))
        print(f"{len(found)} of {2 * len(others)} texts differ by a tie", *found, sep="\n")
        return found

    def _tie(self, n: int, step: str, prompt: str, *texts: str) -> str:
        inner = self.lm.inner
        end = inner.tokenizer.eos_token_id
        mine, theirs = ([*inner.tok_encode(text, add_special_tokens=False), end] for text in texts)
        at = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b)
        with torch.inference_mode():
            logits = inner.model(torch.tensor([inner.tok_encode(prompt) + mine[:at]])).logits[0, -1]
        best = logits.topk(2)
        apart = (best.values[0] - best.values[1]).item()
        said = f"question {n}, {step}, token {at}: {apart:.1e} apart, {texts}"
        assert {mine[at], theirs[at]} == set(best.indices.tolist()), f"not the two best tokens: {said}"
        assert apart < TIE, f"no tie: {said}"
        return said


def requests(lm: SKEExplicitLM) -> list[Instance]:
    """The questions as lm-eval would send them."""
    settings = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": ANSWER}
    found = []
    for n, row in enumerate(questions()):
        context = lm.apply_chat_template([{"role": "user", "content": prompt(row)}])
        found.append(Instance("generate_until", row, (context, dict(settings)), n, (TASK, n, 1)))
    return found


def questions() -> list[Any]:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    [task] = manager.load([TASK])["tasks"].values()
    return list(task.test_docs())


def written(answer: str) -> Written:
    assert isinstance(answer, Answer)
    assert answer.knowledge is not None
    return Written(answer.knowledge.text.strip(), answer.strip())


def model(**args: Any) -> SKEExplicitLM:
    content = yaml.safe_load((FOLDER / "default.yaml").read_text(encoding="utf-8")) | PROMPTS
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(content, file)
        file.flush()
        given: dict[str, Any] = {"store": "none", "max_knowledge_toks": KNOWLEDGE, "prompts": file.name}
        return SKEExplicitLM(**(given | args))


def on_transformers(pretrained: Path, **args: Any) -> SKEExplicitLM:
    given = {"pretrained": str(pretrained), "dtype": "float32", "device": "cpu", "batch_size": 24}
    return model(**(given | args))


def explicit(lm: SKEExplicitLM) -> list[Written]:
    texts = [written(answer) for answer in lm.generate_until(requests(lm))]
    assert [count.generated for count in lm.pipeline.counts.values()] == [len(texts)] * 2
    return texts


def evaluate(lm: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return lm_eval.simple_evaluate(
        lm, tasks=[TASK], task_manager=manager, apply_chat_template=True, log_samples=True, bootstrap_iters=0
    )


@pytest.fixture(scope="module")
def serving(smollm2) -> Iterator[tuple[subprocess.Popen, str]]:
    """A `vllm serve` on its way, and its base URL."""
    pytest.importorskip("vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(smollm2.folder)]
    command += ["--served-model-name", "SmolLM2", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", "1024", "--block-size", "32"]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=env, **quiet) as process:  # type: ignore[call-overload]
        yield process, f"http://127.0.0.1:{port}/v1"
        process.terminate()


@pytest.fixture(scope="module")
def reference(smollm2: RealModel) -> Reference:
    return Reference(on_transformers(smollm2.folder))


def bare_and_direct(lm: SKEExplicitLM) -> None:
    """`direct` is the backend itself: every prompt, text and verdict.

    But for what was cut, which only ours knows of, and then no answer is guessed.
    """
    lm.ask_by("direct")
    bare, direct = (evaluate(one)["samples"][TASK] for one in (lm.inner, lm))
    assert len(bare) == 24
    for own, theirs in zip(direct, bare, strict=True):
        assert own["arguments"] == theirs["arguments"]
        assert own["resps"] == theirs["resps"]
        assert own["truncated"] or own["acc"] == theirs["acc"]
    assert len({sample["resps"][0][0] for sample in direct}) > 12, "a model that says the same to all"


def test_direct_is_the_bare_backend_on_transformers(reference):
    bare_and_direct(reference.lm)


def test_the_texts_are_read_as_questions_of_a_benchmark(reference):
    lm = reference.lm
    lm.ask_by("explicit")  # its texts are in the store
    found = evaluate(lm)
    samples, counts = found["samples"][TASK], found["results"][TASK]
    assert [s["doc"]["ske"]["knowledge"].strip() for s in samples] == [
        text.knowledge for text in reference.texts
    ]
    for sample in samples:
        checks, ske = sample["doc"]["ske"]["checks"], sample["doc"]["ske"]
        assert checks["cut"] == ske["truncated"]["knowledge"] == (ske["tokens"]["knowledge"] >= KNOWLEDGE)
        assert sample["truncated"] == int(any(ske["truncated"].values()))
        assert sample["knowledge_restates"] == int(checks["restated"] >= 2)
    for name in ("truncated", "unanswered", "knowledge_cut", "knowledge_restates"):
        assert counts[f"{name},none"] == sum(sample[name] for sample in samples)
    assert counts["knowledge_cut,none"] == lm.pipeline.counts["knowledge"].truncated > 0


def test_continuous_batching_writes_the_same(smollm2, reference, monkeypatch, caplog):
    monkeypatch.setattr(hf, "LONG", 1)
    with caplog.at_level(logging.INFO, logger="ske_models.lm_eval.hf"):
        texts = explicit(on_transformers(smollm2.folder, batch_size=12))
    assert "batching is continuous, 12 texts at a time" in caplog.text
    assert len(reference.ties(texts)) <= MOST_TIES


def test_the_gguf_file_writes_the_same(smollm2, reference):
    assert explicit(on_transformers(smollm2.gguf)) == reference.texts


def test_vllm_writes_the_same(smollm2, reference, vllm_here):
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 1024, "block_size": 32}
    lm = model(backend="vllm", pretrained=str(smollm2.folder), **engine)
    assert len(reference.ties(explicit(lm))) <= MOST_TIES
    bare_and_direct(lm)


def test_vllm_serve_writes_the_same(serving, reference):
    process, url = serving
    host, port = url.split("/")[2].split(":")
    while socket.socket().connect_ex((host, int(port))):
        assert process.poll() is None, f"vllm serve ended with {process.returncode}"
        time.sleep(0.5)
    lm = model(backend="local-chat-completions", model="SmolLM2", base_url=url)
    assert len(reference.ties(explicit(lm))) <= MOST_TIES
