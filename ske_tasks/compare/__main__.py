"""Two or more runs over the same questions, compared question by question.

    lm_eval --model ske_explicit --model_args method=direct,... --tasks ske --log_samples --output_path a
    lm_eval --model ske_explicit --model_args method=explicit,... --tasks ske --log_samples --output_path b
    python -m ske_tasks.compare a b                      # table in the terminal
    python -m ske_tasks.compare a b --html compare.html  # and a page with every question

Takes the folders of any lm-eval or OpenCompass runs, and of evaluated rounds (RUN/results/M1 RUN/results/M4).
Accuracies and paired differences have 95 % intervals (bootstrap over questions; those about one passage or
person are drawn together), and McNemar's exact p. Runs over different questions are refused; another prompt
set, task or extraction is said.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from ske_models.errors import UserError
from ske_tasks.compare.page import write
from ske_tasks.compare.runs import read
from ske_tasks.compare.table import accuracies, compare, differences, left_out, paired


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--by", metavar="FIELD", help="rows by a field of the questions: subset, kind")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with every question")
    args = parser.parse_args()
    if args.html and args.html.is_dir():
        raise UserError(f"--html {args.html}: a folder; give the name of a file")
    found = compare([run for path in args.runs for run in read(path, args.html is not None, args.by)])
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(accuracies(found))
    console.print(paired(found))
    for line in differences(found.runs):
        console.print(f"differs: {line}", markup=False)
    for line in left_out(found.runs):
        console.print(f"left out: {line}", markup=False)
    if args.html:
        write(args.html, found)
        console.print(f"page: {args.html}", markup=False)


if __name__ == "__main__":
    main()
