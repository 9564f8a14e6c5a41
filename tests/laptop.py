"""recipes/laptop.yaml with the checkpoint and the data sets of this machine, and counts for a first try.

    python tests/laptop.py --checkpoint /models/qwen > laptop.yaml         # with the recipe's own counts
    python tests/laptop.py --checkpoint /models/smollm2 --tiny > tiny.yaml

Its data sets are in the folder `shared` beside the checkout, which a clone does not have: see
tests/conftest.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import yaml
from small_runs import merged

from training.recipe import FOLDER

SOURCES = [
    {"source": "dataset", "path": "local/stem_questions", "choices": "choices", "answer": "answer"},
    {"source": "passages", "path": "local/stem_corpus", "passage_chars": 600},
]
TINY: dict[str, Any] = {
    "questions": {"decontaminate": ["arc_e"]},
    "generation": {
        "window": 12,
        "max_reasoning_tokens": 24,
        "max_verdict_tokens": 32,
        "max_question_tokens": 24,
    },
    "judge": {"samples": 2},
    "select": {"threshold": 1},
    "sft": {"batch": 4, "epochs": 1, "save_steps": 4},
    "evaluate": {"tasks": ["ske_quick_arc_e"], "methods": ["direct", "explicit"], "limit": 4},
    "analysis": {"self_scored": 6},
}
FEW = {"knowledge": 6, "reasoning": 6, "scoring_knowledge": 4, "scoring_reasoning": 4, "general": 4}


def laptop(checkpoint: str, tiny: bool = False, **changes: Any) -> dict[str, Any]:
    """The recipe with what is here; tiny: two rounds of a few questions. changes: as for `small`."""
    content = yaml.safe_load((FOLDER / "laptop.yaml").read_text(encoding="utf-8"))
    content["model"] = {"checkpoint": checkpoint}
    content["questions"]["sources"] = SOURCES
    content["general"] = [{"source": "dataset", "path": "local/instruct"}]
    if tiny:
        content = merged(content, TINY)
        content["rounds"] = [
            {"judge": "judge", "questions": 12, "mix": FEW},
            {"judge": "judge", "questions": 12, "mix": FEW},  # a model at chance writes no verdict to read
        ]
    return merged(content, changes)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python tests/laptop.py")
    parser.add_argument("--checkpoint", required=True, help="a folder with M0")
    parser.add_argument("--tiny", action="store_true", help="two rounds of a few questions")
    args = parser.parse_args()
    content = json.loads(json.dumps(laptop(args.checkpoint, args.tiny)))  # no object twice: no anchors
    yaml.safe_dump(content, sys.stdout, sort_keys=False)


if __name__ == "__main__":
    main()
