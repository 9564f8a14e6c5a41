"""What is saved by asking three methods with one load of the model, against three `lm_eval` commands?

    python benchmarks/one_load.py --model FOLDER [--backend vllm --model-args NAME=VALUE,...] [--save]

200 questions of `ske_quick` (33 or 34 of each benchmark) by `direct`, `cot` and `explicit`: by
`python -m ske_models.lm_eval.methods`, and by the stock command once per method, each with a store of its own
that is empty at the start. Whole processes are timed, imports and evaluation included. What both ways wrote
is compared text by text: in bf16 a text depends on what else is in its batch, so some differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import VLLM, publish, ratios
from ske_models.files import read_jsonl

METHODS = ("direct", "cot", "explicit")
ON_CPU = "dtype=bfloat16,enforce_eager=True,max_model_len=4096,max_num_seqs=128,block_size=32"
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "4"}  # GB


def together(args: argparse.Namespace, folder: Path) -> None:
    """All methods by one command."""
    shutil.rmtree(folder / "one", ignore_errors=True)
    command = ["-m", "ske_models.lm_eval.methods", "--model", args.model, "--backend", args.backend]
    command += ["--model-args", args.model_args, "--tasks", "ske_quick", "--limit", str(args.limit)]
    run([*command, "--max-answer", str(args.tokens), "--out", str(folder / "one")], folder / "one.log")


def one_by_one(args: argparse.Namespace, folder: Path) -> None:
    """A command per method."""
    shutil.rmtree(folder / "three", ignore_errors=True)
    for method in METHODS:
        out = folder / "three" / method
        model = f"backend={args.backend},method={method},layout=multiturn,store={out}.sqlite"
        command = ["-m", "lm_eval", "run", "--model", "ske_explicit", "--tasks", "ske_quick"]
        command += ["--model_args", f"{model},pretrained={args.model},{args.model_args}"]
        command += ["--gen_kwargs", f"max_gen_toks={args.tokens}", "--limit", str(args.limit)]
        command += ["--apply_chat_template", "--log_samples", "--output_path", str(out)]
        run(command, folder / f"{method}.log")


def run(command: list[str], log: Path) -> None:
    """Raises SystemExit where the command fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        env = IN_PROCESS | dict(os.environ)
        done = subprocess.run([sys.executable, *command], stdout=said, stderr=said, env=env, check=False)
    if done.returncode:
        sys.exit(f"error: ended with {done.returncode}; see {log}")


def texts(folder: Path) -> dict[tuple[str, int], str]:
    """{(task, number of the question): answer} of a run's samples."""
    found = {}
    for file in folder.rglob("samples_*.jsonl"):
        task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        for sample in read_jsonl(file):
            found[task, sample["doc_id"]] = sample["resps"][0][0]
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a checkpoint's folder")
    parser.add_argument("--backend", default="vllm")
    parser.add_argument("--model-args", default=ON_CPU, help=f"default: {ON_CPU}")
    parser.add_argument("--limit", type=int, default=33, help="questions of each benchmark")
    parser.add_argument("--tokens", type=int, default=256, help="of an answer, at most")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write it into benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {"one load": together, "three commands": one_by_one}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(args.repeats):
            for way in list(ways)[:: -1 if turn % 2 else 1]:
                started = time.perf_counter()
                ways[way](args, folder)
                seconds[way].append(time.perf_counter() - started)
        same = n = 0
        for method in METHODS:
            one = texts(folder / "one" / f"default_{method}")
            three = texts(folder / "three" / method)
            assert one.keys() == three.keys(), f"{method}: other questions"
            same += sum(one[key] == three[key] for key in one)
            n += len(one)
    rows = []
    for way in ways:
        middle, low, high = ratios(seconds, way, "one load")
        each = ", ".join(f"{value:.0f}" for value in seconds[way])
        rows.append([way, each, f"**{middle:.2f}** ({low:.2f} to {high:.2f})"])
    publish(
        f"one_load_{Path(args.model).name}",
        "What is saved by asking three methods with one load of the model?",
        f"python benchmarks/one_load.py --model {Path(args.model).name} --limit {args.limit} "
        f"--tokens {args.tokens}",
        ["", "seconds of each repeat", "over one load"],
        rows,
        [
            f"{n // len(METHODS)} questions by {', '.join(METHODS)}, {args.backend}, {args.model_args}.",
            f"{same} of {n} answers are the same text in both ways.",
        ],
        ["lm-eval", VLLM, "torch", "transformers"],
        args.save,
    )


if __name__ == "__main__":
    main()
