"""The report of a run, done or under way: RUN/report.html (one file, opens offline) and its pictures.

    python -m training.reporting.report runs/mine        # also prints the table M0 ... M4

Numbers, sections, pictures and the page's template are in `training/reporting/`. What is not there yet
is named.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from ske_models.errors import UserError
from training.reporting import page, tables
from training.reporting.cells import cell
from training.reporting.page_accuracy import NAMES, main_table, methods, tasks
from training.run_folder import RunFolder

PICTURES = ("accuracy", "scores", "agreement", "meta_skills", "times")


def run(folder: RunFolder) -> dict[str, Any]:
    """Writes RUN/report.html and the PNG files that it shows; returns which checkpoints it has results of.

    Raises UserError if the disk is full or the folder cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = {name: folder.path / f"{name}.png" for name in PICTURES}
    target = folder.path / "report.html"
    try:
        for file in files.values():  # no picture of an earlier state is left beside the page
            file.unlink(missing_ok=True)
        content = page.content(folder)
        content["pictures"] = {
            name: base64.b64encode(file.read_bytes()).decode()
            for name, file in files.items()
            if file.is_file()
        }
        new = target.with_name(".report.html")
        new.write_text(environment.get_template("report.html.j2").render(content), encoding="utf-8")
        new.replace(target)
    except OSError as error:
        raise UserError(
            f"{target}: cannot be written: {error.strerror}; make room and report again"
        ) from error
    return {"report": str(target), "checkpoints": sorted({k for _, _, k in tables.results(folder)})}


def summary_table(folder: RunFolder) -> Table:
    """M0 ... M4 by methods, for the terminal: of several tasks the main table, of one with intervals."""
    found = tables.results(folder)
    if len({task for task, _, _ in found}) > 1 and (main := main_table(found)):
        table = Table(title=f"{main['caption']}; intervals are in the report")
        for name in main["head"]:
            table.add_column(name, justify="right" if name else "left", no_wrap=True)
        for row, following in zip(main["rows"], [*main["rows"][1:], None], strict=True):
            ends = following is None or following[0].split()[0] != row[0].split()[0]
            table.add_row(*row, end_section=ends)
        return table
    table = Table(title="Accuracy in percent [95 % interval]", caption_justify="left")
    accuracies = tables.accuracies(found)
    used = methods(accuracies)
    table.add_column("task")
    table.add_column("model")
    for name in ("n", *(NAMES[method] for method in used)):
        table.add_column(name, justify="right")
    for task in tasks(accuracies):
        series = {method: accuracies.get((task, method), {}) for method in used}
        checkpoints = sorted({k for one in series.values() for k in one})
        for k in checkpoints:
            n = next(one[k].n for one in series.values() if k in one)
            cells = [cell(one.get(k)) for one in series.values()]
            first, last = k == checkpoints[0], k == checkpoints[-1]
            table.add_row(task if first else "", f"M{k}", f"{n:,}", *cells, end_section=last)
    if not table.row_count:
        table.caption = "nothing is evaluated yet"
    return table


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.reporting.report")
    parser.add_argument("run", type=Path, help="the run's folder")
    opened = RunFolder.open(parser.parse_args().run)
    made = run(opened)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(summary_table(opened))
    console.print(f"report: {made['report']}")


if __name__ == "__main__":
    main()
