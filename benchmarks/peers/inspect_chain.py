"""Peer of benchmarks/peers.py: an Inspect AI task, a chain of two solvers.

python benchmarks/peers/inspect_chain.py JOB.json        # in the peers' own environment
"""

import json
import sys
from pathlib import Path

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser
from inspect_ai.scorer import pattern
from inspect_ai.solver import Generate, Solver, TaskState, chain, solver
from jinja2 import Template


@solver
def ask(template: str, limit: int) -> Solver:
    """One step in a conversation of its own; what the step before it wrote is the template's `knowledge`."""
    compiled = Template(template)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        prompt = compiled.render(**state.metadata, knowledge=state.output.completion)
        state.messages = [ChatMessageUser(content=prompt)]
        return await generate(state, max_tokens=limit)

    return solve


def main() -> None:
    """Runs the task and writes the answers."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    task = Task(
        dataset=[
            Sample(id=row["id"], input=row["question"], target=row["gold"], metadata=row) for row in rows
        ],
        solver=chain(
            ask(job["extract"], job["knowledge_tokens"]),
            ask(job["reason"], job["answer_tokens"]),
        ),
        scorer=pattern(job["pattern"]),
    )
    folder = Path(job["folder"])
    [log] = inspect_ai.eval(
        task,
        model=f"vllm/{job['model']}",
        model_base_url=job["url"],
        max_connections=job["concurrent"],
        temperature=0.0,
        log_dir=str(folder / "logs"),
        display="plain",
    )
    answers = {str(sample.id): sample.output.completion for sample in log.samples or []}
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
