"""vLLM, the real engine on the CPU, under `ske_explicit` and the training stages."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from test_questions import make_run

from ske_models import embedded, loops
from ske_models.errors import UserError
from ske_models.files import read_jsonl
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.store import Store
from training.judges import itself
from training.stages import questions, synthesize

pytest.importorskip("vllm")

from vllm.sampling_params import RepetitionDetectionParams
from vllm.v1.core.sched.utils import check_sequence_repetition

from ske_models.engines.room import Room, Sent

TASKS = Path(__file__).parents[1] / "tasks"
CORES = sorted(os.sched_getaffinity(0))
AT_ONCE = 5  # does not divide the 12 questions: the last first steps leave room
KNOWLEDGE_LIMIT = 12
ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_num_seqs": AT_ONCE,
    "block_size": 32,
}


@pytest.fixture(scope="module")
def loaded(vllm_here, tiny_llama) -> Any:
    """The engine, loaded once: it takes seconds."""
    return SKEExplicitLM(backend="vllm", pretrained=str(tiny_llama), store="none", **ENGINE).inner


@pytest.fixture
def model(loaded, tiny_llama, tmp_path, monkeypatch):
    """Makes a `ske_explicit` over the one engine, with a store on disk and an empty prefix cache."""
    monkeypatch.setattr("ske_models.lm_eval.model.load", lambda *_: loaded)
    loaded.model.reset_prefix_cache()

    def make(**args: Any) -> SKEExplicitLM:
        store = str(tmp_path / "store.sqlite")
        given: dict[str, Any] = {
            "backend": "vllm",
            "pretrained": str(tiny_llama),
            "store": store,
            "max_knowledge_toks": KNOWLEDGE_LIMIT,
        }
        return SKEExplicitLM(**(given | ENGINE | args))

    return make


@pytest.fixture
def sent(loaded, monkeypatch) -> list[tuple[str, int]]:
    """What enters the engine, and how much is in it then: (step, requests)."""
    seen: list[tuple[str, int]] = []
    engine = loaded.model.llm_engine
    add = engine.add_request

    def spy(name: str, prompt: Any, sampling: Any, **more: Any) -> Any:
        added = add(name, prompt, sampling, **more)
        step = "knowledge" if sampling.max_tokens == KNOWLEDGE_LIMIT else "answer"
        seen.append((step, engine.get_num_unfinished_requests()))
        return added

    monkeypatch.setattr(engine, "add_request", spy)
    return seen


def evaluate(model: SKEExplicitLM) -> list[Any]:
    """The answers to the twelve questions of a task."""
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model, tasks=["toy_write"], task_manager=manager, apply_chat_template=True, bootstrap_iters=0
    )
    return [sample["resps"][0][0] for sample in results["samples"]["toy_write"]]


class TwoBatches(LMEvalEngine):
    """lm-eval's own way: a list of prompts, then a list of texts."""

    def generate(self, requests, done):
        asked = [Instance("generate_until", {}, (r.prompt, dict(r.settings)), 0) for r in requests]
        return self.inner.generate_until(asked, disable_tqdm=True)


@pytest.mark.parametrize("layout", ["single", "multiturn"])
def test_the_texts_are_those_of_lm_eval_own_calls(model, loaded, layout):
    ours, theirs = model(layout=layout), model(layout=layout, store="none")
    theirs.pipeline.engine = TwoBatches(loaded)
    assert evaluate(ours) == evaluate(theirs)
    counts, own = ours.pipeline.counts, theirs.pipeline.counts
    for step in ("knowledge", "answer"):
        assert counts[step].prompt_tokens == own[step].prompt_tokens > 0
        assert counts[step].truncated == own[step].truncated
    assert any(counts[step].truncated for step in counts)


def test_step_2_enters_while_step_1_runs_and_the_engine_is_given_what_it_holds(model, sent):
    evaluate(model())
    steps = [step for step, _ in sent]
    assert steps.count("knowledge") == steps.count("answer") == 12
    assert sent[steps.index("answer")][1] > 1, "it waited for all first steps"
    assert max(inside for _, inside in sent) == AT_ONCE


