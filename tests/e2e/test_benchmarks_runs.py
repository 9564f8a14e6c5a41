"""`ske_quick` and stock tasks under `ske_explicit`, end to end: real data, a tiny random model."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from ske_tasks.six.metrics import macro
from ske_tasks.six.subsets import samples, table

pytestmark = pytest.mark.slow

TASKS = [f"ske_quick_{name}" for name in ("mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq")]

# One process for several runs, so that the data is read once. Arguments: the runs as JSON, the results' file.
RUNS = """
import json, sys
import lm_eval
found = {}
for name, run in json.loads(sys.argv[1]).items():
    done = lm_eval.simple_evaluate(
        model="ske_explicit", apply_chat_template=True, bootstrap_iters=0, log_samples=True, device="cpu",
        **run,
    )
    found[name] = {"results": done["results"], "samples": {
        task: [{"doc": s["doc"], "answer": s["filtered_resps"][0], "acc": s.get("acc")} for s in lines]
        for task, lines in done["samples"].items()
    }}
json.dump(found, open(sys.argv[2], "w"), default=str)
"""


def run(runs: dict[str, dict], folder: Path, env: dict[str, str]) -> dict[str, dict]:
    file = folder / "runs.json"
    command = [sys.executable, "-c", RUNS, json.dumps(runs), str(file)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(file.read_text())


def arguments(model: Path | str, **more: object) -> dict[str, object]:
    return {"backend": "hf", "pretrained": str(model), "store": "none", "max_knowledge_toks": 8} | more


@pytest.fixture(scope="module")
def quick(hub, tiny_llama, tmp_path_factory) -> dict[str, dict]:
    """All 600 questions by the three methods; long prompts are cut to 256 tokens to spare the time."""
    runs = {
        method: {
            "model_args": arguments(tiny_llama, method=method, batch_size=32, max_length=256),
            "tasks": ["ske_quick"],
            "gen_kwargs": {"max_gen_toks": 8},
        }
        for method in ("direct", "cot", "explicit")
    }
    return run(runs, tmp_path_factory.mktemp("quick"), hub.env)


@pytest.mark.parametrize("method", ["direct", "cot", "explicit"])
def test_quick_runs_and_its_average_is_the_mean_of_its_rows(quick, method):
    results = quick[method]["results"]
    assert set(results) == {"ske_quick", *TASKS}
    assert results["ske_quick"]["acc,none"] == pytest.approx(
        mean(results[task]["acc,none"] for task in TASKS)
    )
    for task in TASKS:
        assert len(quick[method]["samples"][task]) == 100
        scores = [(subset, right) for subset, right in (s["acc"] for s in quick[method]["samples"][task])]
        assert results[task]["acc,none"] == pytest.approx(macro(scores))
        assert results[task]["acc_micro,none"] == pytest.approx(mean(right for _, right in scores))
        assert results[task]["truncated,none"] > 50  # eight tokens are not enough to end


def test_every_explicit_sample_has_its_knowledge(quick):
    for task in TASKS:
        traces = [sample["doc"]["ske"] for sample in quick["explicit"]["samples"][task]]
        assert all(trace["knowledge"] is not None for trace in traces)
        assert all("ske" in sample["doc"] for sample in quick["direct"]["samples"][task])


CONSTANT = """
import json, sys
import lm_eval
from lm_eval.api.model import LM

class AlwaysA(LM):
    def generate_until(self, requests, disable_tqdm=False):
        return ["Yes, I am sure of it.\\n\\nThe answer is (A)." for _ in requests]
    loglikelihood = loglikelihood_rolling = generate_until

