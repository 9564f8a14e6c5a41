"""lm-eval's backends, loaded: which class, with which arguments, and one line for whatever does not load.

backend = load(backend_class("hf"), "hf", {"pretrained": "ORG/NAME"}, ours=())

Used by the lm-eval adapter and by the rounds (training/engine.py). LOGLEVEL=DEBUG shows an error's traceback.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import get_model
from lm_eval.models.api_models import TemplateAPI

from ske_models.engines.overheard import last_error, overheard
from ske_models.errors import UserError, at_least_one
from ske_models.files import user_path
from ske_models.lm_eval.continuous import Continuous
from ske_models.lm_eval.served import served
from ske_models.loading import reason
from ske_models.secrets import masked

log = logging.getLogger(__name__)

TRANSFORMERS = ("hf", "hf-auto", "huggingface")  # lm-eval's names of one class


def backend_class(backend: str) -> type[LM]:
    """lm-eval's class of that name. Raises UserError if a package that it needs is not installed."""
    try:
        return get_model(backend)
    except ImportError as error:
        extra = "; pip install 'ske-learn[vllm]'" if backend == "vllm" else ""
        raise UserError(f"backend={backend}: cannot be imported ({error}){extra}") from error


def complete(backend: str, args: dict[str, Any]) -> dict[str, Any]:
    """The arguments with what lm-eval wants in another form, or has a slow default for.

    pretrained=FILE.gguf is its folder and `gguf_file`. Raises UserError where the backend cannot read it, or
    for a number of engines that is none.
    """
    args = dict(args)
    at_least_one("data_parallel_size", args.get("data_parallel_size"))
    named = str(args.get("pretrained"))
    file = user_path(named, f"pretrained={named}")
    if file.suffix == ".gguf" and backend in (*TRANSFORMERS, "vllm"):
        if backend == "vllm":
            raise UserError(
                f"pretrained={file}: lm-eval's vllm reads no GGUF file; use backend=hf, or `vllm serve` and "
                "backend=local-chat-completions"
            )
        if not file.is_file():
            raise UserError(f"pretrained={file}: no such file")
        args |= {"pretrained": str(file.parent), "gguf_file": file.name}
    if backend == "vllm" and str(args.get("batch_size", 1)) == "1":
        args["batch_size"] = "auto"  # lm-eval's default sends one prompt at a time: no continuous batching
    return args


def placed(backend: str, args: dict[str, Any]) -> dict[str, Any]:
    """A backend's arguments, with the device where there are none but CPUs: lm-eval's hf expects CUDA."""
    if backend not in TRANSFORMERS:
        return args
    import torch

    return args if torch.cuda.is_available() else {"device": "cpu"} | args


def load(model_class: type[LM], backend: str, args: dict[str, Any], ours: Sequence[str]) -> LM:
    """The backend with its model in it; servers as in `served.py`, vLLM as in `vllm.py`, hf as in `hf.py`.

    Raises UserError if that does not work: a package is missing, an argument unknown, a file broken, ...
    ours: the arguments that whoever calls this takes itself, to be named with an unknown one.
    """
    inner = _loaded(_ours(model_class, backend, args), backend, args, ours)
    if inner.world_size > 1:
        _settle_batch_size(inner)
    return inner


def _loaded(model_class: type[LM], backend: str, args: dict[str, Any], ours: Sequence[str]) -> LM:
    try:
        if backend != "vllm":
            return model_class.create_from_arg_obj(args)
        with overheard() as said:
            return model_class.create_from_arg_obj(args)
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"backend={backend}: {error}") from error
    except TypeError as error:
        if "keyword argument" not in str(error) and "positional argument" not in str(error):
            raise _cannot_load(backend, args, reason(error), error) from error
        own = f"; ours are: {', '.join(ours)}" if ours else ""
        raise UserError(f"backend={backend}: {str(error).splitlines()[0]}{own}") from error
    except Exception as error:
        # whatever a model's files can raise, in any of the libraries that read them
        why = reason(error)
        if backend == "vllm":
            from ske_models.lm_eval.vllm import refusal

            why = refusal(error, last_error(said)) or why
        raise _cannot_load(backend, args, why, error) from error


def _settle_batch_size(inner: LM) -> None:
    """Finds what `batch_size=auto` means for all processes that share the questions, while all are here.

    lm-eval asks all of them for it, each time that one generates. One that finds its share in the store never
    does, and the others would wait for it forever.
    """
    from lm_eval.models.huggingface import HFLM

    if isinstance(inner, HFLM) and inner.batch_size == "auto":
        inner.batch_size_per_gpu = inner._detect_batch_size()


def _ours(model_class: type[LM], backend: str, args: dict[str, Any]) -> type[LM]:
    """The class that does the same with what a long run needs."""
    if issubclass(model_class, TemplateAPI):
        return served(model_class)
    if backend == "vllm" and int(args.get("data_parallel_size", 1)) == 1:
        from ske_models.lm_eval.vllm import ContinuousVLLM

        return ContinuousVLLM
    if backend in TRANSFORMERS:
        from ske_models.lm_eval.hf import ContinuousHF

        return ContinuousHF
    return model_class


def _cannot_load(backend: str, args: dict[str, Any], why: str, error: Exception) -> UserError:
    log.debug("backend=%s", backend, exc_info=error)
    named = {
        name: args[name] for name in ("pretrained", "model", "gguf_file", "peft", "delta") if name in args
    }
    what = ", ".join(f"{name}={value}" for name, value in named.items()) or "its model"
    return UserError(f"backend={backend}: cannot load {masked(what)}: {masked(why)}")


def end_loops(inner: LM, backend: str) -> None:
    """The backend ends texts that only repeat themselves, from here on. Raises UserError if it cannot."""
    if not isinstance(inner, Continuous):
        raise UserError(f"stop_loops=True: backend={backend} has no such end; hf, vllm and `vllm serve` do")
    inner.end_loops()


def take_thought_end(inner: LM, token: str | int | None) -> str | None:
    """The text that ends a thought, from lm-eval's `think_end_token` (a text, or transformers' token id).

    The backend does not cut there any more: texts are measured and stored whole, and cut when they are used.
    """
    if token is None:
        return None
    inner.think_end_token = None
    if not str(token).isdigit():
        return str(token)
    from ske_models.lm_eval.hf import ContinuousHF

    assert isinstance(inner, ContinuousHF), "no other backend of lm-eval takes a token id"
    return inner.show(int(token))
