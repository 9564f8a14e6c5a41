"""What libraries read in replies: lighteval's extractive match, and math-verify's own strings and LaTeX.

    uv venv lighteval-env && VIRTUAL_ENV=lighteval-env uv pip install lighteval==0.13.0
    python benchmarks/extraction.py --library lighteval-env/bin/python

Runs in that environment (lighteval pins an older math-verify than ours): reads lines of JSON with `kind`,
`options` (a list of letters, or of words for a label), `output` and `golds`, and writes a line for each: for
every library whether the answer is right, None where it has no rule for the kind, and what it read.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from importlib.metadata import version
from typing import Any

from lighteval.metrics.utils.extractive_match_utils import (
    ExprExtractionConfig,
    IndicesExtractionConfig,
    LatexExtractionConfig,
    extract_target_from_pred,
    get_extraction_regexes,
)
from lighteval.metrics.utils.math_comparison import compare_gold_target
from lighteval.tasks.requests import Doc
from lighteval.utils.language import Language
from math_verify import StringExtractionConfig, parse, verify

Row = dict[str, Any]


def lighteval(row: Row) -> tuple[bool | None, str]:
    """Its metric for GPQA (indices) and for mathematics (expressions and LaTeX), as its tasks set them."""
    language = Language.CHINESE if re.search("[一-鿿]", row["output"]) else Language.ENGLISH
    if row["kind"] == "choice" and row["options"] == [chr(65 + n) for n in range(len(row["options"]))]:
        targets: list[Any] = [IndicesExtractionConfig(prefix_for_extraction="NativeLetters")]
    elif row["kind"] in ("number", "math"):
        targets = [ExprExtractionConfig(), LatexExtractionConfig()]
    else:
        return None, ""
    doc = Doc(query="", choices=row["options"] or [""], gold_index=0)
    patterns = get_extraction_regexes(doc, targets, language)
    found = extract_target_from_pred(row["output"], patterns, "first_match", "any_match", 5)
    golds = [
        extract_target_from_pred(
            f"${gold}$" if row["kind"] == "math" else gold, patterns, "first_match", "any_match", 5
        )
        if row["kind"] != "choice"
        else [gold]
        for gold in row["golds"]
    ]
    return any(compare_gold_target(gold, found, 6, timeout_seconds=5) for gold in golds), str(found[:1])


def math_verify(row: Row) -> tuple[bool | None, str]:
    """Its strings for letters and labels, its defaults for numbers and mathematics."""
    if row["kind"] in ("choice", "label"):
        found = parse(row["output"], [StringExtractionConfig(strings=tuple(row["options"]))])
        read = str(found[0]) if found else ""
        return read.lower() in {gold.lower() for gold in row["golds"]}, read
    if row["kind"] not in ("number", "math"):
        return None, ""
    found = parse(row["output"])
    return any(verify(parse(f"${gold}$"), found) for gold in row["golds"]), str(found[:1])


def main() -> None:
    """Read all of stdin, write a line for each."""
    logging.disable(logging.CRITICAL)
    answers, sys.stdout = sys.stdout, sys.stderr
    names = [f"lighteval {version('lighteval')}", f"math-verify {version('math-verify')}"]
    print(json.dumps(names), file=answers)
    for line in sys.stdin:
        row = json.loads(line)
        print(json.dumps([lighteval(row), math_verify(row)]), file=answers)


if __name__ == "__main__":
    main()
