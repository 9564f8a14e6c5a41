"""`ske_explicit` inside the real lm-eval, over its real hf backend with a tiny random Llama."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ske_models import prompts
from ske_models.errors import UserError
from ske_models.knowledge import export
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.lm_eval.questions import ChatStr
from ske_models.store import Store

TASKS = Path(__file__).parents[1] / "tasks"
KNOWLEDGE_LIMIT = 12


@pytest.fixture(scope="session")
def inner(tiny_llama) -> HFLM:
    return HFLM(pretrained=str(tiny_llama), device="cpu", batch_size=4)


@pytest.fixture
def asked(inner, monkeypatch) -> list[tuple[str, str]]:
    """What the hf backend is asked while a test runs: (kind of request, context)."""
    seen: list[tuple[str, str]] = []
    for kind in ("generate_until", "loglikelihood"):
        real = getattr(inner, kind)

        def spy(requests: list, *rest: Any, kind: str = kind, real: Any = real) -> Any:
            seen.extend((kind, request.args[0]) for request in requests)
            return real(requests, *rest)

        monkeypatch.setattr(inner, kind, spy)
    return seen


@pytest.fixture
def model(inner, tiny_llama, tmp_path, monkeypatch):
    """Makes a `ske_explicit` over the one hf backend that the session has loaded."""
    monkeypatch.setattr("ske_models.lm_eval.model.load", lambda *_: inner)

    def make(**args: Any) -> SKEExplicitLM:
        defaults: dict[str, Any] = {
            "pretrained": str(tiny_llama),
            "store": str(tmp_path / "store.sqlite"),
            "max_knowledge_toks": KNOWLEDGE_LIMIT,
        }
        return SKEExplicitLM(**(defaults | args))

    return make


def evaluate(model: Any, task: str, **options: Any) -> dict:
    defaults: dict[str, Any] = {"apply_chat_template": True, "bootstrap_iters": 0, "log_samples": True}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=manager, **(defaults | options))


def outputs(results: dict, task: str) -> list:
    return [sample["resps"] for sample in results["samples"][task]]


def steps(model: SKEExplicitLM) -> dict:
    return model.get_model_info()["ske"]["steps"]


@pytest.mark.parametrize(("method", "rendered"), [("direct", 0), ("cot", 12), ("explicit", 24)])
def test_a_conversation_is_rendered_once(model, monkeypatch, method, rendered):
    lm, conversations = model(method=method), []
    render = lm.engine.render

    def spy(turns, chat):
        conversations.append(turns)
        return render(turns, chat)

    monkeypatch.setattr(lm.engine, "render", spy)
    evaluate(lm, "toy_write")
    assert len(conversations) == rendered


@pytest.mark.parametrize("task", ["toy_write", "toy_choice"])
@pytest.mark.parametrize("chat", [True, False])
def test_direct_equals_the_bare_backend_to_the_last_digit(inner, model, task, chat):
    options = {"apply_chat_template": chat, "num_fewshot": 2}
    bare, direct = evaluate(inner, task, **options), evaluate(model(method="direct"), task, **options)
    assert direct["results"] == bare["results"]
    assert outputs(direct, task) == outputs(bare, task)


def test_a_choice_of_four_asks_for_knowledge_once_a_question(model, asked):
    explicit = model()
    evaluate(explicit, "toy_choice")
    kinds = [kind for kind, _ in asked]
    assert kinds.count("generate_until") == 12
    # four options, each with the question and, for the mutual information, without it
    assert kinds.count("loglikelihood") == 12 * 4 * 2
    assert steps(explicit)["knowledge"]["generated"] == 12


def test_options_are_scored_with_the_knowledge_and_after_the_task_own_cue(model, asked):
    explicit = model()
    evaluate(explicit, "toy_choice", apply_chat_template=False)
    knowledge = {record["question"]: record["knowledge"] for record in export(explicit.pipeline.store.path)}
    contexts = {context for kind, context in asked if kind == "loglikelihood" and context}
    assert contexts == {
        prompts.load("default").render("given", question=question, knowledge=text)
        for question, text in knowledge.items()
    }
    assert all(context.endswith("\nAnswer:") for context in contexts)
    assert len(contexts) == 12


def test_the_task_stop_strings_do_not_cut_the_knowledge(model, inner, monkeypatch):
    settings: list[dict[str, Any]] = []
    real = inner.generate_until

    def spy(requests: list) -> list[str]:
        settings.extend(request.args[1] for request in requests)
        return real(requests)

    monkeypatch.setattr(inner, "generate_until", spy)
    evaluate(model(), "toy_write")
    assert [s["max_gen_toks"] for s in settings] == [KNOWLEDGE_LIMIT] * 12 + [24] * 12
    assert all(s["until"] == [] for s in settings[:12])
    assert all("\n\n" in s["until"] for s in settings[12:])


@pytest.mark.parametrize("as_turns", [True, False])
def test_few_shot_and_system_turns_reach_both_steps(model, asked, as_turns):
    evaluate(
        model(), "toy_write", num_fewshot=2, system_instruction="Be exact.", fewshot_as_multiturn=as_turns
    )
    assert len(asked) == 24
    for _, context in asked:
        assert context.startswith("<|system|>Be exact.<|end|><|user|>")
        assert context.count("another") == 2
        assert context.count("<|user|>") == (3 if as_turns else 1)
        assert context.endswith("<|assistant|>")


def test_multiturn_continues_the_conversation_of_step_1(model, asked):
    explicit = model(layout="multiturn")
    results = evaluate(explicit, "toy_write")
    first, second = [c for _, c in asked[:12]], [c for _, c in asked[12:]]
    assert all(any(context.startswith(start) for start in first) for context in second)
    assert results["config"]["ske"]["layout"] == "multiturn"


def test_the_start_of_an_answer_is_kept_for_the_answer(model, asked):
    evaluate(model(), "toy_prefix")
    assert all("The answer is" not in context for _, context in asked[:12])
    assert all(context.endswith("<|assistant|>The answer is") for _, context in asked[12:])


def test_our_tasks_say_how_to_end_only_where_an_answer_is_due(model, asked):
    explicit = model()
    results = evaluate(explicit, "toy_ours")
    ending = "End with: The answer is N."
    assert all(ending not in context for _, context in asked[:12])
    assert all(context.count(ending) == 1 for _, context in asked[12:])
    assert not explicit.pipeline.store.path.with_suffix(".knowledge").exists()
    assert all(hasattr(resp, "trace") for [[resp]] in outputs(results, "toy_ours"))


def test_knowledge_of_other_tasks_goes_to_a_file_beside_the_store(model):
    explicit = model()
    results = evaluate(explicit, "toy_write")
    folder = Path(results["config"]["ske"]["knowledge_of_other_tasks"])
    lines = [json.loads(line) for line in (folder / "toy_write.explicit.jsonl").read_text().splitlines()]
    assert [line["doc_id"] for line in lines] == list(range(12))
    assert [line["answer"] for line in lines] == [resp for [[resp]] in outputs(results, "toy_write")]
    samples = {sample["doc_id"]: sample["prompt_hash"] for sample in results["samples"]["toy_write"]}
    assert {line["doc_id"]: line["prompt_hash"] for line in lines} == samples
    assert all(line["knowledge"] for line in lines)


def test_a_second_run_generates_nothing_and_says_the_same(model, asked):
    first = evaluate(model(), "toy_write")
    asked.clear()
    again = model()
    second = evaluate(again, "toy_write")
    assert asked == []
    assert second["results"] == first["results"]
    assert outputs(second, "toy_write") == outputs(first, "toy_write")
    assert steps(again)["answer"]["reused"] == 12


def test_methods_share_a_store_but_not_their_answers(model, asked):
    evaluate(model(), "toy_write")
    asked.clear()
    evaluate(model(method="cot"), "toy_write")
    assert len(asked) == 12


def test_every_text_is_in_the_store_before_the_call_returns(model, inner, monkeypatch):
    explicit = model()
    stored_at: list[int] = []

    def count() -> int:
        return explicit.pipeline.store._db.execute("SELECT COUNT(*) FROM steps").fetchone()[0]

    real = inner._model_generate

    def spy(**options: Any) -> Any:
        stored_at.append(count())
        return real(**options)

    monkeypatch.setattr(inner, "_model_generate", spy)
    evaluate(explicit, "toy_write")
    assert stored_at == [0, 4, 8, 12, 16, 20]  # batches of 4


def test_repeats_of_a_sampled_task_are_sampled_anew(model):
    results = evaluate(model(), "toy_sampled")
    pairs = [sample["resps"][0] for sample in results["samples"]["toy_sampled"]]
    assert all(len(pair) == 2 for pair in pairs)
    assert any(first != second for first, second in pairs)


def test_edited_knowledge_is_used_and_the_result_says_which_items(model, tmp_path, asked):
    explicit = model()
    evaluate(explicit, "toy_write")
    records = list(export(explicit.pipeline.store.path))
    for record in records:
        if "bee" in record["question"]:
            record["knowledge"] = "A bee is an insect and has six legs."
    (tmp_path / "edited.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    asked.clear()
    edited = model(knowledge=str(tmp_path / "edited.jsonl"))
    results = evaluate(edited, "toy_write")
    assert len(asked) == 1
    assert "six legs" in asked[0][1]
    assert results["config"]["ske"]["edited"] == ["toy_write/3"]
    assert (steps(edited)["knowledge"]["edited"], steps(edited)["knowledge"]["from_file"]) == (1, 11)


def test_counts_and_lineage_stand_in_the_results(model, tiny_llama):
    explicit = model()
    ske = evaluate(explicit, "toy_write")["config"]["ske"]
    assert ske["method"] == "explicit"
    assert ske["prompts_hash"] == prompts.load("default").hash
    assert ske["knowledge_limit"] == KNOWLEDGE_LIMIT
    assert ske["store"].endswith("store.sqlite")
    for step in ("knowledge", "answer"):
        counts = ske["steps"][step]
        assert counts["asked"] == counts["generated"] == 12
        assert counts["truncated"] <= 12
        assert min(counts["prompt_tokens"], counts["output_tokens"], counts["seconds"]) > 0


def test_a_chat_prompt_survives_pickling_and_equals_its_text():
    prompt = ChatStr("<|user|>q", [{"role": "user", "content": "q"}])
    assert pickle.loads(pickle.dumps(prompt)).messages == prompt.messages
    assert (prompt, hash(prompt)) == ("<|user|>q", hash("<|user|>q"))


def test_rolling_log_likelihoods_pass_through(model, inner):
    from lm_eval.api.instance import Instance

    request = Instance("loglikelihood_rolling", {}, ("the capital of France",), 0, ("t", 0, 1))
    assert model().loglikelihood_rolling([request]) == inner.loglikelihood_rolling([request])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"backend": "hff"}, "backend=hff: unknown; one of: .*hf, "),
        ({"backend": "ske_explicit"}, "backend=ske_explicit: unknown"),
        ({"method": "explicitly"}, "method=explicitly: unknown; one of: direct, cot, explicit"),
        ({"layout": "double"}, "layout=double: unknown; one of: single, multiturn"),
        ({"prompts": "my.yaml"}, "prompts=my.yaml: no such file"),
        ({"max_knowledge_toks": -5}, "max_knowledge_toks=-5"),
        ({"max_knowledge_toks": "many"}, "max_knowledge_toks=many"),
        ({"window": 0}, "window=0"),
        ({"pretrained": "/no/such/model"}, "pretrained=/no/such/model: no such folder"),
        ({"store": "/proc/ske/s.sqlite"}, "store=/proc/ske/s.sqlite: cannot be used"),
        ({"knowledge": "none.jsonl"}, "knowledge=none.jsonl: cannot be read"),
        ({"knowledge": "k.jsonl", "method": "cot"}, "method=cot has no knowledge step"),
    ],
)
def test_a_wrong_argument_is_named_before_a_model_is_loaded(tiny_llama, tmp_path, args, message):
    defaults = {"pretrained": str(tiny_llama), "store": str(tmp_path / "s.sqlite")}
    with pytest.raises(UserError, match=message):
        SKEExplicitLM(**(defaults | args))


def test_an_argument_that_nobody_knows_is_named_and_claims_no_store(tiny_llama, tmp_path):
    store = str(tmp_path / "s.sqlite")
    args: dict[str, Any] = {"pretrained": str(tiny_llama), "store": store, "device": "cpu"}
    with pytest.raises(UserError, match="methd.*ours are: backend, method"):
        SKEExplicitLM(methd="cot", **args)
    SKEExplicitLM(**args).pipeline.store.put("1", "knowledge", "p", "q", "k")


@pytest.mark.parametrize("as_text", [True, False])
def test_store_none_keeps_nothing_from_python_too(tiny_llama, tmp_path, monkeypatch, as_text):
    """lm-eval makes None of the word in its command line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    args = {"pretrained": str(tiny_llama), "store": "none", "max_knowledge_toks": KNOWLEDGE_LIMIT}
    results = lm_eval.simple_evaluate(
        model="ske_explicit",
        model_args=",".join(f"{name}={value}" for name, value in args.items()) if as_text else args,
        tasks=["toy_write"],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        device="cpu",
        limit=1,
    )
    assert results["config"]["ske"]["store"] is None
    assert list(tmp_path.rglob("*.sqlite")) == []


