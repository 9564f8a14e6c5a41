"""A checkpoint of a run as the engine that writes its texts: any of lm-eval's backends.

    from training.engine import load_engine
    engine = load_engine(folder, 1, windows=1)[0]            # M1
    settings = engine.settings(256, "synthesize", 2, 0)   # right before the call that they are for

A model behind an API is requested by the name of its checkpoint, unless `generation.args` has a `model`, so
that a server that still has the last round's model refuses:

    vllm serve runs/paper/M1 --served-model-name M1

With `generation.serve` the run starts such servers itself (training/serving/); what is written is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import model_registry
from lm_eval.models.api_models import TemplateAPI

from ske_models.engines.servers import Servers
from ske_models.errors import UserError, one_of
from ske_models.fingerprint import NOT_IDENTITY, digest, weights
from ske_models.lm_eval.backend import TRANSFORMERS, backend_class, load, placed
from ske_models.lm_eval.engine import LMEvalEngine
from ske_models.records import Done, Request
from training.data.journal import Journal
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.serving.where import urls
from training.settings.secret import revealed

# Windows that servers have at a time: the next one fills the gaps that the last texts of one leave.
SIDE_BY_SIDE = 2


class CheckpointEngine(LMEvalEngine):
    """lm-eval's backend with one checkpoint in it. `name`: what an error calls it."""

    def __init__(self, inner: LM, recipe: Recipe, name: str) -> None:
        super().__init__(inner, quiet=True)
        self.recipe = recipe
        self.name = name

    def settings(self, limit: int, *parts: str | int) -> dict[str, Any]:
        """The settings of one call of the backend: at most `limit` tokens, at the recipe's temperature.

        Samples are drawn from the model's own distribution (no top-k, no top-p), with random numbers that
        follow from the recipe's seed and `parts`: the same call, given again, writes the same texts.
        transformers takes them from torch's generator, which this sets; so get the settings right before.
        Raises UserError if the limit leaves a model no room for a prompt.
        """
        by_transformers = self.recipe.generation.backend in TRANSFORMERS
        if by_transformers and limit >= self.inner.max_length:
            raise UserError(
                f"generation: {limit} tokens may be written, but {self.name} has room for "
                f"{self.inner.max_length}, prompt included; lower the limit"
            )
        temperature = self.recipe.generation.temperature
        common = {"until": [], "max_gen_toks": limit, "temperature": temperature}
        if temperature == 0:
            return common | {"do_sample": False}
        seed = int(digest([self.recipe.seed, *parts]), 16) % 2**31
        if by_transformers:
            torch.manual_seed(seed)
            return common | {"do_sample": True, "top_p": 1.0, "top_k": 0}
        return common | {"do_sample": True, "top_p": 1.0, "seed": seed}


class ServedEngine(CheckpointEngine):
    """The same for servers, whose texts are kept one by one (`data/journal.py`)."""

    def __init__(self, inner: LM, recipe: Recipe, name: str, journal: Journal) -> None:
        super().__init__(inner, recipe, name)
        self.journal = journal

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        """As CheckpointEngine's; what an earlier start of the stage has finished is not generated again."""
        return self.journal.generate(super().generate, requests, done)


def endpoints(folder: RunFolder, n: int) -> list[str]:
    """The base URLs of the servers that have M`n`. Raises UserError if there are none."""
    generation = folder.recipe.generation
    if generation.serve:
        return urls(f"M{n}")
    if not generation.endpoints:
        raise UserError(
            f"generation.endpoints: backend {generation.backend} needs at least one, as in "
            "endpoints: [http://localhost:8000/v1]; or serve: {}, and the run starts vllm serve itself"
        )
    return generation.endpoints


def load_engine(folder: RunFolder, n: int, windows: int) -> list[CheckpointEngine]:
    """Engines with M`n` in them, to be used side by side; two for servers, if there are two windows.

    Each uses all servers, with its share of the prompts that a server has at a time: so a server that dies
    takes no window with it, and one window's last texts leave no server idle.
    Raises UserError: no such checkpoint or backend, no chat template, an argument that the backend does not
    know, endpoints for a backend that has none or none for one that needs them.
    """
    generation = folder.recipe.generation
    one_of("generation.backend", generation.backend, sorted(set(model_registry) - {"ske_explicit"}))
    model_class = backend_class(generation.backend)
    args = placed(generation.backend, revealed(generation.args))
    if not issubclass(model_class, TemplateAPI):
        checkpoint = folder.checkpoint(n)
        if generation.endpoints:
            raise UserError(
                f"generation.endpoints: backend {generation.backend} loads the model itself; remove them, or "
                "use backend: local-chat-completions"
            )
        if not (checkpoint / "config.json").is_file():
            raise UserError(f"{checkpoint}: no checkpoint; it is made by round {n}")
        if generation.backend == "vllm":
            args.setdefault("batch_size", "auto")  # lm-eval's default of 1 sends one prompt at a time
        args["pretrained"] = str(checkpoint)
        inner = load(model_class, generation.backend, args, ())
        if inner.chat_template(True) is None:
            raise UserError(f"{checkpoint}: has no chat template; start from a chat model")
        return [CheckpointEngine(inner, folder.recipe, str(checkpoint))]
    places = endpoints(folder, n)
    args = {"model": f"M{n}"} | args
    engines = max(min(windows, SIDE_BY_SIDE), 1)
    concurrent = int(args.get("num_concurrent", Servers.concurrent))
    args["num_concurrent"] = max(concurrent // engines, 1)
    args["base_url"] = ";".join(revealed(places))
    if generation.backend == "local-completions" and folder.checkpoint(n).is_dir():
        args.setdefault("tokenizer", str(folder.checkpoint(n)))
    journal = Journal(folder.round(n + 1), digest(identity(folder, n)))
    return [
        ServedEngine(
            load(model_class, generation.backend, args, ()), folder.recipe, ";".join(places), journal
        )
        for _ in range(engines)
    ]


def identity(folder: RunFolder, n: int) -> dict[str, Any]:
    """What the texts of M`n` follow from, for the key of their parts: model, settings, prompts; no address.

    The examples of few-shot prompts are left out: whoever shows them adds their hash.
    """
    generation = folder.recipe.generation.model_dump(
        mode="json", exclude={"endpoints", "serve", "args", "shots"}, exclude_none=True
    )
    args = {name: value for name, value in folder.recipe.generation.args.items() if name not in NOT_IDENTITY}
    checkpoint = folder.checkpoint(n)
    return {
        "checkpoint": f"M{n}",
        "weights": weights(str(checkpoint))
        if checkpoint.is_dir()
        else None,  # a server may have the only copy
        "generation": generation | {"args": args},
        "prompts": folder.prompts.hash,
        "layout": folder.recipe.layout,
        "seed": folder.recipe.seed,
    }