done = lm_eval.simple_evaluate(model=AlwaysA(), tasks=["ske_quick"], bootstrap_iters=0, log_samples=False)
json.dump(done["results"], open(sys.argv[1], "w"))
"""


def test_average_of_rows_that_are_not_zero(hub, tmp_path):
    """Always (A): the average is the mean of six different rows."""
    command = [sys.executable, "-c", CONSTANT, str(tmp_path / "out.json")]
    subprocess.run(command, env=hub.env, check=True, capture_output=True)
    results = json.loads((tmp_path / "out.json").read_text())
    rows = [results[task]["acc,none"] for task in TASKS]
    assert results["ske_quick"]["acc,none"] == pytest.approx(mean(rows))
    assert all(0.05 < row < 0.5 for row in rows[:5])
    assert rows[5] == 0
    assert "truncated,none" not in results["ske_quick_mmlu"]


STOCK = [
    *("mmlu_abstract_algebra", "arc_easy", "arc_challenge", "bbh_cot_zeroshot_navigate"),
    *("agieval_aqua_rat", "agieval_math", "nq_open"),
]


def test_stock_tasks_run_with_knowledge(hub, tiny_llama, tmp_path):
    output = tmp_path / "out"
    command = [str(Path(sys.executable).parent / "lm_eval"), "run", "--model", "ske_explicit", "--model_args"]
    model_args = arguments(tiny_llama, method="explicit", max_length=1024, store=tmp_path / "store.sqlite")
    command += [
        ",".join(f"{k}={v}" for k, v in model_args.items()),
        "--tasks",
        ",".join(STOCK),
        "--limit",
        "4",
    ]
    command += ["--apply_chat_template", "--device", "cpu", "--output_path", str(output), "--log_samples"]
    command += ["--gen_kwargs", "max_gen_toks=8"]
    done = subprocess.run(command, env=hub.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [file] = output.rglob("results_*.json")
    results = json.loads(file.read_text())
    assert set(results["results"]) == set(STOCK)
    sidecar = Path(results["config"]["ske"]["knowledge_of_other_tasks"])
    for task in STOCK:
        lines = [json.loads(line) for line in (sidecar / f"{task}.explicit.jsonl").read_text().splitlines()]
        assert len({line["doc_id"] for line in lines}) == 4
        assert all(line["knowledge"] is not None for line in lines)


@pytest.fixture(scope="module")
def server(tiny_llama) -> Iterator[str]:
    """A `transformers serve` of the tiny model; the address of its chat completions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(tiny_llama)]
    command += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    assert process.poll() is None, "the server ended"
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1/chat/completions"
        finally:
            process.terminate()


def test_server_gives_the_same_answers_as_the_process(hub, tiny_llama, server, tmp_path):
    common = {"tasks": ["ske_quick"], "limit": 3, "gen_kwargs": {"max_gen_toks": 8}}
    served = {"backend": "local-chat-completions", "model": str(tiny_llama), "base_url": server}
    served |= {"store": "none", "max_knowledge_toks": 8, "method": "explicit", "num_concurrent": 1}
    inside = arguments(tiny_llama, method="explicit", batch_size=1, max_length=16384)
    found = run(
        {"server": {"model_args": served, **common}, "process": {"model_args": inside, **common}},
        tmp_path,
        hub.env,
    )
    for task in TASKS:
        answers = [
            [sample["answer"] for sample in found[where]["samples"][task]] for where in ("server", "process")
        ]
        assert answers[0] == answers[1]
        assert len(answers[0]) == 3


def test_table_by_subset(tmp_path, capsys):
    from rich.console import Console

    lines = [
        {
            "doc": {"subset": subset, "ske_question": "?"},
            "acc": [subset, right],
            "acc_micro": right,
            "unanswered": 0,
        }
        for subset, right in (("one", 1), ("one", 0), ("two", 1))
    ]
    file = tmp_path / "samples_ske_mmlu_2026-01-01T00-00-00.000000.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = samples(tmp_path)
    assert list(found) == ["ske_mmlu"]
    Console(width=120).print(table("ske_mmlu", found["ske_mmlu"]))
    printed = capsys.readouterr().out
    assert "50.00" in printed  # one
    assert "75.00" in printed  # macro
    assert "66.67" in printed  # micro
    assert "not known" in printed  # truncated
