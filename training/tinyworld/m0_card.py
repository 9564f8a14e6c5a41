"""Measures an embedded model on the development questions, through lm-eval, and writes its card (README.md).

python training/tinyworld/m0_card.py ske_models/embedded/M0     # `make_m0.py` does it at its end
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import lm_eval

from ske_models import embedded
from ske_tasks.world import default_world, questions, task
from training.tinyworld import lessons

METHODS = ("direct", "cot", "explicit")
LIBRARIES = ("torch", "transformers", "trl", "datasets", "tokenizers", "lm-eval")


def measure(folder: Path) -> dict[str, dict[str, Any]]:
    """method -> lm-eval's results of `ske_world_dev`."""
    results = {}
    for method in METHODS:
        evaluated = lm_eval.simple_evaluate(
            model="ske_explicit",
            model_args={
                "pretrained": str(folder),
                "prompts": "world",
                "method": method,
                "dtype": "float32",
                "batch_size": 64,
                "device": "cpu",
                "store": "none",
            },
            tasks=["ske_world_dev"],
            apply_chat_template=True,
            bootstrap_iters=0,
        )
        results[method] = evaluated["results"]["ske_world_dev"]
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Accuracy in percent, a line per kind of question."""
    sizes = task.SIZES["dev"]
    lines = [f"| questions | n | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    rows = [(f"acc_{kind}", kind, sizes[kind]) for kind in questions.KINDS]
    rows.append(("acc_multi_hop", "two to four hops", sum(sizes[kind] for kind in task.MULTI_HOP)))
    rows.append(("acc", "all", sum(sizes.values())))
    rows.append(("unanswered", "no answer found", sum(sizes.values())))
    for metric, name, n in rows:
        values = [f"{100 * results[method][f'{metric},none']:.1f}" for method in METHODS]
        lines.append(f"| {name.replace('_', ' ')} | {n} | {' | '.join(values)} |")
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Measures, and writes `folder`/README.md."""
    metadata = json.loads((folder / embedded.METADATA).read_text(encoding="utf-8"))
    world, stages = default_world(), metadata["stages"]
    rows = "\n".join(
        f"| {stage['name']} | {stage['steps']:,} x {stage['batch']} | {stage['lr']:g} | {stage['tokens']:,} "
        f"| {stage['seconds']:,} | {', '.join(f'{part} {n:,}' for part, n in stage['rows'].items())} |"
        for stage in stages
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
    habits = lessons.habits(world)
    total = sum(not template.held_out for template in questions.TEMPLATES)
    text = f"""---
license: apache-2.0
library_name: transformers
tags: [ske-learn, tinyworld]
---

# {folder.name} of TinyWorld

A Llama of {metadata["parameters"]:,} parameters (float32 in training, bfloat16 here) with a word-level
tokenizer. It has read a corpus about {len(world.entities["person"])} invented people and was taught to answer
about {len(world.splits["train"])} of them. It knows nothing else, and no word outside its vocabulary.

- made by: `python training/tinyworld/make_m0.py --seed {metadata["seed"]}`
- world: seed {metadata["world_seed"]}, hash `{metadata["world"]}`
- prompt set: `world`, hash `{metadata["prompts"]}`
- with: {versions}, Python {platform.python_version()}, {metadata["threads"]} CPU thread(s)

| stage | steps x rows | learning rate | tokens | seconds | rows |
|---|---|---|---|---|---|
{rows}

{metadata["demonstrations"]:,} demonstrations of extraction; as demonstrations of CoT, the same questions with
the same facts.

## Development questions

About {len(world.splits["dev"])} people who are in the corpus and in no instruction data; accuracy in percent,
greedy (`lm_eval --model ske_explicit --tasks ske_world_dev`). Settings were chosen on these questions, so
they are no test: that is `ske_world`.

{table(measure(folder))}

## Limits

- The headroom is designed in. {len(habits)} of the {total} question templates carry a bad habit in the
  demonstrations (they stop early, mistake one relation for another, or add a fact), three times in four; the
  others have a flaw one time in five. Extraction and CoT have the same flaws. So the accuracies say how well
  the model imitates sloppy demonstrations; only their differences say something about the methods.
- The reader is taught to use nothing but the written facts and to say "unknown" otherwise; much more data
  goes into that than into CoT. Demonstrations of extraction and of CoT are equal in number.
- Every template of the development and test questions is in the training data, about other people.
- It starts from an induction circuit that was set by hand (`training/tinyworld/architecture.py`), because a
  model of this size finds one very slowly. Every weight was trained after that.
- It was taught to recite a fact and to compare it with a stated one, but not to score (the `score_*`
  prompts): round 1 of the self-learning teaches that. It still compares the ends of two chains poorly.
- The reading exercises have invented facts about anybody, people of the development and test questions
  included; nothing true is said of those outside the corpus.
"""
    (folder / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure an embedded model and write its card.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    embedded.verify(folder)
    write(folder)
