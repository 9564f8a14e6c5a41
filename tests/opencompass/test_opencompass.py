"""`SKEExplicit` around OpenCompass' own classes with a tiny Llama: what it asks, keeps and refuses."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("opencompass")

from mmengine.config import ConfigDict  # type: ignore[import-untyped]
from opencompass.models import (
    HuggingFaceBaseModel,
    HuggingFacewithChatTemplate,
    OpenAISDK,
    VLLMwithChatTemplate,
)
from opencompass.openicl.icl_inferencer import ChatInferencer, GenInferencer, PPLInferencer
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever import FixKRetriever, ZeroRetriever
from opencompass.utils.prompt import PromptList

from ske_models.errors import UserError
from ske_models.knowledge import export
from ske_models.opencompass import config as opencompass_config
from ske_models.opencompass.engine import engine_for
from ske_models.opencompass.model import SKEExplicit
from ske_models.opencompass.summary import counts, failures, newest_config
from ske_models.opencompass.tasks import InferTask, error_file
from ske_tasks.world.opencompass import TinyWorldDataset, TinyWorldEvaluator

pytestmark = pytest.mark.slow

READER = {"input_columns": ["ske_question"], "output_column": "gold"}
ASKED = {"round": [{"role": "HUMAN", "prompt": "Q: {ske_question}"}]}


@pytest.fixture(scope="module")
def chat(tiny_llama: Path) -> dict:
    return {
        "type": HuggingFacewithChatTemplate,
        "path": str(tiny_llama),
        "batch_size": 4,
        "model_kwargs": {"torch_dtype": "float32"},
    }


@pytest.fixture(scope="module")
def base(chat: dict) -> dict:
    return {**chat, "type": HuggingFaceBaseModel}


@pytest.fixture(scope="module")
def world() -> TinyWorldDataset:
    return TinyWorldDataset(path="test", size=10, reader_cfg=READER)


def ask(model, world, folder: Path, template: dict = ASKED, **arguments) -> dict:
    """The predictions file that OpenCompass' own GenInferencer leaves."""
    folder.mkdir(exist_ok=True)
    inferencer = GenInferencer(model, **{"max_out_len": 8, "batch_size": 8} | arguments)
    inferencer.inference(
        ZeroRetriever(world),
        prompt_template=PromptTemplate(template),
        output_json_filepath=str(folder),
        output_json_filename="world.json",
    )
    return json.loads((folder / "world.json").read_text())


@pytest.mark.parametrize("kind", ["chat", "base"])
def test_direct_is_the_bare_class(kind, request, world, tmp_path):
    llm = request.getfixturevalue(kind)
    model = SKEExplicit(llm, method="direct", store="none")
    ours = ask(model, world, tmp_path / "ours", stopping_criteria=["the"])
    # batch size 4 without the adapter: it gives its class as many at once
    bare = ask(model.inner, world, tmp_path / "bare", stopping_criteria=["the"], batch_size=4)
    assert ours == bare
    assert len({item["prediction"] for item in ours.values()}) > 1


def test_explicit_keeps_knowledge_and_has_its_own_limits(chat, world, tmp_path):
    model = SKEExplicit(chat, store=str(tmp_path / "s.sqlite"), max_knowledge_toks=12, max_reasoning_toks=20)
    said = ask(model, world, tmp_path, max_out_len=3, stopping_criteria=["\n", "a", "e"])
    assert len(said) == 10
    for item in said.values():
        asked, trace = item["origin_prompt"]
        assert asked["role"] == "HUMAN"
        assert trace["role"] == "SKE"
        assert trace["knowledge"]
    # neither the dataset's limit nor its stop strings
    for step in ("knowledge", "answer"):
        assert max(item["origin_prompt"][-1]["tokens"][step] for item in said.values()) > 6
    written = {record["knowledge"] for record in export(tmp_path / "s.sqlite")}
    assert written == {item["origin_prompt"][-1]["knowledge"] for item in said.values()}

    again = SKEExplicit(chat, store=str(tmp_path / "s.sqlite"), max_knowledge_toks=12, max_reasoning_toks=20)
    twice = ask(again, world, tmp_path / "again", max_out_len=3)
    assert {step: count.generated for step, count in again.pipeline.counts.items()} == {
        "knowledge": 0,
        "answer": 0,
    }
    assert [item["prediction"] for item in twice.values()] == [item["prediction"] for item in said.values()]


