"""What counts as the same model: contents, not names or times; and no key in a store."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ske_models.errors import UserError
from ske_models.fingerprint import NOT_IDENTITY, fingerprint, weights
from ske_models.secrets import Secret, hide, masked


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"one" * 1000)
    return folder


def of(args, **options):
    return fingerprint("hf", {"dtype": "float32"} | args, served=False, **options)


def test_weights_that_were_replaced_are_told_apart(checkpoint):
    before = weights(str(checkpoint))
    assert weights(str(checkpoint)) == before
    (checkpoint / "README.md").write_text("A card says something about a model, and is none.")
    (checkpoint / ".cache").mkdir()
    (checkpoint / ".cache" / "download.lock").write_text("of the hub's client")
    assert weights(str(checkpoint)) == before
    old = (checkpoint / "model.safetensors").stat()
    (checkpoint / "model.safetensors").write_bytes(b"two" * 1000)
    os.utime(checkpoint / "model.safetensors", ns=(old.st_atime_ns, old.st_mtime_ns))
    assert weights(str(checkpoint)) != before, "same name, size and time"


def test_a_copy_is_the_same_model_wherever_it_is(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "model.safetensors", (1, 1))
    link = tmp_path / "link"
    link.symlink_to(checkpoint)
    mine = of({"pretrained": str(checkpoint)})
    assert of({"pretrained": str(tmp_path / "copy")}) == of({"pretrained": str(link)}) == mine
    assert str(tmp_path) not in json.dumps(mine)


@pytest.mark.parametrize(
    "name", ["peft", "lora_local_path", "delta", "tokenizer", "pretrained", "quantization_param_path"]
)
def test_every_local_path_counts_by_its_content(checkpoint, tmp_path, name):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"first")
    args = {"pretrained": str(checkpoint)} | {name: str(adapter)}
    first = of(args)
    (adapter / "adapter_model.safetensors").write_bytes(b"again")
    assert of(args) != first


def test_a_file_is_a_model_too_and_of_a_folder_only_the_gguf_file_that_is_named(checkpoint):
    (checkpoint / "a.gguf").write_bytes(b"a")
    (checkpoint / "b.gguf").write_bytes(b"b")
    named = of({"pretrained": str(checkpoint), "gguf_file": "a.gguf"})
    (checkpoint / "b.gguf").write_bytes(b"other")
    assert of({"pretrained": str(checkpoint), "gguf_file": "a.gguf"}) == named
    (checkpoint / "a.gguf").write_bytes(b"other")
    assert of({"pretrained": str(checkpoint), "gguf_file": "a.gguf"}) != named
    assert of({"pretrained": str(checkpoint / "a.gguf")}) == of({"pretrained": str(checkpoint / "b.gguf")})


def test_a_file_that_has_not_changed_is_not_read_again(checkpoint, tmp_path):
    read = weights(str(checkpoint))
    remembered = list((tmp_path / "cache" / "ske-learn" / "hashes").iterdir())
    assert len(remembered) == 2
    for file in remembered:
        file.write_text("0123456789abcdef")
    assert weights(str(checkpoint)) != read, "what is remembered is taken"
    for file in remembered:
        file.unlink()
    assert weights(str(checkpoint)) == read


@pytest.mark.parametrize(
    "setting",
    [
        {"max_num_seqs": 64},
        {"max_num_batched_tokens": 2048},
        {"enforce_eager": True},
        {"swap_space": 8},
        {"gpu_memory_utilization": 0.5},
        {"tensor_parallel_size": 2},
        {"batch_size": 8},
        {"device": "cuda:1"},
        {"num_concurrent": 8},
        {"token": "hf_abc"},
        {"auth_token": "abc"},
        {"header": {"Authorization": "Bearer abc"}},
        {"revision": None},
    ],
)
def test_how_fast_and_for_whom_is_no_identity(checkpoint, setting):
    assert of({"pretrained": str(checkpoint)} | setting) == of({"pretrained": str(checkpoint)})


@pytest.mark.parametrize(
    "setting", [{"dtype": "bfloat16"}, {"enable_thinking": False}, {"quantization": "awq"}]
)
def test_what_changes_a_text_is_identity(checkpoint, setting):
    assert of({"pretrained": str(checkpoint)} | setting) != of({"pretrained": str(checkpoint)})


def test_a_length_is_identity_only_where_cut_prompts_are_not_known(checkpoint):
    args = {"pretrained": str(checkpoint)}
    for name in ("max_length", "max_model_len"):
        assert of(args | {name: 4096}, cuts_known=True) == of(args, cuts_known=True)
        assert of(args | {name: 4096}) != of(args)


def test_numbers_are_the_same_as_text(checkpoint):
    assert of({"pretrained": str(checkpoint), "max_lora_rank": 16}) == of(
        {"pretrained": str(checkpoint), "max_lora_rank": "16"}
    )


def test_a_place_that_is_none_is_named_with_its_argument(checkpoint):
    with pytest.raises(UserError, match="peft=/no/such: no such folder"):
        of({"pretrained": str(checkpoint), "peft": "/no/such"})


def test_a_server_is_known_by_address_and_name_without_the_password_in_it():
    args = {"model": "M1", "base_url": "http://me:secret@host:8000/v1", "auth_token": "abcdef"}
    found = fingerprint("local-chat-completions", args, served=True)
    assert found == {
        "backend": "local-chat-completions",
        "model": "M1",
        "base_url": "http://<hidden>@host:8000/v1",
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"token": "abc", "pretrained": "m"}, {"token": "<hidden>", "pretrained": "m"}),
        ({"token": True, "auth_token": None}, {"token": True, "auth_token": None}),
        ({"header": {"Authorization": "Bearer abc"}}, {"header": "<hidden>"}),
        ({"args": [{"api_key": "abc"}]}, {"args": [{"api_key": "<hidden>"}]}),
        ("pretrained=m,token=abc,dtype=auto", "pretrained=m,token=<hidden>,dtype=auto"),
        ("{'pretrained': 'm', 'auth_token': 'abc'}", "{'pretrained': 'm', 'auth_token': <hidden>}"),
        ("header={'Authorization': 'Bearer abc'},model=m", "header=<hidden>,model=m"),
        ("http://me:pw@a/v1;http://b/v1", "http://<hidden>@a/v1;http://b/v1"),
        ("tokenizer=m,max_tokens=5", "tokenizer=m,max_tokens=5"),
        ("http://a/v1?access_token=abc&n=1", "http://a/v1?access_token=<hidden>"),
        ("https://a/v1?n=1&subscription-key=abc", "https://a/v1?n=1&subscription-key=<hidden>"),
        ({"api-key": "abc"}, {"api-key": "<hidden>"}),
        ("think_end_token=</think>", "think_end_token=</think>"),
    ],
)
def test_keys_are_masked_in_arguments_of_any_form(value, shown):
    assert masked(value) == shown


def test_a_hidden_key_still_works():
    args = {"token": "abc", "model": "m", "header": {"Authorization": "Bearer abc"}, "parallelize": True}
    hide(args)
    hidden = "'<hidden>'"
    shown = f"'token': {hidden}, 'model': 'm', 'header': {{'Authorization': {hidden}}}, 'parallelize': True"
    assert repr(args) == f"{{{shown}}}"
    assert (args["token"], type(args["token"])) == ("abc", Secret)


def test_the_documented_list_is_the_list():
    page = (Path(__file__).parents[2] / "docs" / "lm-eval.md").read_text(encoding="utf-8")
    table = page[page.index("### What is the same model") :]
    missing = [name for name in sorted(NOT_IDENTITY) if f"`{name}`" not in table]
    assert missing == []


def test_a_server_whose_weights_are_named_is_known_by_these(tmp_path):
    def of(folder: Path, url: str, **more: str) -> dict:
        args = {"pretrained": str(folder), "base_url": url} | more
        return fingerprint("local-chat-completions", args, served=True)

    for name, content in (("one", b"weights"), ("copy", b"weights"), ("other", b"other weights")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    first = of(tmp_path / "one", "http://a:1/v1", model="M1")
    assert of(tmp_path / "copy", "http://b:2/v1;http://c:3/v1", model="M1") == first
    assert of(tmp_path / "other", "http://a:1/v1", model="M1") != first
    assert of(tmp_path / "one", "http://a:1/v1") != of(tmp_path / "one", "http://b:2/v1")