def test_the_engine_is_given_what_its_cache_is_expected_to_hold():
    room = Room(requests=99, tokens=1000)
    sizes = []
    while room.is_left():
        sizes.append(room.take("knowledge", prompt=80, limit=220))
    assert sizes == [300] * 4
    room.give_back(Sent(0, "knowledge", 300), tokens=20)
    while room.is_left():
        sizes.append(room.take("knowledge", prompt=80, limit=220))
    assert sizes[4:] == [80 + 20]
    assert room.take("answer", prompt=80, limit=220) == 300, "nothing is known of this step's lengths"


def test_second_steps_go_first_when_the_cache_cannot_hold_their_prompts():
    room = Room(requests=99, tokens=1000)
    room.take("knowledge", prompt=280, limit=20)
    for index in range(2):
        assert room.can_hold()
        room.hold(index, 280 + 20)
    room.take("knowledge", prompt=280, limit=20)
    assert not room.can_hold()
    room.release(0)
    assert room.can_hold()


def test_multiturn_finds_step_1_in_the_cache(model):
    cached = {}
    for layout in ("single", "multiturn"):
        explicit = model(layout=layout, store="none")
        explicit.inner.model.reset_prefix_cache()
        evaluate(explicit)
        step = explicit.get_model_info()["ske"]["steps"]["answer"]
        cached[layout] = step["cached_tokens"] / step["prompt_tokens"]
    assert cached["multiturn"] > 0.5 > cached["single"]


def test_an_interrupt_loses_no_finished_text_and_leaves_the_engine_empty(model, loaded, monkeypatch):
    whole = evaluate(model(store="none"))
    put, puts = Store.put, []

    def interrupted(*args: Any) -> None:
        put(*args)
        puts.append(args)
        if len(puts) == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluate(model())
    assert not loaded.model.llm_engine.has_unfinished_requests()
    again = model()
    assert evaluate(again) == whole
    assert sum(count.generated for count in again.pipeline.counts.values()) == 24 - 9


def test_a_prompt_that_is_too_long_is_cut_as_lm_eval_cuts_it(model, loaded):
    long = model(prompts=None)
    request = Instance(
        "generate_until", {}, ("How many legs? " * 1000, {"until": [], "max_gen_toks": 8}), 0, ("long", 0, 1)
    )
    ours = long.generate_until([request])
    counts = long.pipeline.counts
    assert counts["knowledge"].prompts_cut == counts["answer"].prompts_cut == 1
    assert counts["answer"].prompt_tokens == loaded.max_length - 8, "as sent"
    long.pipeline.engine = TwoBatches(loaded)
    assert ours == long.generate_until([request])


