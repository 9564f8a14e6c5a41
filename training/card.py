"""Where a checkpoint comes from: lineage.json, its model card, and both on the hub.

from training import card
card.write(folder, 1)                   # RUN/M1/README.md again, with the results that there are by now
card.push(folder, 1, "org/mine")   # org/mine-M1, and its data to org/mine-data
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, get_token
from huggingface_hub.errors import HFValidationError, HTTPError

from ske_models.errors import UserError
from ske_models.files import file_digest, write_json, write_text
from training import domains
from training.data import objects
from training.data.objects import read_object
from training.launch import settings
from training.run_folder import RunFolder
from training.settings.judge import OpenAIJudge
from training.versions import versions

LINEAGE = "lineage.json"
ROOT = Path(__file__).resolve().parent.parent
DATA = ("questions", "dropped", "written", "scores", "selected", "sft")  # files of a round


def parent(folder: RunFolder, n: int) -> tuple[str, str | None]:
    """(folder or hub name, revision) of the checkpoint that M`n` is trained from.

    Raises UserError if it is a folder of this run that has no model in it.
    """
    if n == 0:
        base = folder.recipe.model.base
        assert base is not None
        return base.checkpoint, base.revision
    start = folder.checkpoint(folder.start(n))
    if not (start / "config.json").is_file():
        raise UserError(f"round {n}, sft: {start} has no checkpoint in it; make {start.name} first")
    return str(start), None


def write_lineage(folder: RunFolder, n: int, target: Path, training: dict[str, Any]) -> None:
    """`target`/lineage.json: all that M`n` follows from. training: the counts of the stage `sft`.

    It holds no time and no result, so the same run writes the same bytes.
    """
    recipe, sft = folder.recipe, settings(folder, n)
    write_json(
        target / LINEAGE,
        {
            "checkpoint": f"M{n}",
            "parent": _origin(folder, n),
            "recipe": {"name": recipe.name, "hash": recipe.hash},
            "prompts": {"name": recipe.prompts, "hash": folder.prompts.hash, "layout": recipe.layout},
            "seed": recipe.seed,
            "data": {
                "sft.jsonl": file_digest(folder.round(n) / "sft.jsonl"),
                "examples": _kinds(folder.round(n) / "mix.json"),
            },
            "select": folder.select(n).model_dump(mode="json") if n else None,
            "judge": _judge(folder, n) if n else None,
            "sft": sft.model_dump(mode="json"),
            "training": training,
            "versions": versions(),
            "project": _commit(),
        },
    )


def _kinds(record: Path) -> dict[str, Any]:
    """The examples of each kind, as the stage `mix` has counted them; there is no such stage in round 0."""
    if not record.is_file():
        return {}
    counts = read_object(record, objects.COUNTED, "delete it to do mix again")["counts"]
    return dict(counts.get("kinds", {}))


def read_lineage(folder: Path) -> dict[str, Any]:
    """Raises UserError if there is none that can be read."""
    return read_object(folder / LINEAGE, objects.LINEAGE, f"delete {folder} to train it again")


def write(folder: RunFolder, n: int, target: Path | None = None) -> None:
    """The model card of M`n` with its results so far. A checkpoint that no run made keeps the card it has."""
    target = target or folder.checkpoint(n)
    if not (target / LINEAGE).is_file():
        return
    made = read_lineage(target)
    license_ = _license(folder.checkpoint(folder.start(n)) if n else None)
    data = ModelCardData(
        model_name=f"{made['recipe']['name']}-M{n}",
        license=license_,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["ske-learn", "self-training"],
        base_model=made["parent"].get("repo"),
        eval_results=_results(folder, n) or None,
        ignore_metadata_errors=True,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{_text(made, n)}"
    write_text(target / "README.md", text)


def check_token(name: str) -> None:
    """Raises UserError if nothing can be uploaded as `name`, for want of a token for the hub."""
    if get_token() is None:
        raise UserError(f"--push {name}: no token for the hub; run `hf auth login`, or set HF_TOKEN")


def push(folder: RunFolder, n: int, name: str) -> None:
    """Uploads M`n` to the private repository NAME-M`n`, and the files of round `n` to the dataset NAME-data.

    The token is the one that huggingface_hub finds itself (HF_TOKEN, or `hf auth login`).
    Raises UserError: there is none, no checkpoint, or the upload fails; what has arrived is not sent again.
    """
    checkpoint = folder.checkpoint(n)
    if not (checkpoint / LINEAGE).is_file():
        raise UserError(f"--push {name}: {checkpoint} is not there yet; finish round {n} first")
    check_token(name)
    api, model, data = HfApi(), f"{name}-M{n}", f"{name}-data"
    files = [f"round{n}/{file}.jsonl" for file in DATA] + ["recipe.json", f"results/M{n}/*"]
    try:
        api.create_repo(model, private=True, exist_ok=True)
        api.upload_folder(repo_id=model, folder_path=checkpoint, commit_message=f"M{n}")
        api.create_repo(data, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=data,
            repo_type="dataset",
            folder_path=folder.path,
            allow_patterns=files,
            commit_message=f"Round {n}",
        )
    # RuntimeError: a file's upload failed; its cause has the storage's signed address in it: not shown.
    # HTTPError, of the HTTP library underneath: no connection.
    except (HTTPError, HFValidationError, RuntimeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--push {name}: the upload failed: {reason}; give the same command again") from error


def _origin(folder: RunFolder, n: int) -> dict[str, Any]:
    """The parent by name, and by the content of its weights or its commit."""
    where, revision = parent(folder, n)
    source_folder = Path(where)
    found: dict[str, Any] = {"name": f"M{folder.start(n)}" if n else where}
    if repo := hub_name(folder, n):
        found["repo"] = repo
        real = source_folder.resolve()
        found["commit"] = real.name if real.parent.name == "snapshots" else revision
    elif source := _source(folder, n):
        found["from"] = Path(source).name
    if source_folder.is_dir():
        found["sha256"] = _content(source_folder)
    return found


def hub_name(folder: RunFolder, n: int) -> str | None:
    """ORG/NAME of the checkpoint that M`n` is trained from; None if it is not from the hub."""
    source = _source(folder, n)
    if source is None or Path(source).expanduser().is_dir() or domains.start(source) is not None:
        return None
    return source


def _source(folder: RunFolder, n: int) -> str | None:
    """What the recipe calls the parent of M`n`; None if this run made it."""
    model = folder.recipe.model
    if n == 0:
        assert model.base is not None
        return model.base.checkpoint
    return model.checkpoint if folder.start(n) == 0 else None


def _content(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, file after file: safetensors, or what older ones have instead."""
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin")):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                sha.update(block)
    return sha.hexdigest()


