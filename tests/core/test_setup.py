"""The one set-up of both harnesses: which store a `store` argument means, and when a store is claimed."""

from __future__ import annotations

import pytest

from ske_models.errors import UserError
from ske_models.files import cache_folder
from ske_models.setup import Setup, store_path
from ske_models.store import Store

MODEL = {"backend": "hf", "weights": "1"}


@pytest.mark.parametrize("none", ["none", "None", "NONE", None])
def test_none_in_any_spelling_keeps_nothing(none):
    assert store_path(none, MODEL) is None


def test_the_default_store_is_one_per_model(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    mine, other = store_path("default", MODEL), store_path("default", MODEL | {"weights": "2"})
    assert mine is not None
    assert mine.parent == cache_folder() == tmp_path / "ske-learn"
    assert mine != other


def bound(store, model, **changes):
    arguments = {"method": "explicit", "layout": "single", "prompts": "default", "store": store}
    setup = Setup(**(arguments | {"knowledge": None, "max_knowledge_toks": None} | changes))
    setup.bind(model)
    return setup


def test_a_run_that_loads_no_model_claims_no_store(tmp_path):
    path = tmp_path / "s.sqlite"
    bound(path, MODEL | {"pretrainde": "x"})  # the backend refuses the argument after this
    bound(path, MODEL).store.put("1", "knowledge", "p", "q", "k")
    with pytest.raises(UserError, match="weights is '1', not '2'"):
        bound(path, MODEL | {"weights": "2"})


def test_a_store_that_another_model_claimed_meanwhile_hands_out_nothing(tmp_path):
    late = bound(tmp_path / "s.sqlite", MODEL | {"weights": "2"}).store
    Store(tmp_path / "s.sqlite", MODEL).put("1", "knowledge", "p", "q", "k")
    with pytest.raises(UserError, match="weights is '1', not '2'"):
        late.get("1")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "explicitly"}, "method=explicitly: unknown; one of: direct, cot, explicit"),
        ({"layout": "double"}, "layout=double: unknown"),
        ({"prompts": "my.yaml"}, "prompts=my.yaml: no such file"),
        ({"max_knowledge_toks": 0}, "max_knowledge_toks=0: a whole number of at least 1"),
        ({"knowledge": "k.jsonl", "method": "direct"}, "method=direct has no knowledge step"),
        ({"knowledge": "/no/k.jsonl"}, "knowledge=/no/k.jsonl: cannot be read"),
    ],
)
def test_a_wrong_argument_is_named(changed, message):
    with pytest.raises(UserError, match=message):
        bound("none", MODEL, **changed)