def test_with_think_end_token_the_engine_does_not_stop_in_a_thought(model, loaded, monkeypatch):
    def request(*until: str) -> Instance:
        settings = {"until": list(until), "max_gen_toks": 24}
        return Instance("generate_until", {}, ("How many legs?", settings), 0, ("t", 0, 1))

    plain = model(store="none", method="direct")
    [whole] = plain.generate_until([request()])
    mark, stop = whole[len(whole) // 2 : len(whole) // 2 + 2], whole[1]
    monkeypatch.setattr(loaded, "think_end_token", mark)
    thinking = model(store="none", method="direct", think_end_token=mark)
    assert loaded.think_end_token is None, "texts come whole"
    [text] = thinking.pipeline.run([thinking._item(request(stop))])
    thought, found, reply = whole.rpartition(mark)
    gap = reply[: len(reply) - len(reply.lstrip())]
    assert text == thought + found + gap + reply[len(gap) :].split(stop)[0]
    count, before = thinking.pipeline.counts["answer"], plain.pipeline.counts["answer"]
    assert (count.output_tokens, count.prompt_tokens) == (before.output_tokens, before.prompt_tokens)


def test_a_round_writes_and_judges_itself(loaded, tmp_path, monkeypatch):
    generation = {"backend": "vllm", "args": ENGINE, "samples": 2, "temperature": 0.8, "window": 4}
    run = make_run(tmp_path, [{"source": "world"}], count=6, generation=generation)
    monkeypatch.setattr("training.engine.load", lambda *_: loaded)
    questions.run(run, 1)
    counts = synthesize.run(run, 1)
    rows = read_jsonl(run.round(1) / "written.jsonl")
    assert len(rows) == 12
    assert all(type(row["knowledge"]) is str and row["tokens"]["knowledge"] for row in rows)
    assert counts["knowledge"]["distinct"] > 6
    verdicts, spent = itself.ask(run, 0, [row["knowledge"] for row in rows], tmp_path / "s.jsonl", "judge")
    assert len(verdicts) == 12
    assert spent["tokens"]["output"] > 0


def test_loops_are_ended_by_vllm_own_rule_which_is_ours(model, loaded, monkeypatch):
    draw = random.Random(0)
    rule = RepetitionDetectionParams(**loops.DETECTION)
    for _ in range(3000):
        run = [draw.randrange(50) for _ in range(draw.randrange(1, 150))]
        tokens = [draw.randrange(50) for _ in range(draw.randrange(20))] + (run * 49)[
            : draw.randrange(1, 460)
        ]
        assert loops.loops(tokens) is check_sequence_repetition(tokens, rule)

    whole = evaluate(model(store="none", max_knowledge_toks=200))
    monkeypatch.setattr(
        "ske_models.lm_eval.vllm.DETECTION", {"min_pattern_size": 1, "max_pattern_size": 9, "min_count": 2}
    )
    monkeypatch.setattr(loaded, "stop_loops", False)  # as before, when the test is over
    lm = model(max_knowledge_toks=200, stop_loops=True)
    ended = evaluate(lm)
    step = lm.get_model_info()["ske"]["steps"]["knowledge"]
    assert 0 < step["looped"] == sum(answer.trace["looped"]["knowledge"] for answer in ended)
    for before, after in zip(whole, ended, strict=True):
        assert before.trace["knowledge"].startswith(after.trace["knowledge"])
        assert (before.trace["knowledge"] == after.trace["knowledge"]) is not after.trace["looped"][
            "knowledge"
        ]
    again = model(max_knowledge_toks=200, stop_loops=True)
    assert evaluate(again) == ended
    found = again.get_model_info()["ske"]["steps"]["knowledge"]
    assert (found["looped"], found["reused"]) == (step["looped"], 12)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"max_model_len": 99_999}, r"cannot load .*max_model_len \(99999\) is greater than"),
        ({"tensor_parallel_size": 3}, "cannot load .*attention heads .* must be divisible by tensor"),
    ],
)
def test_what_vllm_refuses_is_one_line(vllm_here, tiny_llama, args, line):
    with pytest.raises(UserError, match=f"backend=vllm: {line}") as error:
        SKEExplicitLM(**({"backend": "vllm", "pretrained": str(tiny_llama), "store": "none"} | args))
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif(len(CORES) < 2, reason="each of vLLM's two processes needs a core")
def test_tensor_parallel_writes_what_transformers_write(tmp_path):
    m0 = f"pretrained={embedded.path()},dtype=float32,prompts=world"
    parallel = "tensor_parallel_size=2,max_model_len=512,enforce_eager=True,block_size=32"
    model = {"hf": m0, "vllm": f"{m0},{parallel}"}
    env = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": f"{CORES[0]}|{CORES[1]}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    written = []
    for backend, args in model.items():
        command = [str(Path(sys.executable).with_name("lm_eval")), "--model", "ske_explicit"]
        command += ["--model_args", f"backend={backend},store=none,{args}", "--tasks", "ske_world_dev"]
        command += [
            "--limit",
            "12",
            "--apply_chat_template",
            "--output_path",
            str(tmp_path / backend),
            "--log_samples",
        ]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        [samples] = (tmp_path / backend).rglob("samples_*.jsonl")
        rows = sorted(read_jsonl(samples), key=lambda row: row["doc_id"])
        # vLLM keeps a space at a text's start that transformers' tokenizer takes away
        written.append([(r["doc"]["ske"]["knowledge"].strip(), r["resps"][0][0].strip()) for r in rows])
    assert written[0] == written[1]
    assert len(set(written[0])) == 12


def test_data_parallel_needs_ray(tiny_llama):
    with pytest.raises(UserError, match="backend=vllm: ray is required"):
        SKEExplicitLM(backend="vllm", pretrained=str(tiny_llama), store="none", data_parallel_size=2)
