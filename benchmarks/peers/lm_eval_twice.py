"""Peer of benchmarks/peers.py: two chained runs of stock lm-eval; the second reads the first one's samples.

python benchmarks/peers/lm_eval_twice.py JOB.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

JINJA_OF_SAMPLES = {
    "{{ question }}": "{{ doc.question }}",
    "{{ ending }}": "{{ doc.ending }}",
    "{% if ending %}": "{% if doc.ending %}",
    "{{ knowledge }}": "{{ filtered_resps[0] }}",
}


def evaluate(
    job: dict[str, Any], name: str, data: str, text: str, gold: str, limit: int, *command: str
) -> list[dict[str, Any]]:
    """Has `lm_eval` ask `text` (a Jinja template) of every line of `data`; returns the logged samples."""
    folder = Path(job["folder"]) / name
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": data}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": text,
        "doc_to_target": gold,
        "generation_kwargs": {"until": [], "max_gen_toks": limit, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {
                "name": "letter",
                "filter": [
                    {"function": "regex", "regex_pattern": job["pattern"]},
                    {"function": "take_first"},
                ],
            }
        ],
    }
    if "--predict_only" in command:
        del task["filter_list"]  # the whole text is what the next run needs
    tasks = folder / "tasks"
    tasks.mkdir(parents=True)
    (tasks / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML
    subprocess.run(
        [
            str(Path(sys.executable).with_name("lm_eval")),
            "run",
            *command,
            *("--tasks", name, "--include_path", str(tasks), "--apply_chat_template"),
            *("--log_samples", "--output_path", str(folder / "out")),
        ],
        check=True,
        env=os.environ | {"OPENAI_API_KEY": "none"},
    )
    [samples] = (folder / "out").rglob("samples_*.jsonl")
    lines = samples.read_text(encoding="utf-8").rstrip("\n").split("\n")  # a text may hold other line ends
    return [{"file": str(samples)} | json.loads(line) for line in lines]


def server(job: dict[str, Any]) -> str:
    """lm-eval's arguments for the job's server."""
    return (
        f"model={job['model']},base_url={job['url']}/chat/completions,num_concurrent={job['concurrent']},"
        "eos_string=<|endoftext|>"
    )


def main() -> None:
    """Both runs, and the answers."""
    os.environ["SKE_LEARN_HOOK"] = "0"  # lm-eval as it was installed
    job = json.loads(Path(sys.argv[1]).read_text())
    stock = ("--model", "local-chat-completions", "--model_args", server(job))
    extract, limit = job["extract"], job["knowledge_tokens"]
    first = evaluate(job, "knowledge", job["items"], extract, "gold", limit, *stock, "--predict_only")
    reason = job["reason"]
    for ours, theirs in JINJA_OF_SAMPLES.items():
        reason = reason.replace(ours, theirs)
    second = evaluate(job, "answer", first[0]["file"], reason, "{{ doc.gold }}", job["answer_tokens"], *stock)
    answers = {sample["doc"]["doc"]["id"]: sample["resps"][0][0] for sample in second}
    (Path(job["folder"]) / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