def test_an_edited_knowledge_file_is_used(chat, world, tmp_path):
    line = {"question": "Q: " + world.test[0]["ske_question"], "knowledge": "Paris is the capital of France."}
    (tmp_path / "k.jsonl").write_text(json.dumps(line))
    model = SKEExplicit(chat, store="none", knowledge=str(tmp_path / "k.jsonl"), max_reasoning_toks=4)
    said = ask(model, world, tmp_path)
    traces = [item["origin_prompt"][-1] for item in said.values()]
    assert traces[0]["knowledge"] == "Paris is the capital of France."
    assert [trace["knowledge_source"] for trace in traces].count("edited") == 1


def test_base_models_get_the_knowledge_before_the_context(base, world, tmp_path):
    model = SKEExplicit(base, store="none", max_knowledge_toks=4)
    said = ask(model, world, tmp_path)
    for item in said.values():
        assert item["origin_prompt"][0]["prompt"].startswith("Q: ")
        assert item["origin_prompt"][-1]["knowledge"] is not None


def test_few_shot_examples_and_system_turns_stand_before_both_steps(chat, world, tmp_path):
    model = SKEExplicit(chat, store="none", max_knowledge_toks=4, max_reasoning_toks=4)
    example = PromptTemplate(
        {"round": [{"role": "HUMAN", "prompt": "{ske_question}"}, {"role": "BOT", "prompt": "{gold}"}]}
    )
    asked = {
        "begin": [{"role": "SYSTEM", "fallback_role": "HUMAN", "prompt": "Be short."}, "</E>"],
        **ASKED,
    }
    prompts: list = []
    generate = model.inner.generate

    def listening(inputs, **arguments):
        prompts.extend(inputs)
        return generate(inputs, **arguments)

    model.inner.generate = listening
    try:
        GenInferencer(model, max_out_len=4, batch_size=2).inference(
            FixKRetriever(world, fix_id_list=[0, 1]),
            ice_template=example,
            prompt_template=PromptTemplate(asked, ice_token="</E>"),
            output_json_filepath=str(tmp_path),
            output_json_filename="world.json",
        )
        # a single prompt is measured to drop examples that do not fit
        single = PromptTemplate(ASKED).generate_item({"ske_question": "short"})
        assert model.get_token_len_from_template(single, mode="gen") < 20
    finally:
        model.inner.generate = generate
    assert len(prompts) == 20  # ten questions, two steps
    for prompt in prompts:
        assert [turn["role"] for turn in prompt] == ["HUMAN", "BOT", "HUMAN", "BOT", "HUMAN"]
        assert prompt[0]["prompt"].startswith("Be short.\n")


def test_several_rounds(chat, tmp_path):
    class Rounds(TinyWorldDataset):
        @staticmethod
        def load(path, size):
            rows = TinyWorldDataset.load(path, size)
            return rows.map(
                lambda row: {"ske_question": [row["ske_question"]] * 2, "gold": [row["gold"]] * 2}
            )

    model = SKEExplicit(chat, store=str(tmp_path / "s.sqlite"), max_knowledge_toks=4, max_reasoning_toks=4)
    rounds = Rounds(path="test", size=10, reader_cfg=READER)
    ChatInferencer(model, infer_mode="every", max_out_len=4).inference(
        ZeroRetriever(rounds),
        prompt_template=PromptTemplate(
            {"round": [{"role": "HUMAN", "prompt": "{ske_question}"}, {"role": "BOT", "prompt": "{gold}"}]}
        ),
        output_json_filepath=str(tmp_path),
        output_json_filename="world.json",
    )
    said = json.loads((tmp_path / "world.json").read_text())
    assert {len(item["prediction"]) for item in said.values()} == {2}
    assert model.pipeline.counts["knowledge"].asked == 20


