"""What a user can get wrong in `lm_eval --model ske_explicit`: a table of inputs, and the line of each.

No traceback, no status 0 with a wrong result, nothing that hangs. Most rows call lm-eval's own functions in
this process; a few go through the command.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ske_models import embedded
from ske_models.errors import UserError
from ske_models.fingerprint import fingerprint
from ske_models.lm_eval.backend import load
from ske_models.lm_eval.engine import LMEvalEngine, check_settings
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.plugin import results_file
from ske_models.plugin.registration import complete
from ske_models.records import Request
from ske_models.store import Store

TASKS = Path(__file__).parents[1] / "tasks"
LM_EVAL = str(Path(sys.executable).with_name("lm_eval"))
LONG = "n" * 300


def one_line(error: BaseException, message: str) -> None:
    """The error is a line for the user that has the message in it."""
    assert isinstance(error, UserError)
    assert error.code == str(error)
    assert message in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


# Arguments, before anything is loaded ----------------------------------------------------------------

ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"backend": "hff"}, "backend=hff: unknown; one of: "),
    ({"backend": ""}, "backend=: unknown; one of: "),
    ({"backend": "ske_explicit"}, "backend=ske_explicit: unknown"),
    ({"method": "explicitly"}, "method=explicitly: unknown; one of: direct, cot, explicit"),
    ({"method": None}, "method=None: unknown; one of: direct, cot, explicit"),
    ({"method": "Explicit"}, "method=Explicit: unknown"),
    ({"layout": "double"}, "layout=double: unknown; one of: single, multiturn"),
    ({"prompts": "my.yaml"}, "prompts=my.yaml: no such file, nor a prompt set of that name (default"),
    ({"prompts": "/"}, "prompts=/: no such file"),
    ({"prompts": 5}, "prompts=5: no such file, nor a prompt set of that name"),
    ({"prompts": LONG}, "no path of a file"),
    ({"prompts": "~nosuchuser/p.yaml"}, "prompts=~nosuchuser/p.yaml: no path of a file"),
    ({"max_knowledge_toks": 0}, "max_knowledge_toks=0: a whole number of at least 1 is needed"),
    ({"max_knowledge_toks": -5}, "max_knowledge_toks=-5: a whole number"),
    ({"max_knowledge_toks": "many"}, "max_knowledge_toks=many: a whole number"),
    ({"max_knowledge_toks": 1.5}, "max_knowledge_toks=1.5: a whole number"),
    ({"max_knowledge_toks": True}, "max_knowledge_toks=True: a whole number"),
    ({"window": 0}, "window=0: a whole number of at least 1 is needed"),
    ({"window": "all"}, "window=all: a whole number"),
    ({"data_parallel_size": "two"}, "data_parallel_size=two: a whole number of at least 1 is needed"),
    ({"data_parallel_size": 0}, "data_parallel_size=0: a whole number of at least 1"),
    ({"think": "yes"}, "think=yes: unknown; default, off, or the two marks as in <plan>...</plan>"),
    ({"think": "<plan>..."}, "think=<plan>...: unknown; default, off, or the two marks"),
    ({"store": "/proc/ske/s.sqlite"}, "store=/proc/ske/s.sqlite: cannot be used"),
    ({"store": "/"}, "store=/: cannot be used"),
    ({"store": f"/tmp/{LONG}"}, "no path of a file"),
    ({"store": "~nosuchuser/s"}, "store=~nosuchuser/s: no path of a file"),
    ({"store": "/dev/null/s"}, "store=/dev/null/s: cannot be used"),
    ({"knowledge": "none.jsonl"}, "knowledge=none.jsonl: cannot be read"),
    ({"knowledge": "/"}, "knowledge=/: cannot be read"),
    ({"knowledge": LONG}, "no path of a file"),
    ({"knowledge": "k.jsonl", "method": "cot"}, "method=cot has no knowledge step; use method=explicit"),
    ({"knowledge": "shuffled", "method": "direct"}, "method=direct has no knowledge step"),
    ({"foreign_knowledge": True}, "foreign_knowledge=True: give the file with knowledge=FILE"),
    (
        {"pretrained": "/no/such/model"},
        "pretrained=/no/such/model: no such folder; give a checkpoint",
    ),
    ({"pretrained": "./none"}, "pretrained=./none: no such folder"),
    ({"pretrained": "~nosuchuser/m"}, "pretrained=~nosuchuser/m: no path of a file"),
    ({"pretrained": "no such name"}, "pretrained=no such name: no such folder, and not available"),
    ({"pretrained": "a/b/c"}, "pretrained=a/b/c: no such folder, and not available"),
    ({"pretrained": "none.gguf"}, "pretrained=none.gguf: no such file"),
    (
        {"pretrained": "m.gguf", "backend": "vllm"},
        "pretrained=m.gguf: lm-eval's vllm reads no GGUF file",
    ),
    ({"peft": "/no/such/adapter"}, "peft=/no/such/adapter: no such folder"),
    ({"delta": "/no/such/delta"}, "delta=/no/such/delta: no such folder"),
    ({"tokenizer": "/no/such/tokenizer"}, "tokenizer=/no/such/tokenizer: no such folder"),
]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize(("args", "message"), ARGUMENTS)
def test_a_wrong_argument_is_named_before_a_model_is_loaded(tiny_llama, tmp_path, monkeypatch, args, message):
    monkeypatch.setattr("ske_models.lm_eval.model.load", lambda *_: pytest.fail("a model was loaded"))
    defaults = {"pretrained": str(tiny_llama), "store": str(tmp_path / "s.sqlite")}
    with pytest.raises(UserError) as error:
        SKEExplicitLM(**(defaults | args))
    one_line(error.value, message)


def test_an_argument_that_lm_eval_has_an_option_for_is_given_there():
    with pytest.raises(UserError) as error:
        SKEExplicitLM.create_from_arg_obj(
            {"batch_size": 8, "device": "cpu"}, {"batch_size": 1, "device": None}
        )
    one_line(error.value, "batch_size=8: lm-eval has an option of its own for it; use --batch_size")


# Models that do not load ------------------------------------------------------------------------------


def _edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps(content))


def _without_a_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _truncated(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


BROKEN: list[tuple[str, Any, dict[str, Any], str]] = [
    (
        "lacks a tensor",
        _without_a_tensor,
        {},
        "lacks model.layers.1.mlp.up_proj.weight, which would",
    ),
    ("half a file", _truncated, {}, "cannot load"),
    ("an empty file", lambda f: (f / "model.safetensors").write_bytes(b""), {}, "cannot load"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), {}, "cannot load"),
    ("another shape", lambda f: _edit(f / "config.json", intermediate_size=96), {}, "cannot load|shape"),
    ("no JSON", lambda f: (f / "config.json").write_text("{"), {}, "cannot load"),
    ("no config", lambda f: (f / "config.json").unlink(), {}, "cannot load"),
    ("unknown type", lambda f: _edit(f / "config.json", model_type="lama"), {}, "cannot load"),
    ("odd heads", lambda f: _edit(f / "config.json", num_attention_heads="two"), {}, "cannot load"),
    ("broken tokenizer", lambda f: (f / "tokenizer.json").write_text('{"a": 1}'), {}, "cannot load"),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), {}, "cannot load"),
    (
        "quantization",
        lambda f: _edit(f / "config.json", quantization_config={"quant_method": "nosuch"}),
        {},
        "cannot load",
    ),
    ("dtype", lambda _: None, {"dtype": "float17"}, "cannot load"),
    ("argument", lambda _: None, {"methd": "cot"}, "unexpected keyword argument 'methd'; ours are:"),
    (
        "adapter",
        lambda f: (f / "adapter").mkdir(),
        {"peft": "adapter"},
        "cannot load|peft",
    ),
    ("thinking", lambda _: None, {"enable_thinking": True}, "think_end_token is required"),
    ("GGUF", lambda f: (f / "m.gguf").write_bytes(b"no gguf"), {"gguf_file": "m.gguf"}, "cannot load"),
    (
        "backend without a model",
        lambda _: None,
        {"backend": "local-completions", "model": "m"},
        "cannot load model=m",
    ),
]


@pytest.mark.parametrize(("what", "spoil", "args", "message"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_model_that_does_not_load_is_one_line(tiny_llama, tmp_path, what, spoil, args, message):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    spoil(folder)
    given = {name: str(folder / value) if name == "peft" else value for name, value in args.items()}
    own = {} if "model" in args else {"pretrained": str(folder)}
    with pytest.raises(UserError) as error:
        SKEExplicitLM(**({"store": str(tmp_path / "s.sqlite"), "device": "cpu"} | own | given))
    assert any(part in str(error.value) for part in message.split("|")), str(error.value)
    one_line(error.value, "")
    Store(tmp_path / "s.sqlite", {"another": "model"}).get("a failed run has claimed nothing")


def test_a_gguf_file_is_its_folder_and_name(tiny_llama, tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"no gguf")
    with pytest.raises(UserError) as error:
        SKEExplicitLM(pretrained=str(tmp_path / "m.gguf"), store="none", device="cpu")
    one_line(error.value, f"cannot load pretrained={tmp_path}, gguf_file=m.gguf")


def test_a_backend_without_a_model_is_not_taken_for_the_embedded_one():
    with pytest.raises(UserError) as error:
        SKEExplicitLM(backend="local-chat-completions", base_url="http://127.0.0.1:9/v1", store="none")
    one_line(
        error.value, "backend=local-chat-completions: name the model that the server has, with model=NAME"
    )
    assert not SKEExplicitLM(backend="dummy", store="none").embedded


# Runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(tiny_llama) -> SKEExplicitLM:
    return SKEExplicitLM(pretrained=str(tiny_llama), device="cpu", store="none", max_knowledge_toks=8)


def evaluate(model: Any, task: str = "toy_write", **options: Any) -> dict:
    defaults: dict[str, Any] = {"apply_chat_template": True, "bootstrap_iters": 0, "limit": 1}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    return lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=manager, **(defaults | options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"gen_kwargs": {"max_gen_toks": -3}},
            "max_gen_toks=-3: at least 1 token is needed (task",
        ),
        ({"gen_kwargs": {"max_gen_toks": 0}}, "max_gen_toks=0: at least 1 token"),
        (
            {"gen_kwargs": {"max_gen_toks": 5000}},
            "5000 tokens may be written, but the model has room",
        ),
        ({"gen_kwargs": {"no_such_setting": 1}}, "--gen_kwargs: The following `model_kwargs` are not used"),
        (
            {"gen_kwargs": {"repetition_penalty": 2}},
            "--gen_kwargs: `penalty` has to be a strictly positive float, but is 2",
        ),
        ({"gen_kwargs": {"temperature": "hot"}}, "temperature=hot (--gen_kwargs, or the task's"),
        ({"gen_kwargs": {"temperature": None}}, "temperature=None (--gen_kwargs, or the task's"),
        ({"gen_kwargs": {"max_gen_toks": "abc"}}, "max_gen_toks=abc (--gen_kwargs, or the task's"),
        (
            {"gen_kwargs": {"do_sample": "yes"}},
            "do_sample=yes (--gen_kwargs, or the task's generation_kwargs)",
        ),
        ({"gen_kwargs": {"max_length": 20}}, "prompts count in it; give max_gen_toks instead"),
        ({"gen_kwargs": {"until": 5}}, "until=5 (--gen_kwargs, or the task's generation_kwargs): a text or"),
        ({"gen_kwargs": {"chat_template_kwargs": {}}}, "--gen_kwargs chat_template_kwargs: for chat"),
        ({"use_cache": "cache"}, "--use_cache knows neither the method nor the prompts"),
    ],
)
def test_a_run_that_cannot_be_is_one_line(loaded, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        evaluate(loaded, **options)
    one_line(error.value, message)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("temperature", ["hot", None, -1.0, float("nan"), True], "a number from 0 on is needed"),
        ("top_p", ["most", 1.5, -1], "a number from 0 to 1 is needed"),
        ("top_k", ["abc", 2.5], "a whole number is needed"),
        ("max_gen_toks", ["abc", 2.5, True], "a whole number is needed"),
        ("max_new_tokens", ["abc"], "a whole number is needed"),
        ("do_sample", ["yes", 1], "True or False is needed"),
        ("until", [5, None, [5]], "a text or a list of texts is needed"),
        ("repetition_penalty", [0, -1.0, "much"], "a number above 0 is needed"),
        ("num_beams", [0, "two"], "a whole number of at least 1 is needed"),
        ("num_return_sequences", [2], "a question has one answer"),
        ("max_length", [20], "prompts count in it; give max_gen_toks instead"),
    ],
)
def test_a_setting_of_a_kind_that_it_cannot_have_is_named(name, values, message):
    for value in values:
        with pytest.raises(UserError) as error:
            check_settings({"until": [], name: value})
        one_line(error.value, f"{name}={value} (--gen_kwargs, or the task's generation_kwargs): {message}")


def test_the_settings_of_tasks_pass():
    check_settings({"until": "\n", "do_sample": False, "temperature": 0, "max_gen_toks": 2048, "seed": 7})
    check_settings({"until": ["a", "b"], "do_sample": True, "temperature": 0.7, "top_p": 1, "top_k": 0})
    check_settings({"until": [], "do_sample": None, "top_p": None, "max_gen_toks": None, "num_beams": 10})


def test_several_processes_settle_the_batch_size_while_all_are_there(tiny_llama, monkeypatch):
    """lm-eval would ask all of them later; one whose share is in the store would not answer."""
    found = iter([3])
    monkeypatch.setattr(HFLM, "world_size", 2)
    monkeypatch.setattr(HFLM, "_detect_batch_size", lambda *_: next(found))
    args = {"pretrained": str(tiny_llama), "device": "cpu"}
    backend = load(HFLM, "hf", args | {"batch_size": "auto"}, ours=())
    assert (backend.batch_size, list(found)) == (3, [])
    settings = {"do_sample": False, "until": [], "max_gen_toks": 2}
    origin = lm_eval.api.instance.Instance("generate_until", {}, (), 0, metadata=("t", 0, 1))
    request = Request("answer", "q", settings, 2, "q", origin)
    assert len(LMEvalEngine(backend).generate([request], lambda *_: ())) == 1
    assert load(HFLM, "hf", args | {"batch_size": 4}, ours=()).batch_size == 4


def test_the_embedded_model_is_not_prompted_about_another_world():
    model = SKEExplicitLM(store="none")
    ours = {"ske_world": json.loads((embedded.path() / embedded.METADATA).read_text())["world"]}
    for doc, refused in ((ours, False), ({}, False), ({"ske_world": "0123456789abcdef"}, True)):
        instance = lm_eval.api.instance.Instance("generate_until", doc, ("q", {}), 0, metadata=("t", 0, 1))
        if not refused:
            model._item(instance)
            continue
        with pytest.raises(UserError) as error:
            model._item(instance)
        one_line(error.value, "made for world")


# Results that cannot be written -----------------------------------------------------------------------


@pytest.fixture
def tracker(tmp_path):
    """lm-eval's, completed as the plugin completes it when lm-eval is imported."""
    complete(sys.modules["lm_eval.tasks._index"])  # harmless, if it has happened
    made = EvaluationTracker(output_path=str(tmp_path / "out"))
    yield made
    results_file._trackers.discard(made)