def _judge(folder: RunFolder, n: int) -> dict[str, Any]:
    """Who scored the texts of round `n`, and whose scorings are in the SFT set."""
    judge = folder.recipe.judge
    named = {"kind": judge.kind} | ({"model": judge.model} if isinstance(judge, OpenAIJudge) else {})
    if folder.settings(n).judge == "self":
        return {"kind": "self", "model": f"M{folder.writer(n)}", "scorings": named}
    return named


def _commit() -> str | None:
    """The commit of the checkout, with "-dirty" if files differ from it; None in an installed package."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or not allowed to read it


def _license(folder: Path | None) -> str | None:
    """That of the checkpoint it comes from, if its card says one."""
    if folder is None or not (folder / "README.md").is_file():
        return None
    return ModelCard.load(folder / "README.md", ignore_metadata_errors=True).data.license


def _results(folder: RunFolder, n: int) -> list[EvalResult]:
    """The accuracies in RUN/results/M{n}, as `model-index` has them."""
    files = [file for file in sorted(folder.results(n).glob("*.*.json")) if not file.name.startswith(".")]
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Question answering",
            dataset_type=result["task"],
            dataset_name=result["task"],
            metric_type="accuracy",
            metric_name=f"accuracy, method {result['method']}, n = {result['n']}",
            metric_value=round(result["metrics"]["acc"], 4),
        )
        for result in (read_object(file, objects.RESULT, "delete it to evaluate again") for file in files)
        if "acc" in result["metrics"]
    ]


def _how(sft: dict[str, Any]) -> str:
    """Which parameters were trained. sft: of a lineage; one of an earlier release has no `lora`."""
    if not (lora := sft.get("lora")):
        return "full-parameter SFT"
    targets = lora["targets"] if isinstance(lora["targets"], str) else ", ".join(lora["targets"])
    frozen = "4-bit (NF4) weights" if lora["load_in_4bit"] else "frozen weights"
    return (
        f"LoRA on {frozen} (r {lora['r']}, alpha {lora['alpha']:g}, dropout {lora['dropout']:g}, {targets}), "
        "merged into the parent (the adapter itself: `adapter/`)"
    )


def _text(made: dict[str, Any], n: int) -> str:
    """The card's body."""
    came, training, sft = made["parent"], made["training"], made["sft"]
    kinds = made["data"]["examples"]
    counts = ", ".join(f"{kind.replace('_', ' ')} {row['examples']:,}" for kind, row in kinds.items())
    judge = made["judge"] or {}
    scored = f"{judge.get('kind')}{' ' + judge['model'] if 'model' in judge else ''}"
    origin = " ".join(f"{key} `{value}`" for key, value in came.items() if value and key != "name")
    select = made["select"] or {}
    rows = {
        "parent": f"{came['name']} ({origin})",
        "recipe": f"{made['recipe']['name']} `{made['recipe']['hash']}`, seed {made['seed']}",
        "prompts": f"{made['prompts']['name']} `{made['prompts']['hash']}`, "
        f"layout {made['prompts']['layout']}",
        "examples": f"{training['examples']:,} ({counts or 'instruction data'}); "
        f"{training['too_long']:,} too long ones left out",
        "scored by": scored if n else None,
        "selected": f"by {select.get('by')}, threshold {select.get('threshold')}" if n else None,
        "training": f"{_how(sft)}, {sft['epochs']} epochs, batch {sft['batch']}, learning rate "
        f"{sft['learning_rate']:g} ({sft['schedule']}, {sft['warmup_steps']} warm-up steps), "
        f"{training['steps']:,} steps, loss on completions {training['loss']['last']:.2f} (last quarter)",
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
        "project": f"commit `{made['project']}`" if made["project"] else None,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value)
    what = (
        f"Round {n} of self-learning (SKE-Learn): trained on knowledge and reasoning that M{n - 1} wrote and "
        "that scored high, on scorings, and on general data."
        if n
        else "M0 of self-learning rounds (SKE-Learn): a base model after SFT on instruction data."
    )
    use = (
        "lm_eval --model ske_explicit --model_args "
        f"pretrained=THIS,prompts={made['prompts']['name']} --tasks ske --apply_chat_template"
    )
    return (
        f"# {made['recipe']['name']} {made['checkpoint']}\n\n{what}\n\n| | |\n|---|---|\n{table}\n\n"
        f"All of it, machine-readable: `{LINEAGE}`.\n\n```\n{use}\n```\n"
    )
