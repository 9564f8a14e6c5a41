"""What the peers of benchmarks/peers.py are compared with: `lm_eval --model ske_explicit`.

python benchmarks/peers/ours_evaluation.py JOB.json
"""

import json
import sys
from pathlib import Path

from lm_eval_twice import evaluate, server


def main() -> None:
    """The run, and the answers."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    items = folder / "items.jsonl"
    with items.open("w") as file:
        for row in rows:
            row |= {"ske_question": row.pop("question"), "ske_ending": row.pop("ending")}
            file.write(json.dumps(row) + "\n")
    args = f"backend=local-chat-completions,prompts={job['prompts']},store={folder / 'store.sqlite'}"
    samples = evaluate(
        job,
        "explicit",
        str(items),
        "{{ ske_question }}\n\n{{ ske_ending }}",
        "gold",
        job["answer_tokens"],
        *("--model", "ske_explicit", "--model_args", f"{args},{server(job)}"),
    )
    answers = {sample["doc"]["id"]: sample["resps"][0][0] for sample in samples}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
