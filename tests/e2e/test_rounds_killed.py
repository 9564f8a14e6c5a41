"""SIGKILL at random moments over all stages of a run: the same command goes on and ends with the same files.

SKE_KILLS=25 pytest -q -s tests/e2e/test_rounds_killed.py     # more of them, and where they hit
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from small_runs import SCRIPT, STAGES, environment, texts

from ske_models.files import file_digest, read_json, read_jsonl

KILLS = int(os.environ.get("SKE_KILLS", "4"))
PATIENCE = 30.0  # seconds for the processes of a killed command to end by themselves
BEGUN = re.compile(r"^round (\d), (\w+) \.\.\.$", re.MULTILINE)


def weights(folder: Path) -> dict[str, str]:
    """Digests of what the training made."""
    return {f"M{n}": file_digest(folder / f"M{n}" / "model.safetensors") for n in (1, 2)}


def said(log: Path) -> str:
    """What a command has written so far; it may have been killed within a character."""
    return log.read_text(encoding="utf-8", errors="replace")


def still_there(folder: Path) -> list[str]:
    """The processes that work in a run's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended meanwhile
            continue
        if str(folder) in line and state != "Z" and int(process.name) != os.getpid():
            found.append(line)
    return found


def moments(folder: Path, kills: int, rng: random.Random) -> list[tuple[int, str, float]]:
    """So many moments of a run, in order: round, stage, and seconds after that has begun.

    A fifth of them is in the stage where the model judges itself, the others come as evenly as there are
    kills; the seconds are drawn from as long as the stage took.
    """
    every = [(0, "evaluate")] + [(n, stage) for n in (1, 2) for stage in (*STAGES, "evaluate")]
    drawn = [(2, "judge")] * (kills // 5)
    while len(drawn) < kills:
        drawn += rng.sample(every, min(len(every), kills - len(drawn)))
    found = []
    for n, stage in sorted(drawn, key=every.index):
        took = read_json(folder / f"round{n}" / f"{stage}.json")["seconds"]
        light = stage in ("select", "mix")
        found.append(
            (n, stage, rng.uniform(0, took + (0.0 if light else 6.0)))
        )  # a process has to start, too
    return found


def killed(
    command: list[str], folder: Path, moment: tuple[int, str, float], rng: random.Random
) -> str | None:
    """Starts a command and kills it, or its process group, at a moment; what it was doing.

    None where it had ended before.
    """
    n, stage, seconds = moment
    log = folder.with_suffix(".log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr, env=environment(), start_new_session=True)
    while process.poll() is None and (str(n), stage) not in BEGUN.findall(said(log)):
        if (folder / f"round{n}" / f"{stage}.json").is_file():
            break  # an earlier kill came so late in this stage that it was done
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        assert process.returncode == 0, said(log)
        return None
    begun = BEGUN.findall(said(log))
    if rng.random() < 0.3:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    until = time.monotonic() + PATIENCE
    while still_there(folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert not still_there(folder), "a stage outlived the command that started it"
    for file in folder.glob("round*/*.jsonl"):
        read_jsonl(file)  # whole
    return f"{begun[-1][1]} of round {begun[-1][0]}" if begun else "the start"


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_files(small_run, tmp_path):
    rng = random.Random(os.environ.get("SKE_KILLS_SEED", "0"))
    hit: Counter[str] = Counter()
    folders: list[Path] = []
    while hit.total() < KILLS:  # in one run, or in more of them where it was faster than thought
        folders.append(folder := tmp_path / f"run{len(folders)}")
        command = [sys.executable, str(SCRIPT), "--recipe", str(small_run.recipe), "--run", str(folder)]
        for moment in moments(small_run.folder, KILLS - hit.total(), rng):
            doing = killed(command, folder, moment, rng)
            if doing is None:
                break
            hit[doing] += 1
            print(f"kill {hit.total()}: {doing}", flush=True)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        ours, theirs = texts(folder), texts(small_run.folder)
        assert set(ours) == set(theirs)
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert weights(folder) == weights(small_run.folder)
    kills = ", ".join(f"{count} in {where}" for where, count in hit.items())
    print(f"{hit.total()} kills over {len(folders)} runs: {kills}")