def save(tracker: EvaluationTracker, model: SKEExplicitLM) -> None:
    """What the command does at the end."""
    results = evaluate(model, evaluation_tracker=tracker)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in samples:
        tracker.save_results_samples(task_name=task, samples=samples[task])


def test_results_are_looked_at_after_they_were_written(loaded, tracker, tmp_path):
    save(tracker, loaded)
    assert len(list((tmp_path / "out").rglob("*_*.json*"))) == 2


@pytest.mark.parametrize("file", ["results_", "samples_"])
@pytest.mark.parametrize("how", ["full", "gone"])
def test_results_that_were_not_written_end_the_run(loaded, tracker, monkeypatch, capsys, file, how):
    real = Path.write_text, open

    def full(path: Path, *_: Any, **__: Any) -> int:
        if path.name.startswith(file):
            if how == "full":
                path.write_bytes(b'{"half": ')
            raise OSError(28, "No space left on device")
        return real[0](path, *_, **__)

    if file == "results_":
        monkeypatch.setattr(Path, "write_text", full)
    else:
        monkeypatch.setattr(
            "lm_eval.loggers.evaluation_tracker.sanitize_list",
            lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
    with pytest.raises(UserError) as error:
        save(tracker, loaded)
    one_line(error.value, "could not be written: ")
    assert file in str(error.value)
    assert "|toy_write|" in capsys.readouterr().out.replace(" ", ""), "the table is printed all the same"
    assert not list(Path(tracker.output_path).rglob(f"{file}*")), "nobody takes a broken file for a whole one"


@pytest.mark.parametrize(
    ("path", "message"),
    [("/proc/out", "cannot be written"), (f"{LONG}.json", "too long"), ("{}/file/out", "cannot be written")],
)
def test_an_output_path_that_cannot_be_written_is_found_before_the_model_is_loaded(tmp_path, path, message):
    complete(sys.modules["lm_eval.tasks._index"])
    (tmp_path / "file").write_text("a file, no folder")
    wanted = path.format(tmp_path) if "{}" in path or path.startswith("/") else str(tmp_path / path)
    tracker = EvaluationTracker(output_path=wanted)
    with pytest.raises(UserError) as error:
        SKEExplicitLM.create_from_arg_obj({"pretrained": "/no/model"})
    one_line(error.value, message)
    assert "--output_path" in str(error.value)
    results_file._trackers.discard(tracker)


def test_keys_reach_no_result_and_no_log(tracker, tiny_llama, tmp_path):
    args = {"pretrained": str(tiny_llama), "token": "hf_SECRET", "store": str(tmp_path / "s.sqlite")}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=dict(args))
    results = lm_eval.simple_evaluate(
        model="ske_explicit",
        model_args=args | {"max_knowledge_toks": 8},
        tasks=["toy_write"],
        task_manager=manager,
        device="cpu",
        limit=1,
        evaluation_tracker=tracker,
    )
    tracker.save_results_aggregated(results=results, samples=results.pop("samples"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    assert [path for path in files if b"SECRET" in path.read_bytes()] == []
    assert "SECRET" not in json.dumps(fingerprint("hf", args, served=False))


def test_lm_eval_logs_the_arguments_without_keys():
    message = "Initializing %s model, with arguments: %s"
    args = ("ske_explicit", {"token": "hf_SECRET", "pretrained": "m"})
    record = logging.LogRecord("lm_eval.evaluator", logging.INFO, "", 1, message, args, None)
    assert results_file.WithoutKeys().filter(record)
    assert record.getMessage() == message % ("ske_explicit", "{'token': <hidden>, 'pretrained': 'm'}")


# Through the command ----------------------------------------------------------------------------------


def run(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [LM_EVAL, "--model", "ske_explicit", "--limit", "1", *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"} | env
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("options", "env", "message"),
    [
        (("--tasks", "ske_world_dev"), {"SKE_WORLD_SEED": "2"}, "made for world 94f57b9beb041253, but"),
        (
            ("--tasks", "ske_world_dev", "--output_path", "/proc/out"),
            {},
            "--output_path /proc/out: cannot",
        ),
    ],
)
def test_the_command_ends_in_the_line_and_status_1(tmp_path, options, env, message):
    done = run(*options, XDG_CACHE_HOME=str(tmp_path), **env)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
