"""A real language model on `ske_quick` by the three methods, and what they are worth beside each other.

    make llm                               # SmolLM2-135M-Instruct from the Hub, 600 questions
    make llm MODEL=ORG/NAME LIMIT=20       # another one, or a folder; 20 questions of each benchmark
    python -m benchmarks.llm --model ORG/NAME --tokens 1024

One load of the model for all methods (`ske_models/lm_eval/methods.py`), by vLLM where it is installed, else
by transformers; then `python -m ske_tasks.compare`, with a page that has every question. Texts are cut at
`--tokens`, and ended when they only repeat themselves (`stop_loops`), so that a small model, which often does
not come to an end, takes minutes and not hours. After Ctrl-C the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

from ske_models.lm_eval import methods

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
# `explicit` with short knowledge: the prompt set that was best on validation questions (docs/results.md)
WAYS = ("default:direct", "default:cot", "notes:explicit:single")
ENGINES = {
    ("vllm", True): "dtype=auto",
    ("vllm", False): "dtype=bfloat16,enforce_eager=True,max_model_len=4096,max_num_seqs=128,block_size=32",
    ("hf", True): "dtype=auto,batch_size=32",
    ("hf", False): "dtype=float32,device=cpu,batch_size=16",  # float32: continuous batching
}
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}  # GB


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=SMOLLM2, help="ORG/NAME on the Hub, or a checkpoint's folder")
    parser.add_argument("--backend", choices=("hf", "vllm"), default="vllm" if find_spec("vllm") else "hf")
    parser.add_argument("--model-args", help="arguments of the backend, instead of ours: NAME=VALUE,...")
    parser.add_argument("--limit", type=int, help="only the first N questions of each benchmark")
    parser.add_argument("--tokens", type=int, default=256, help="limit of an answer (default: 256)")
    parser.add_argument("--out", type=Path, default=Path("runs/llm"), help="where the results go")
    args = parser.parse_args()
    engine = args.model_args or f"{ENGINES[args.backend, torch.cuda.is_available()]},stop_loops=True"
    folder = args.out / f"{args.model.strip('/').replace('/', '__')}.{args.backend}.{args.tokens}"
    asked = ["--model", args.model, "--backend", args.backend, "--model-args", engine, "--tasks", "ske_quick"]
    asked += ["--max-answer", str(args.tokens), "--out", str(folder), "--ways", *WAYS]
    asked += ["--limit", str(args.limit)] if args.limit else []
    for name, value in IN_PROCESS.items():
        os.environ.setdefault(name, value)
    show("-m", "ske_models.lm_eval.methods", *asked)
    try:
        methods.main(asked)
    except KeyboardInterrupt:
        sys.exit(f"interrupted; what is finished is in {folder}: the same command goes on")
    page = folder / "compare.html"
    compare = ["-m", "ske_tasks.compare", *(str(folder / methods.folder(way)) for way in WAYS)]
    compare += ["--html", str(page)]
    show(*compare)
    sys.exit(subprocess.run([sys.executable, *compare], check=False).returncode)


def show(*arguments: str) -> None:
    """The command that does the same by itself."""
    print("$ python", shlex.join(arguments), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
