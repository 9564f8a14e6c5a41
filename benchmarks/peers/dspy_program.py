"""Peer of benchmarks/peers.py: a DSPy program of two steps, run by `dspy.Evaluate`.

    python benchmarks/peers/dspy_program.py JOB.json         # in the peers' own environment

The program calls its language model itself: `dspy.Predict` would put prompts of its own around ours, and
fails at an empty reply, which a small random model gives at times.
"""

import json
import re
import sys
from pathlib import Path

import dspy
from jinja2 import Template


class TwoSteps(dspy.Module):
    """Knowledge, then an answer with it. `steps`: template and token limit of each."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.steps = [(Template(template), limit) for template, limit in steps]

    def forward(self, question: str, ending: str) -> dspy.Prediction:
        """The prediction's `answer` is what the second step wrote."""
        text = ""
        for template, limit in self.steps:
            prompt = template.render(question=question, ending=ending, knowledge=text)
            [text] = dspy.settings.lm(messages=[{"role": "user", "content": prompt}], max_tokens=limit)
        return dspy.Prediction(answer=text)


def main() -> None:
    """Evaluates the program and writes the answers."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    lm = dspy.LM(f"openai/{job['model']}", api_base=job["url"], api_key="none", temperature=0.0, cache=False)
    dspy.configure(lm=lm)
    pattern = re.compile(job["pattern"])

    def metric(example: dspy.Example, prediction: dspy.Prediction) -> bool:
        found = pattern.search(prediction.answer)
        return bool(found) and found[1] == example.gold

    evaluate = dspy.Evaluate(
        devset=[dspy.Example(**row).with_inputs("question", "ending") for row in rows],
        metric=metric,
        num_threads=job["concurrent"],
        save_as_json=str(Path(job["folder"]) / "results.json"),
    )
    program = TwoSteps([(job["extract"], job["knowledge_tokens"]), (job["reason"], job["answer_tokens"])])
    answers = {example.id: prediction.answer for example, prediction, _ in evaluate(program).results}
    (Path(job["folder"]) / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