def test_a_store_of_another_model_is_refused(model, tmp_path):
    Store(tmp_path / "store.sqlite", {"backend": "vllm"}).get("claimed at the first use")
    with pytest.raises(UserError, match="backend is 'vllm', not 'hf'"):
        model()


def test_a_model_without_a_chat_template_is_refused_where_one_is_asked_for(model, inner, monkeypatch):
    monkeypatch.setattr(inner.tokenizer, "chat_template", None)
    with pytest.raises(UserError, match="no chat template; leave out --apply_chat_template"):
        evaluate(model(), "toy_write")
    evaluate(model(), "toy_write", apply_chat_template=False)


def test_multiturn_without_turns_is_refused(model):
    with pytest.raises(UserError, match="add --apply_chat_template"):
        evaluate(model(layout="multiturn"), "toy_write", apply_chat_template=False)


def test_cot_cannot_score_options(model):
    with pytest.raises(UserError, match="method=cot writes an answer, but task toy_choice"):
        evaluate(model(method="cot"), "toy_choice")


def test_a_negative_limit_of_the_task_is_refused(model):
    with pytest.raises(UserError, match="max_gen_toks=-3"):
        evaluate(model(), "toy_write", gen_kwargs={"max_gen_toks": -3})


def test_lm_eval_own_cache_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="--use_cache knows neither the method nor the prompts"):
        evaluate(model(), "toy_write", use_cache=str(tmp_path / "cache"))
    with pytest.raises(UserError):
        model().set_cache_hook(CacheHook(None))
