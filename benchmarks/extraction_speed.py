"""How long the reading of a reply takes: of degenerate texts of 200,000 characters, and of ordinary ones.

    git worktree add /tmp/before 2153095
    python benchmarks/extraction_speed.py --before /tmp/before --save    # writes results/extraction.md

Seconds of processor time, so that a busy machine changes little. Comparing results of mathematics is not part
of it. `--before`: another checkout, read by its own code in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT / "tests" / "data" / "outputs.jsonl"
LENGTH = 200_000  # characters
PATIENCE = 2.0  # seconds of processor time; what takes longer is reported as more than that
REPEATS = 3
UNITS = {
    "newlines": "\n",
    "spaces": " ",
    "dollars": "$",
    "round brackets": "(",
    "digits": "7",
    "letters": "a",
    "quotes": '"',
    "`\\boxed{3 `": "\\boxed{3 ",
    "答案是": "答案是",
    "`Question:` lines": "\nQuestion: ",
    "The answer is (A). The answer is (B).": "The answer is (A). The answer is (B). ",
}
KINDS: dict[str, dict[str, str]] = {
    "choice": dict.fromkeys("ABCDEFGHIJ", "a text"),
    "math": {},
    "open": {},
}


class TooLongError(Exception):
    """The text took more than `PATIENCE`."""


def seconds(extract: Any, text: str, kind: str, options: dict[str, str]) -> float:
    """Processor time of one reading, infinity past `PATIENCE`."""
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    started = time.process_time()
    try:
        extract(text, kind, options)
    except TooLongError:
        return float("inf")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return time.process_time() - started


def stop(*_: Any) -> None:
    """The handler of the timer."""
    raise TooLongError


def measure(root: Path) -> None:
    """Print, as JSON, the seconds that the checkout at `root` needs: texts by kind, and the outputs."""
    sys.path.insert(0, str(root))
    module = "answers.extract" if (root / "ske_tasks" / "answers").is_dir() else "extract"
    extract = importlib.import_module(f"ske_tasks.{module}").extract
    signal.signal(signal.SIGPROF, stop)
    found: dict[str, Any] = {}
    for name, unit in UNITS.items():
        text = (unit * LENGTH)[:LENGTH]
        found[name] = {kind: seconds(extract, text, kind, options) for kind, options in KINDS.items()}
    rows = [json.loads(line) for line in OUTPUTS.read_text("utf-8").splitlines()]
    turns = []
    for _ in range(REPEATS):
        started = time.process_time()
        for row in rows:
            extract(
                row["output"],
                row["kind"],
                dict(zip(row["letters"] or row["options"], row["options"], strict=True)),
            )
        turns.append(time.process_time() - started)
    found["outputs"] = {"n": len(rows), "seconds": statistics.median(turns)}
    print(json.dumps(found))


def of(root: Path) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def shown(by_kind: dict[str, float]) -> str:
    """The slowest kind and its seconds."""
    kind, slowest = max(by_kind.items(), key=lambda item: item[1])
    return f"more than {PATIENCE:g} ({kind})" if slowest == float("inf") else f"{slowest:.3f} ({kind})"


def main() -> None:
    """Measure this checkout and another one, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/extraction.md")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    from benchmarks.report import publish

    after, before = of(ROOT), of(args.before) if args.before else None
    rows = [[name, shown(before[name]) if before else "", shown(after[name])] for name in UNITS]
    per = {
        key: 1000 * run["outputs"]["seconds"] / run["outputs"]["n"]
        for key, run in (("a", after), ("b", before))
        if run
    }
    rows.append(
        ["an output of tests/data (mean, ms)", f"{per['b']:.2f}" if before else "", f"{per['a']:.2f}"]
    )
    publish(
        "extraction",
        "How long does the reading of a reply take?",
        "python benchmarks/extraction_speed.py --before CHECKOUT-OF-2153095 --save",
        ["text of 200,000 characters, repeated", "before (2153095), s", "now, s"],
        rows,
        [
            f"Processor time, the slowest of the kinds {', '.join(KINDS)} (in brackets), one reading each; "
            f"the outputs: median of {REPEATS} turns over all {after['outputs']['n']}.",
        ],
        ["math-verify"],
        args.save,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
