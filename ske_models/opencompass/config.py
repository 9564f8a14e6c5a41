"""What eval_configs/ske.py reads before anything is loaded: which models and data, and whether they exist.

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
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from opencompass.utils.datasets import DEFAULT_DATA_FOLDER
from opencompass.utils.datasets_info import DATASETS_MAPPING, DATASETS_URL

from ske_models import embedded
from ske_models.engines.servers import checked
from ske_models.errors import UserError, one_of
from ske_models.fingerprint import weights
from ske_models.interrupt import ends_in_a_line
from ske_models.method import LAYOUTS, METHODS
from ske_models.opencompass import resume
from ske_models.opencompass.engine import require_vllm
from ske_models.prompts import load as load_prompts
from ske_models.setup import DEFAULT_STORE

VARIABLES = (
    "SKE_RUN", "SKE_MODELS", "SKE_METHODS", "SKE_DATASETS", "SKE_BACKEND", "SKE_NUM_GPUS", "SKE_PROMPTS",
    "SKE_LAYOUT", "SKE_STORE", "SKE_SLICE", "SKE_WORLD_SEED",
)  # fmt: skip
BACKENDS = ("hf", "hf-base", "vllm", "vllm-base", "api")
# The datasets of each set, by their names in OpenCompass (opencompass/utils/datasets_info.py).
_SIX = ["opencompass/mmlu", "opencompass/agieval", "opencompass/ai2_arc-easy-dev", "opencompass/ai2_arc-dev"]
DATASETS = {
    "tinyworld": [],
    "zero-shot": [*_SIX, "opencompass/bbh", "opencompass/nq_open"],
    "2024": [*_SIX, "opencompass/bbh", "opencompass/natural_question"],
}
_NAME = re.compile(r"[\w+][\w.:@+-]{0,79}")  # of a model: part of the names of files and folders
_SLICE = re.compile(r"\[(-?[0-9]{1,9})?:(-?[0-9]{1,9})?\]")  # [:10], [100:200], [-5:]


@dataclass(frozen=True)
class Requested:
    """What a run is to do. checkpoints: name -> path (or name behind the API).

    store: a folder; "none": nothing on disk; "default": a file per model in ~/.cache/ske-learn.
    command_line: OpenCompass' own `mode`, `max_num_workers`, `slurm`, `partition`, `reuse` and `work_dir`.
    """

    checkpoints: dict[str, str]
    methods: list[str]
    datasets: str
    backend: str
    num_gpus: int
    prompts: str
    layout: str
    store: str
    embedded: bool
    slice: str
    world_seed: str
    command_line: argparse.Namespace

    @property
    def asked(self) -> dict[str, str]:
        """What the results depend on, by variable: OpenCompass keeps it, `-r` compares it."""
        return {
            **{f"SKE_MODELS={name}": path for name, path in self.checkpoints.items()},
            "SKE_DATASETS": self.datasets,
            "SKE_BACKEND": self.backend,
            "SKE_PROMPTS": f"{self.prompts} {load_prompts(self.prompts).hash[:12]}",
            "SKE_LAYOUT": self.layout,
            "SKE_SLICE": self.slice or "[:]",
            "SKE_WORLD_SEED": self.world_seed,
        }

    def store_of(self, entry: str) -> str:
        """The `store` of a model entry, by its name: in a folder, each has a file of its own."""
        return self.store if self.store in ("none", DEFAULT_STORE) else f"{self.store}/{entry}.sqlite"


def begin() -> Requested:
    """`requested`, for the config: from here on an interrupt ends in a line. Raises UserError as it does."""
    if not _command_line().partition:  # with Slurm, its jobs are OpenCompass' to end
        ends_in_a_line(lambda: "no task was started; give the same command again")
    return requested()


def requested(env: Mapping[str, str] = os.environ) -> Requested:
    """Reads the environment variables and some of OpenCompass' own arguments, and checks all of it.

    Raises UserError: a variable is unknown or wrong; the run of `-r` is missing or another; a checkpoint,
    its backend or the data is missing.
    """
    given = _given(env)
    command_line = _command_line()
    own = "SKE_RUN" in given or "SKE_MODELS" in given
    backend = _one_of("SKE_BACKEND", given.get("SKE_BACKEND", "hf"), BACKENDS)
    datasets = _one_of(
        "SKE_DATASETS", given.get("SKE_DATASETS", "zero-shot" if own else "tinyworld"), DATASETS
    )
    if not own and (datasets, backend) not in (("tinyworld", "hf"), ("tinyworld", "vllm")):
        raise UserError(
            f"SKE_DATASETS={datasets} SKE_BACKEND={backend}: the embedded model answers TinyWorld's "
            "questions, with hf or vllm; name other models with SKE_MODELS"
        )
    run = Requested(
        checkpoints=_checkpoints(given),
        methods=[_one_of("SKE_METHODS", m, METHODS) for m in _listed("SKE_METHODS", given, METHODS)],
        datasets=datasets,
        backend=backend,
        num_gpus=_gpus(given.get("SKE_NUM_GPUS"), backend, command_line),
        prompts=given.get("SKE_PROMPTS", "default" if own else "world"),
        layout=_one_of("SKE_LAYOUT", given.get("SKE_LAYOUT", "single"), LAYOUTS),
        store=_store(given.get("SKE_STORE"), command_line),
        embedded=not own,
        slice=_slice(given.get("SKE_SLICE", "")),
        world_seed=given.get("SKE_WORLD_SEED", "0"),
        command_line=command_line,
    )
    _check_prompts(run)
    if command_line.reuse:
        resume.check(Path(command_line.work_dir), command_line.reuse, run.asked)
    if command_line.mode != "viz":
        _check_models(run, env)
        check_data(DATASETS[datasets], env.get("COMPASS_DATA_CACHE", ""))
    if not own and "OMP_NUM_THREADS" not in env:
        # Threads only slow so small a model down, by far on a machine that is busy. The tasks inherit it.
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.set_num_threads(1)
    return run


def _given(env: Mapping[str, str]) -> dict[str, str]:
    """Our variables. Raises UserError for one that is unknown or empty."""
    given = {name: value for name, value in env.items() if name.startswith("SKE_")}
    for name, value in given.items():
        if name not in VARIABLES and not name.startswith("SKE_LEARN_"):
            raise UserError(f"{name}: no such variable; these are known: {', '.join(VARIABLES)}")
        if not value.strip(", \t\r\n"):
            raise UserError(f"{name} is empty; give it a value, or unset it")
    seed = given.get("SKE_WORLD_SEED", "0")
    if not re.fullmatch(r"[0-9]{1,18}", seed):
        raise UserError(f"SKE_WORLD_SEED={seed}: a whole number is needed")
    return given


def _slice(text: str) -> str:
    """Raises UserError if a slice is none that OpenCompass can take, or holds no item."""
    found = _SLICE.fullmatch(text) if text else None
    if text and not found:
        raise UserError(f"SKE_SLICE={text}: a range of items per dataset is needed, such as [:10] or [10:20]")
    if found:
        start, stop = (int(found[1] or 0), None if found[2] is None else int(found[2]))
        if stop is not None and (start < 0) == (stop < 0) and start >= stop:
            raise UserError(f"SKE_SLICE={text}: holds no item; the second number must be larger")
    return text


def _store(text: str | None, command_line: argparse.Namespace) -> str:
    """Raises UserError if the folder is none that can be written to."""
    if text is None:
        # SQLite's files must not be written to by several machines: with Slurm each job has its own
        return "outputs/ske-store" if command_line.partition else DEFAULT_STORE
    if text.lower() == "none":
        return "none"
    try:
        folder = Path(text).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError) as error:
        raise UserError(f"SKE_STORE={text}: cannot be made a folder: {_reason(error)}") from error
    if not writable:
        raise UserError(f"SKE_STORE={text}: cannot be written to; give another folder")
    return str(folder)


def _check_prompts(run: Requested) -> None:
    """Raises UserError if prompt set or layout are wrong, or do not go with the models."""
    prompts = load_prompts(run.prompts)
    if run.embedded and prompts.hash != load_prompts("world").hash:
        raise UserError(
            f"SKE_PROMPTS={run.prompts}: the embedded model knows only `world`; name others with SKE_MODELS"
        )
    if run.layout == "multiturn" and run.backend.endswith("-base"):
        raise UserError(
            f"SKE_LAYOUT=multiturn needs a conversation, SKE_BACKEND={run.backend} is for base models"
        )


def _check_models(run: Requested, env: Mapping[str, str]) -> None:
    """Raises UserError if a checkpoint or what runs it is missing."""
    if run.backend == "api":
        if not env.get("OPENAI_API_KEY"):
            raise UserError("SKE_BACKEND=api: set OPENAI_API_KEY; any word will do for a server without keys")
        checked("OPENAI_BASE_URL", env.get("OPENAI_BASE_URL", "https://api.openai.com/v1"))
        return
    for path in run.checkpoints.values():
        weights(path)
        if not run.backend.endswith("-base"):
            _check_chat_template(Path(path), run.backend)
    if run.backend.startswith("vllm"):
        require_vllm()


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
        run = _expanded("SKE_RUN", given["SKE_RUN"])
        folders = [path.parent for path in run.glob("M*/config.json")]
        found = [folder for folder in folders if re.fullmatch("M(0|[1-9][0-9]*)", folder.name)]
        if not found:
            runs = sorted({str(path.parents[1]) for path in run.glob("*/M*/config.json")})
            more = f"; give one of the runs in it: {', '.join(runs[:5])}" if runs else ""
            what = "no checkpoints in it (folders M0, M1, ... with a config.json)"
            raise UserError(f"SKE_RUN={run}: {what}{more}")
        return {folder.name: str(folder.resolve()) for folder in sorted(found, key=lambda f: int(f.name[1:]))}
    if "SKE_MODELS" not in given:
        return {"M0": str(embedded.path("M0"))}
    checkpoints: dict[str, str] = {}
    for entry in _listed("SKE_MODELS", given, ()):
        name, _, path = entry.rpartition("=")
        folder = _expanded("SKE_MODELS", path)
        place = str(folder.resolve()) if folder.is_dir() else path
        name = name or path.rstrip("/").rpartition("/")[2]
        if not path or not _NAME.fullmatch(name):
            raise UserError(
                f"SKE_MODELS: {entry[:200]!r}: write NAME=PATH; a name has up to 80 letters, digits, .:@+-_"
            )
        if checkpoints.setdefault(name, place) != place:
            raise UserError(f"SKE_MODELS: two models are called {name}; write NAME=PATH,NAME=PATH")
    return checkpoints


def _expanded(variable: str, text: str) -> Path:
    """Raises UserError for a path that cannot be one."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long; no such user
        raise UserError(f"{variable}={text[:200]}: {_reason(error)}") from error
    return path


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _check_chat_template(folder: Path, backend: str) -> None:
    """A name on the Hub is not looked up here. Raises UserError if a folder's tokenizer has no template."""
    settings = folder / "tokenizer_config.json"
    try:
        inside = settings.is_file() and "chat_template" in json.loads(settings.read_text(encoding="utf-8"))
    except (ValueError, TypeError, OSError) as error:
        raise UserError(f"{settings}: broken: {error}") from error
    if folder.is_dir() and not inside and not (folder / "chat_template.jinja").is_file():
        raise UserError(f"{folder}: no chat template; for a base model set SKE_BACKEND={backend}-base")


