"""What distilabel is compared with in benchmarks/peers.py: the stage `synthesize` of a round.

python benchmarks/peers/ours_synthesis.py JOB.json
"""

import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Makes the run's folder, runs the stage, and writes the answers."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["folder"])
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    recipe = {
        "name": "peers",
        "prompts": job["prompts"],
        "model": {"checkpoint": "embedded"},  # not asked: a server is
        "questions": {"sources": [{"source": "world", "split": "rounds"}]},  # not asked either
        "generation": {
            "backend": "local-chat-completions",
            "endpoints": [job["url"]],
            "args": {"model": job["model"], "num_concurrent": job["concurrent"]},
            "max_reasoning_tokens": job["answer_tokens"],
        },
        "judge": {"kind": "world"},
        "select": {},
        "sft": {},
        "rounds": [{"judge": "judge", "questions": len(rows), "mix": {}}],
        "evaluate": {"tasks": []},
    }
    (folder / "run" / "round1").mkdir(parents=True)
    (folder / "run" / "recipe.json").write_text(json.dumps(recipe))
    questions = folder / "run" / "round1" / "questions.jsonl"
    with questions.open("w") as file:
        for row in rows:
            file.write(json.dumps({name: row[name] for name in ("id", "question", "ending")}) + "\n")
    subprocess.run(
        [sys.executable, "-m", "training.stage", "synthesize", str(folder / "run"), "1"],
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    written = (folder / "run" / "round1" / "written.jsonl").read_text().splitlines()
    answers = {row["id"]: row["reasoning"] for row in map(json.loads, written)}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