def test_perplexity_passes_through_direct_and_is_refused_otherwise(base, chat, world, tmp_path):
    template = {
        word: {"round": [{"role": "HUMAN", "prompt": f"{{ske_question}} {word}"}]} for word in ("A", "B")
    }

    def score(llm, method):
        model = SKEExplicit(llm, method=method, store="none")
        PPLInferencer(model, batch_size=4).inference(
            ZeroRetriever(world),
            prompt_template=PromptTemplate(template),
            output_json_filepath=str(tmp_path),
            output_json_filename="ppl.json",
        )

    score(base, "direct")
    assert len(json.loads((tmp_path / "ppl.json").read_text())) == 10
    for method in ("cot", "explicit"):
        with pytest.raises(UserError, match=f"method={method} writes an answer.*perplexity"):
            score(base, method)
    with pytest.raises(UserError, match="HuggingFacewithChatTemplate cannot score"):
        score(chat, "direct")


def test_one_engine_at_a_time(chat, base):
    first = SKEExplicit(chat, method="direct", store="none")
    assert SKEExplicit(chat, method="explicit", store="none").engine is first.engine
    assert engine_for(base) is not first.engine
    assert first.engine.model is None


def test_sampled_texts_are_not_kept(chat, world, tmp_path):
    llm = {**chat, "generation_kwargs": {"do_sample": True, "temperature": 1.0}}
    model = SKEExplicit(llm, method="direct", store=str(tmp_path / "s.sqlite"))
    ask(model, world, tmp_path)
    assert model.pipeline.counts["answer"].generated == 10
    again = SKEExplicit(llm, method="direct", store=str(tmp_path / "s.sqlite"))
    ask(again, world, tmp_path / "again")
    assert again.pipeline.counts["answer"].reused == 0


def test_vllm_without_ray(vllm_here, tiny_llama, world, tmp_path):
    settings = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512}
    llm = {"type": VLLMwithChatTemplate, "path": str(tiny_llama), "model_kwargs": settings}
    model = SKEExplicit(llm, store="none", max_knowledge_toks=8, max_reasoning_toks=8)
    said = ask(model, world, tmp_path)
    assert all(item["origin_prompt"][-1]["tokens"]["knowledge"] for item in said.values())
    assert model.engine.overlong == 0
    # one prompt that is too long would end the call of OpenCompass' own class
    long = PromptList([{"role": "HUMAN", "prompt": "The capital of France. " * 400}])
    assert len(model.generate([long], 8)) == 1
    assert model.engine.overlong == 2  # in both steps


def test_threads_are_refused(chat):
    model = SKEExplicit(chat, method="direct", store="none")
    with ThreadPoolExecutor(1) as pool, pytest.raises(UserError, match="several threads"):
        pool.submit(model.generate, [PromptList([{"role": "HUMAN", "prompt": "x"}])], 4).result()
    assert threading.current_thread() is threading.main_thread()


def test_api_models_are_greedy_and_keep_no_secret(tiny_llama, tmp_path):
    llm = {
        "type": OpenAISDK,
        "path": "served",
        "key": "sk-secret",
        "openai_api_base": "http://127.0.0.1:9/v1",
        "tokenizer_path": str(tiny_llama),
    }
    model = SKEExplicit(llm, method="direct", store=str(tmp_path / "s.sqlite"))
    assert model.inner.temperature == 0
    assert b"sk-secret" not in (tmp_path / "s.sqlite").read_bytes()
    assert model.pipeline.store.fingerprint["openai_api_base"] == "http://127.0.0.1:9/v1"


