"""Peer of benchmarks/peers.py, for the synthesis stage: a distilabel pipeline of two tasks.

python benchmarks/peers/distilabel_pipeline.py JOB.json  # in the peers' own environment
"""

import json
import sys
from pathlib import Path
from typing import Any

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration


def step(job: dict[str, Any], output: str, template: str, columns: list[str], limit: int) -> TextGeneration:
    """One of the two tasks: all prompts of a batch at once, and the batches of both tasks side by side."""
    return TextGeneration(
        name=output,
        llm=OpenAILLM(
            model=job["model"],
            base_url=job["url"],
            api_key="none",
            generation_kwargs={"max_new_tokens": limit, "temperature": 0.0},
        ),
        template=template,
        columns=columns,
        input_batch_size=job["concurrent"],
        output_mappings={"generation": output, "model_name": f"{output}_model"},
        add_raw_input=False,
        add_raw_output=False,
    )


def main() -> None:
    """Runs the pipeline and writes the answers."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    with Pipeline(name="two-steps") as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=job["concurrent"])
        extract = step(job, "knowledge", job["extract"], ["question"], job["knowledge_tokens"])
        reason = step(job, "answer", job["reason"], ["question", "ending", "knowledge"], job["answer_tokens"])
        load >> extract >> reason
    distiset = pipeline.run(use_cache=False)
    written = distiset["default"]["train"]
    written.to_json(str(Path(job["folder"]) / "written.jsonl"))
    answers = dict(zip(written["id"], written["answer"], strict=True))
    (Path(job["folder"]) / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
