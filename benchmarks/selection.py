"""What self-selection is worth: M0 to M4 on TinyWorld, over seeds, beside its controls.

    python benchmarks/selection.py                  # 3 seeds on 1,500 test questions, hours on 2 cores
    python benchmarks/selection.py --seeds 1 --dev  # on the development questions

All arms of a seed share round 1. From round 2 on:

    self       the recipe as it is: the model scores its own texts, and is trained on those >= 8
    oracle     TinyWorld's oracle scores them instead
    random     as many as `self` would keep, drawn blindly
    none       everything is selected
    unwritten  nothing self-written: the judge's scorings and the general data only
    cot        what `self` selected, trained as CoT texts (in round 1, too)

M0 to M4 of `self` also answer questions in words that nothing trained on has (`ske_world_held_out`).

Writes RUNS/table.md, of what is done. Killed and given again, it goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from ske_models.errors import UserError
from ske_models.files import read_json, read_jsonl, write_json
from ske_tasks.intervals import Interval, interval
from training import launch, recipe
from training import stage as stages
from training.run_folder import RunFolder
from training.stages import evaluate as evaluation

ROOT = Path(__file__).parent.parent
Settings = dict[str, Any]

ARMS: dict[str, Settings] = {
    "self": {},
    "oracle": {"judge": "judge"},
    "random": {"select": {"by": "random"}},
    "none": {"select": {"by": "all"}},
    "unwritten": {"mix": {"knowledge": 0, "reasoning": 0}},
    "cot": {"mix": {"kept_as": "cot"}},
}
METHODS = ("direct", "cot", "explicit")
HELD_OUT = "ske_world_held_out"
LIMIT = 1_500  # questions: the first ones of the task, which are in random order


def write_recipe(arm: str, seed: int, task: str, file: Path) -> None:
    """The world recipe for one arm and seed, on one thread. Only `self` is evaluated by all methods."""
    content = yaml.safe_load((recipe.FOLDER / "world.yaml").read_text(encoding="utf-8"))
    content["name"], content["seed"] = f"{arm}-{seed}", seed
    for settings in content["rounds"] if arm == "cot" else content["rounds"][1:]:
        for key, value in ARMS[arm].items():
            inherited = content["select"] if key == "select" else settings.get(key, {})
            settings[key] = {**inherited, **value} if isinstance(value, dict) else value
    methods = list(METHODS) if arm == "self" else ["cot"] if arm == "cot" else ["explicit"]
    content["evaluate"] |= {"tasks": [task], "methods": methods, "limit": LIMIT}
    content["analysis"] = {"items": 0}
    content["sft"]["threads"] = 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def run_arm(arm: str, seed: int, folder: Path, task: str) -> None:
    """All that is missing of one arm; `self` must be there before the others, which evaluate M4 alone."""
    here, itself = folder / f"{arm}-{seed}", folder / f"self-{seed}"
    if (here / "done").is_file():
        return
    file = folder / "recipes" / f"{arm}-{seed}.yaml"
    write_recipe(arm, seed, task, file)
    if arm == "self":
        script = str(ROOT / "training" / "round.py")
        _process([sys.executable, script, "--recipe", str(file), "--run", str(here)], here)
    else:
        run = RunFolder(here, recipe.load(str(file)))
        here.mkdir(parents=True, exist_ok=True)
        write_json(here / "recipe.json", run.recipe.model_dump(mode="json"))
        _copy(itself, here, arm)
        given = ("questions", "synthesize", "judge", "select") if arm == "cot" else ()
        for n in range(1 if arm == "cot" else 2, run.rounds + 1):
            for stage in stages.of_round(run, n):
                wanted = stage.name not in given and (stage.name != "evaluate" or n == run.rounds)
                if wanted and not stages.is_done(stage, run, n):
                    own = [sys.executable, "-m", "training.stage", stage.name, str(here), str(n)]
                    _process(launch.command(run, n, stage.name) if stage.trains else own, here)
    (here / "done").touch()


def held_out(folder: Path, seed: int) -> None:
    """Every checkpoint of `self` on the held-out templates, by explicit."""
    run = RunFolder.open(folder / f"self-{seed}")
    settings = run.recipe.evaluate.model_copy(
        update={"tasks": [HELD_OUT], "methods": ["explicit"], "limit": None}
    )
    asked = RunFolder(run.path, run.recipe.model_copy(update={"evaluate": settings}))
    for k in range(run.rounds + 1):
        evaluation.run(asked, k)


def _copy(itself: Path, here: Path, arm: str) -> None:
    """What an arm shares with `self`: M0, and round 1 with M1, or (cot) what was selected in every round."""
    if not (here / "M0").exists():
        shutil.copytree(itself / "M0", here / "M0")
    if arm == "cot":
        for file in itself.glob("round*/*.jsonl"):
            if file.stem in ("questions", "written", "scores", "selected"):
                (here / file.parent.name).mkdir(exist_ok=True)
                shutil.copy2(file, here / file.parent.name)
    elif not (here / "M1").exists():
        shutil.copytree(itself / "round1", here / "round1", dirs_exist_ok=True)
        shutil.copytree(itself / "M1", here / "M1")


def _process(command: list[str], here: Path) -> None:
    """Runs a command on one thread, its output into a log beside the run. Raises UserError if it fails."""
    log = here.with_name(f"{here.name}.log")
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # threads of several runs would wait for each other
    with log.open("a") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=env, check=False)
    if done.returncode:
        raise UserError(f"{here.name}: ended with status {done.returncode}; see {log}")


def samples(folder: Path, arm: str, seed: int, k: int, task: str, method: str) -> list[dict[str, Any]]:
    """The logged items of M`k`. All arms of a seed share M0 and, but for `cot`, M1."""
    owner = "self" if k == 0 or (k == 1 and arm != "cot") else arm
    return read_jsonl(folder / f"{owner}-{seed}" / "results" / f"M{k}" / f"{task}.{method}.samples.jsonl")


Point = tuple[str, int, str]  # arm, checkpoint, method


def over_seeds(folder: Path, seeds: list[int], point: Point, task: str, key: str = "hit") -> Interval:
    """Mean over seeds and items, with its interval over people."""
    arm, k, method = point
    rows = [row for seed in seeds for row in samples(folder, arm, seed, k, task, method)]
    return interval([row[key] for row in rows], [row["cluster"] for row in rows])


def paired(folder: Path, seeds: list[int], one: Point, two: Point, task: str) -> str:
    """How many points `one` is above `two`, item by item, with its interval over people."""
    values: list[float] = []
    clusters: list[str] = []
    for seed in seeds:
        mine = samples(folder, one[0], seed, one[1], task, one[2])
        theirs = samples(folder, two[0], seed, two[1], task, two[2])
        values += [a["hit"] - b["hit"] for a, b in zip(mine, theirs, strict=True)]
        clusters += [row["cluster"] for row in mine]
    points = interval(values, clusters)
    return f"{points.mean:+.1f} [{points.low:+.1f}, {points.high:+.1f}]"


def table(folder: Path, seeds: list[int], task: str, arms: list[str]) -> str:
    """All tables as Markdown, of the arms and seeds that are done."""
    done = {arm: [seed for seed in seeds if (folder / f"{arm}-{seed}" / "done").is_file()] for arm in arms}
    last, mine = len(recipe.load("world").rounds), done["self"]
    n = len(samples(folder, "self", mine[0], 0, task, "explicit"))
    lines = [f"`{task}`, {n:,} questions, {len(mine)} seeds", ""]
    lines += ["| | direct | CoT | explicit | extraction | explicit, step |", "|---|---|---|---|---|---|"]
    for k in range(last + 1):
        cells = [str(over_seeds(folder, mine, ("self", k, method), task)) for method in METHODS]
        cells.append(str(over_seeds(folder, mine, ("self", k, "explicit"), task, "extraction")))
        before, now = ("self", k - 1, "explicit"), ("self", k, "explicit")
        cells.append(paired(folder, mine, now, before, task) if k else "")
        lines.append(f"| M{k} | {' | '.join(cells)} |")
    rows = samples(folder, "self", mine[0], last, HELD_OUT, "explicit")
    lines += ["", f"Held-out templates, {len(rows):,} questions:", ""]
    lines += ["| | explicit | extraction |", "|---|---|---|"]
    for k in range(last + 1):
        point = ("self", k, "explicit")
        cells = [str(over_seeds(folder, mine, point, HELD_OUT, key)) for key in ("hit", "extraction")]
        lines.append(f"| M{k} | {' | '.join(cells)} |")
    lines += ["", "| rounds 2 to 4 by | seeds | M4 | self - it |", "|---|---|---|---|"]
    for arm in (arm for arm in arms if done[arm]):
        method = "cot" if arm == "cot" else "explicit"
        accuracy = over_seeds(folder, done[arm], (arm, last, method), task)
        gap = paired(folder, done[arm], ("self", last, "explicit"), (arm, last, method), task)
        lines.append(f"| {arm} | {len(done[arm])} | {accuracy} | {gap if arm != 'self' else ''} |")
    lines += ["", "Self-scoring against the oracle, both scores >= 8, all texts / distinct ones:", ""]
    lines += ["| round | texts | base rate | precision | recall |", "|---|---|---|---|---|"]
    for k in range(2, last + 1):
        records = [read_json(folder / f"self-{seed}" / f"round{k}" / "select.json") for seed in mine]
        cells = []
        for name in ("n", "base_rate", "precision", "recall"):
            means = [
                sum(record["counts"]["truth"][which][name] for record in records) / len(records)
                for which in ("all", "distinct")
            ]
            cells.append(" / ".join(f"{m:,.0f}" if name == "n" else f"{m:.2f}" for m in means))
        lines.append(f"| {k} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Self-selection against its controls on TinyWorld.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--dev", action="store_true", help="on the development questions")
    parser.add_argument("--runs", type=Path, default=Path("runs/selection"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    args = parser.parse_args()
    task = "ske_world_dev" if args.dev else "ske_world"
    arms = ["self", *(arm for arm in args.arms if arm != "self")]

    def job(arm_and_seed: tuple[str, int]) -> None:
        arm, seed = arm_and_seed
        run_arm(arm, seed, args.runs, task)
        print(f"{arm}, seed {seed}: done", flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(job, [("self", seed) for seed in args.seeds]))
        list(pool.map(job, [(arm, seed) for arm in arms[1:] for seed in args.seeds]))
    for seed in args.seeds:
        held_out(args.runs, seed)
    text = table(args.runs, args.seeds, task, arms)
    (args.runs / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