def test_the_evaluator(world):
    gold = list(world.test["gold"])
    said = (
        [f"It is so. The answer is {answer}." for answer in gold[:5]] + ["The answer is nobody."] * 4 + ["?"]
    )
    scores = TinyWorldEvaluator().score(said, gold, world.test)
    assert scores["accuracy"] == pytest.approx(50)
    assert scores["unanswered"] == pytest.approx(10)


def test_a_base_model_is_told_apart(tiny_llama, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_llama, folder, ignore=shutil.ignore_patterns("chat_template.jinja"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    env = {"SKE_MODELS": str(folder), "SKE_DATASETS": "tinyworld"}
    with pytest.raises(UserError, match="no chat template; for a base model set SKE_BACKEND=hf-base"):
        opencompass_config.requested(env)
    assert opencompass_config.requested(env | {"SKE_BACKEND": "hf-base"}).backend == "hf-base"


def test_missing_data_is_named_with_its_address(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(opencompass_config, "DEFAULT_DATA_FOLDER", str(tmp_path / "none"))
    env = {"SKE_MODELS": str(tiny_llama), "COMPASS_DATA_CACHE": str(tmp_path)}
    with pytest.raises(UserError, match=r"6 of the 6 .* data/mmlu.*mmlu\.zip .* into .*data$"):
        opencompass_config.requested(env)


def test_a_run_folder(tiny_llama, tmp_path):
    run = tmp_path / "paper"
    run.mkdir()
    for name in ("M10", "M2", "M0", "M01", "Mine"):
        (run / name).symlink_to(tiny_llama)
    found = opencompass_config.requested({"SKE_RUN": str(run), "SKE_DATASETS": "tinyworld"})
    assert list(found.checkpoints) == ["M0", "M2", "M10"]
    assert not found.embedded
    with pytest.raises(UserError, match=r"no checkpoints in it .*; give one of the runs in it: .*/paper$"):
        opencompass_config.requested({"SKE_RUN": str(tmp_path), "SKE_DATASETS": "tinyworld"})


def test_a_range_past_the_end_of_a_dataset(tmp_path):
    data = {
        "type": TinyWorldDataset, "abbr": "tinyworld", "path": "test", "size": 10, "infer_cfg": {},
        "reader_cfg": READER | {"test_range": "[20:30]"},
    }  # fmt: skip
    cfg = {"models": [{"abbr": "M0"}], "datasets": [[data]], "work_dir": str(tmp_path)}
    InferTask(ConfigDict(cfg)).run(cur_model=object(), cur_model_abbr="M0")
    assert (
        error_file(tmp_path, "infer", {"abbr": "M0"}, data)
        .read_text()
        .startswith("SKE_SLICE (test_range) [20:30]: past the 10 items of tinyworld")
    )


def test_the_check_names_what_failed(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "1.py").write_text(
        "models = [dict(abbr='M0-explicit', type='x')]\n"
        "datasets = [dict(abbr=name, type='x') for name in ('done', 'error', 'scored', 'lost')]\n"
    )
    trace = {
        "role": "SKE",
        "prompt": "",
        "method": "explicit",
        "knowledge": "Ice",
        "truncated": {"knowledge": True, "answer": False},
    }
    files = {
        "results/M0-explicit/done.json": {"accuracy": 1},
        "results/M0-explicit/error.json": {"error": "different length"},
        "predictions/M0-explicit/scored.json": {"0": {"origin_prompt": [trace], "prediction": ""}},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    found = list(failures(newest_config(tmp_path), tmp_path))
    assert len(found) == 3
    assert found[0].startswith("M0-explicit/error: not scored: different length")
    assert "predicted, not scored" in found[1]
    assert found[2].startswith("M0-explicit/lost: no predictions")
    assert list(counts(tmp_path)) == [
        "M0-explicit: 1 items; at the token limit: 1 knowledge texts, 0 answers; "
        "empty: 0 knowledge texts, 1 answers"
    ]
    with pytest.raises(UserError, match="no OpenCompass run"):
        newest_config(tmp_path / "results")
