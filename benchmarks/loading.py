"""How long loading and rendering all six benchmarks takes, and how much memory.

    HF_ENDPOINT=... python benchmarks/loading.py        # or with the data in the cache and HF_HUB_OFFLINE=1

Every question is rendered for direct, CoT and explicit (both layouts), through the task objects that
`lm_eval` uses. Prints a table; the time includes the downloads from the endpoint when the cache is empty.
"""

from __future__ import annotations

import resource
import time

from lm_eval.tasks import TaskManager
from rich.console import Console
from rich.table import Table

from ske_models.method import LAYOUTS, Question, answer_messages, knowledge_messages
from ske_models.prompts import load as load_prompts
from ske_tasks.six.rows import prompt

TASKS = ["ske_mmlu", "ske_agieval", "ske_arc_e", "ske_arc_c", "ske_bbh", "ske_nq"]


def main() -> None:
    """Load and render the six tasks one after the other and print seconds, questions and peak memory."""
    manager = TaskManager()
    table = Table("task", "questions", "load s", "render s", "prompts")
    prompts = load_prompts("default")
    total = [0, 0.0, 0.0, 0]
    for name in TASKS:
        began = time.perf_counter()
        task = manager.load([name])["tasks"][name]
        loaded = time.perf_counter()
        rendered = 0
        for doc in task.test_docs():
            text = task.fewshot_context(doc, num_fewshot=0)
            question = Question((), prompt(doc), doc["ske_question"], doc["ske_ending"])
            messages = [
                answer_messages(question, prompts, "cot", "single", None),
                knowledge_messages(question, prompts),
            ]
            messages += [
                answer_messages(question, prompts, "explicit", layout, "A fact.") for layout in LAYOUTS
            ]
            rendered += len(messages) + bool(text)
        done = time.perf_counter()
        row = [len(task.test_docs()), loaded - began, done - loaded, rendered]
        total = [a + b for a, b in zip(total, row, strict=True)]
        table.add_row(name, *_shown(row))
    table.add_section()
    table.add_row("all", *_shown(total))
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{total[1] + total[2]:.1f} s in all, peak memory {peak:.2f} GiB")


def _shown(row: list) -> list[str]:
    return [str(row[0]), f"{row[1]:.1f}", f"{row[2]:.1f}", str(row[3])]


if __name__ == "__main__":
    main()
