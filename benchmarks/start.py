"""What does `lm_eval` take before its first request and after its last reply, and whose seconds are these?

    HF_ENDPOINT=... python benchmarks/start.py --save      # or HF_HUB_OFFLINE=1, with the data in the cache
    HF_ENDPOINT=... python benchmarks/start.py --before CHECKOUT     # beside another state of the repository

A server on loopback answers every request at once, so that what is left is the client. The commands, in turn:

    ske_explicit     lm_eval --model ske_explicit --tasks ske_quick, both steps of 600 questions
    our tasks        lm_eval --model local-chat-completions --tasks ske_quick, one step
    lm-eval alone    the same model, without our start-up hook, on one plain task with the same questions
    imports          what any of them imports: lm_eval's evaluator, torch, transformers

One turn of each is not counted: it fills the caches of the datasets, of the rows and of lm-eval's index.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks.report import ROOT, children, publish
from ske_models.errors import UserError
from ske_tasks.six.load import load
from ske_tasks.six.rows import prompt
from ske_tasks.six.sources import READERS

REPLY = {
    "id": "instant",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "One fact, then another. The answer is (B)."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 12, "total_tokens": 112},
}
HEADER = ["", "start, s", "processor", "end, s", "processor", "requests", "both, of lm-eval alone"]


@dataclass
class Turn:
    """One command. Seconds by the clock and of the processor, up to its first request, last reply and end."""

    began: float = 0.0
    first: tuple[float, float] = (0.0, 0.0)
    last: tuple[float, float] = (0.0, 0.0)
    end: tuple[float, float] = (0.0, 0.0)
    requests: int = 0
    process: psutil.Process = field(default_factory=psutil.Process)

    def now(self) -> tuple[float, float]:
        """(seconds since it began, seconds of the processor so far)."""
        used = self.process.cpu_times()
        return (
            time.monotonic() - self.began,
            used.user + used.system + used.children_user + used.children_system,
        )


class Server:
    """A chat server on loopback that tells the turn under way of every request."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.port = 0
        ready = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=2**22)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await server.serve_forever()

        threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
        ready.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(REPLY).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        while True:
            try:
                asked = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            await reader.readexactly(int(asked.partition("content-length:")[2].split("\r\n")[0]))
            if not self.turn.requests:
                self.turn.first = self.turn.now()
            self.turn.requests += 1
            writer.write(head.encode() + body)
            await writer.drain()
            self.turn.last = self.turn.now()
        writer.close()

    def run(self, command: list[str], env: dict[str, str], said: Path) -> Turn:
        """Runs a command that may use this server. Raises UserError if it fails."""
        before = children()
        began = time.monotonic()
        with said.open("w") as out:
            process = subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out, cwd=said.parent)
            self.turn = Turn(began=began, process=psutil.Process(process.pid))
            failed = process.wait()
        self.turn.end = (time.monotonic() - began, children() - before)
        if failed:
            raise UserError(f"{' '.join(command[:4])} ...: ended with {failed}; see {said}")
        return self.turn


def commands(folder: Path, port: int, before: Path | None) -> dict[str, tuple[list[str], dict[str, str]]]:
    """What is measured, by its name in the table: command and environment."""
    lm_eval = [
        str(Path(sys.executable).with_name("lm_eval")),
        "run",
        "--apply_chat_template",
        "--log_samples",
    ]
    lm_eval += ["--output_path", str(folder / "out")]
    served = f"model=m,base_url=http://127.0.0.1:{port}/v1/chat/completions,num_concurrent=64"
    ours = ["--model", "ske_explicit", "--tasks", "ske_quick", "--model_args"]
    ours += [f"backend=local-chat-completions,store=none,{served}"]
    stock = ["--model", "local-chat-completions", "--model_args", f"{served},eos_string=<|end|>", "--tasks"]
    plain = ["plain", "--include_path", str(_plain_task(folder / "plain"))]
    key = {"OPENAI_API_KEY": "none"}
    found = {
        "ske_explicit": ([*lm_eval, *ours], key),
        "our tasks": ([*lm_eval, *stock, "ske_quick"], key),
        "lm-eval alone": ([*lm_eval, *stock, *plain], key | {"SKE_LEARN_HOOK": "0"}),
        "imports": ([sys.executable, "-c", "import lm_eval.evaluator, torch, transformers"], {}),
    }
    if before is not None:
        found["ske_explicit, before"] = ([*lm_eval, *ours], key | {"PYTHONPATH": str(before.resolve())})
    return found


def _plain_task(folder: Path) -> Path:
    """A task of lm-eval's own kind with the questions of `ske_quick`; returns the folder that it is in."""
    folder.mkdir()
    rows = [row for name in READERS for row in load(name, quick=True)["test"]]
    lines = [json.dumps({"prompt": prompt(row), "target": row["target"]}) for row in rows]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {
        "task": "plain",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "generation_kwargs": {"until": [], "max_gen_toks": 1024, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "plain.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    return folder


def _row(name: str, turns: dict[str, list[Turn]]) -> list[str]:
    mine = turns[name]
    if name == "imports":
        return [name, *(_median([turn.end[which] for turn in mine]) for which in (0, 1)), "", "", "", ""]

    def both(turn: Turn) -> float:
        """Start and end, of the processor: it does not change with what else the machine does."""
        return turn.first[1] + turn.end[1] - turn.last[1]

    share = statistics.median(
        both(other) / both(one) for one, other in zip(mine, turns["lm-eval alone"], strict=True)
    )
    return [
        name,
        *(_median([turn.first[which] for turn in mine]) for which in (0, 1)),
        *(_median([turn.end[which] - turn.last[which] for turn in mine]) for which in (0, 1)),
        f"{mine[-1].requests:,}",
        f"{share:.0%}",
    ]


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", type=Path, help="another checkout, whose ske_explicit is measured, too")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/start.md")
    args = parser.parse_args()
    server = Server()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measured = commands(folder, server.port, args.before)
        turns: dict[str, list[Turn]] = {name: [] for name in measured}
        for _ in range(args.repeats + 1):
            for name, (command, env) in measured.items():
                turns[name].append(server.run(command, {"PYTHONPATH": str(ROOT)} | env, folder / "said.txt"))
                print(f"{name}: {turns[name][-1].end[0]:.1f} s", file=sys.stderr)
        counted = {name: mine[1:] for name, mine in turns.items()}
    publish(
        "start",
        "How long does `lm_eval` take before its first request and after its last reply?",
        f"python benchmarks/start.py --repeats {args.repeats}",
        HEADER,
        [_row(name, counted) for name in counted],
        [
            "600 questions of `ske_quick` on a server that answers at once; seconds by the clock and of the "
            f"processor, median and range of {args.repeats} interleaved turns, caches filled.",
            "The last column: what lm-eval alone uses for start and end (processor), as a share of what the "
            "row does; the rest is ours.",
        ],
        ["lm_eval", "datasets", "transformers", "torch"],
        args.save,
    )


if __name__ == "__main__":
    main()
