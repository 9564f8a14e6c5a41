"""What eval_configs/ske.py asks before anything is loaded: which models and data, and are they there.

    SKE_MODELS=/models/M0,/models/M1 SKE_DATASETS=zero-shot opencompass eval_configs/ske.py

The environment variables are described at the head of eval_configs/ske.py. A mistake in one of them, and
whatever is missing, ends in one line here, before OpenCompass starts its tasks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from opencompass.utils.datasets import DEFAULT_DATA_FOLDER
from opencompass.utils.datasets_info import DATASETS_MAPPING, DATASETS_URL

from ske_models import embedded
from ske_models.errors import UserError
from ske_models.fingerprint import weights
from ske_models.method import METHODS
from ske_models.opencompass.engine import require_vllm

VARIABLES = (
    "SKE_RUN", "SKE_MODELS", "SKE_METHODS", "SKE_DATASETS", "SKE_BACKEND", "SKE_NUM_GPUS", "SKE_PROMPTS",
    "SKE_LAYOUT", "SKE_STORE", "SKE_SLICE",
)  # fmt: skip
BACKENDS = ("hf", "hf-base", "vllm", "vllm-base", "api")
# The datasets of each set, by their names in OpenCompass (opencompass/utils/datasets_info.py).
_SIX = ["opencompass/mmlu", "opencompass/agieval", "opencompass/ai2_arc-easy-dev", "opencompass/ai2_arc-dev"]
DATASETS = {
    "tinyworld": [],
    "zero-shot": [*_SIX, "opencompass/bbh", "opencompass/nq_open"],
    "2024": [*_SIX, "opencompass/bbh", "opencompass/natural_question"],
}


@dataclass(frozen=True)
class Asked:
    """What a run is asked to do. checkpoints: name -> path (or name behind the API).

    command_line: OpenCompass' own `mode`, `max_num_workers`, `slurm` and `partition`.
    """

    checkpoints: dict[str, str]
    methods: list[str]
    datasets: str
    backend: str
    num_gpus: int
    prompts: str
    layout: str
    store: str | None
    embedded: bool
    slice: str
    command_line: argparse.Namespace


def asked(env: Mapping[str, str] = os.environ) -> Asked:
    """Reads the environment variables and some of OpenCompass' own arguments, and checks all of it.

    Raises UserError: a variable is unknown or wrong, a checkpoint, its backend or the data is missing.
    """
    for name in env:
        if name.startswith("SKE_") and name not in VARIABLES and not name.startswith("SKE_LEARN_"):
            raise UserError(f"{name}: no such variable; there are {', '.join(VARIABLES)}")
    given = {name: env[name] for name in VARIABLES if env.get(name)}
    own = "SKE_RUN" in given or "SKE_MODELS" in given
    backend = _one_of("SKE_BACKEND", given.get("SKE_BACKEND", "hf"), BACKENDS)
    methods = [
        _one_of("SKE_METHODS", m, METHODS) for m in _listed(given.get("SKE_METHODS", ",".join(METHODS)))
    ]
    datasets = _one_of(
        "SKE_DATASETS", given.get("SKE_DATASETS", "zero-shot" if own else "tinyworld"), DATASETS
    )
    if not own and datasets != "tinyworld":
        raise UserError(
            f"SKE_DATASETS={datasets}: the embedded model knows only TinyWorld; name models with SKE_MODELS"
        )
    slice_ = given.get("SKE_SLICE", "")
    if not re.fullmatch(r"(\[[\d:,-]*\])?", slice_):
        raise UserError(f"SKE_SLICE={slice_}: a range of items a dataset is needed, such as [:10]")
    command_line = _command_line()
    checkpoints = _checkpoints(given)
    if command_line.mode != "viz":
        if backend != "api":
            for path in checkpoints.values():
                weights(path)
                if not backend.endswith("-base"):
                    _check_chat_template(Path(path), backend)
        if backend.startswith("vllm"):
            require_vllm()
        check_data(DATASETS[datasets], env.get("COMPASS_DATA_CACHE", ""))
    if not own and "OMP_NUM_THREADS" not in env:
        # Threads only slow so small a model down, by far on a machine that is busy. The tasks inherit it.
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    return Asked(
        checkpoints=checkpoints,
        methods=methods,
        datasets=datasets,
        backend=backend,
        num_gpus=_gpus(given.get("SKE_NUM_GPUS"), backend),
        prompts=given.get("SKE_PROMPTS", "default" if own else "world"),
        layout=given.get("SKE_LAYOUT", "single"),
        # SQLite's files must not be written to by several machines: then each job has its own
        store=given.get("SKE_STORE", "outputs/ske-store" if command_line.partition else None),
        embedded=not own,
        slice=slice_,
        command_line=command_line,
    )


def check_data(names: list[str], cache: str) -> None:
    """Raises UserError if OpenCompass would not find a dataset: which, what to download, and where to."""
    if os.environ.get("DATASET_SOURCE"):  # OpenCompass then takes them from there
        return
    missing = [
        local
        for local in (os.path.normpath(DATASETS_MAPPING[name]["local"]) for name in names)
        if not (Path(cache, local).exists() or Path(DEFAULT_DATA_FOLDER, local).exists())
    ]
    if missing:
        urls = sorted({_url(local) for local in missing})
        where = Path(cache or DEFAULT_DATA_FOLDER).resolve() / "data"
        raise UserError(
            f"no data for {len(missing)} of the {len(names)} benchmarks: {', '.join(missing)}; "
            f"download and unzip {' '.join(urls)} into {where}"
            + ("" if cache else ", or set COMPASS_DATA_CACHE to the folder that has data/ in it")
        )


def _url(local: str) -> str:
    """Where OpenCompass has the archive of a dataset."""
    names = sorted((name for name in DATASETS_URL if name in f"/{local}/"), key=len)
    return DATASETS_URL[names[-1]]["url"] if names else "https://github.com/open-compass/opencompass/releases"


def _checkpoints(given: Mapping[str, str]) -> dict[str, str]:
    """Name -> path. A run folder of training/round.py has its checkpoints in folders M0, M1, ..."""
    if "SKE_RUN" in given and "SKE_MODELS" in given:
        raise UserError("SKE_RUN and SKE_MODELS are both set; set one: a run folder, or a list of models")
    if "SKE_RUN" in given:
        run = Path(given["SKE_RUN"]).expanduser()
        found = {path.parent.name: str(path.parent.resolve()) for path in run.glob("**/M[0-9]/config.json")}
        if not found:
            raise UserError(f"SKE_RUN={run}: no checkpoints in it (folders M0, M1, ... with a config.json)")
        return dict(sorted(found.items()))
    if "SKE_MODELS" not in given:
        return {"M0": str(embedded.path("M0"))}
    checkpoints: dict[str, str] = {}
    for entry in _listed(given["SKE_MODELS"]):
        name, _, path = entry.rpartition("=")
        folder = Path(path).expanduser()
        place = str(folder.resolve()) if folder.is_dir() else path
        name = name or path.rstrip("/").rpartition("/")[2]
        if checkpoints.setdefault(name, place) != place:
            raise UserError(f"SKE_MODELS: two models are called {name}; write NAME=PATH,NAME=PATH")
    return checkpoints


def _check_chat_template(folder: Path, backend: str) -> None:
    """A name on the Hub is not looked up here. Raises UserError if a folder's tokenizer has no template."""
    settings = folder / "tokenizer_config.json"
    inside = settings.is_file() and "chat_template" in json.loads(settings.read_text(encoding="utf-8"))
    if folder.is_dir() and not inside and not (folder / "chat_template.jinja").is_file():
        raise UserError(f"{folder}: no chat template; for a base model set SKE_BACKEND={backend}-base")


def _gpus(given: str | None, backend: str) -> int:
    """GPUs of one task. Without a word: one, if there is any; a model behind an API needs none here."""
    if given is not None:
        if not given.isdigit():
            raise UserError(f"SKE_NUM_GPUS={given}: a whole number is needed")
        return int(given)
    return int(torch.cuda.is_available() and backend != "api")


def _command_line() -> argparse.Namespace:
    """What of OpenCompass' own arguments the config has to follow: it comes before they are applied."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", "-m", default="all")
    parser.add_argument("--max-num-workers", type=int, default=1)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--partition", "-p")
    return parser.parse_known_args(sys.argv[1:])[0]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _one_of(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise UserError(f"{name}={value}: unknown; one of: {', '.join(known)}")
    return value