def _gpus(given: str | None, backend: str, command_line: argparse.Namespace) -> int:
    """GPUs of one task. Without a number: one, if there is any; a model behind an API needs none here."""
    here = torch.cuda.device_count()
    if given is None:
        return int(here > 0 and backend != "api")
    if not re.fullmatch(r"[0-9]{1,4}", given):
        raise UserError(f"SKE_NUM_GPUS={given}: a whole number is needed, 0 or more")
    if int(given) > here and not command_line.partition:
        raise UserError(f"SKE_NUM_GPUS={given}: this machine has {here}")
    return int(given)


def _command_line() -> argparse.Namespace:
    """What of OpenCompass' own arguments the config has to follow: it comes before they are applied.

    Raises UserError for what OpenCompass 0.5.4 would end with a traceback at.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", "-m", default="all")
    parser.add_argument("--max-num-workers", type=int, default=1)
    parser.add_argument("--slurm", action="store_true")
    parser.add_argument("--partition", "-p")
    parser.add_argument("--reuse", "-r", nargs="?", const="latest")
    parser.add_argument("--work-dir", "-w", default="outputs/ske")
    parser.add_argument("--read-from-station", action="store_true")
    found = parser.parse_known_args(sys.argv[1:])[0]
    if found.max_num_workers < 1:
        raise UserError(f"--max-num-workers={found.max_num_workers}: at least 1 is needed")
    if found.mode in ("eval", "viz") and not found.reuse and not found.read_from_station:
        raise UserError(f"--mode {found.mode} needs a run: add -r for the newest, or -r TIME")
    return found


def _listed(variable: str, given: Mapping[str, str], default: Iterable[str]) -> list[str]:
    """The entries of a variable, each once."""
    text = given.get(variable, ",".join(default))
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _one_of(name: str, value: str, known: Collection[str]) -> str:
    one_of(name, value, known)
    return value
