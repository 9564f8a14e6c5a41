"""The tables after an OpenCompass run, and whether something of it failed.

    python -m ske_models.opencompass.summary outputs/ske/TIME     # exit status 1 if something failed

`SKESummarizer` prints what OpenCompass' own summarizer prints (txt, csv and markdown in `summary/`), then
the average as a table of models by methods, and counts. OpenCompass exits with 0 even if tasks failed; this
summarizer ends the command with status 1 and a line for each model and dataset that has no result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import tabulate  # type: ignore[import-untyped]
from mmengine.config import Config  # type: ignore[import-untyped]
from opencompass.summarizers import DefaultSummarizer
from opencompass.utils import dataset_abbr_from_cfg, get_infer_output_path, model_abbr_from_cfg

from ske_models.errors import UserError
from ske_models.opencompass.tasks import error_file, trace_of
from ske_models.reply import reply_of

SHOWN = 20  # failures that are named in the error


class SKESummarizer(DefaultSummarizer):
    """OpenCompass' summarizer, and the compact table.

    compact: the row of the summary that goes into the table of models by methods: (dataset or group, metric).
    `summarize` raises UserError, after all tables, if a model has no result on a dataset.
    """

    def __init__(self, config: Any, compact: tuple[str, str], **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.compact = compact

    def summarize(
        self, output_path: str | None = None, time_str: str = datetime.now().strftime("%Y%m%d_%H%M%S")
    ) -> None:
        super().summarize(output_path, time_str)
        raw, parsed, metrics, modes = self._pick_up_results()
        parsed = self._calculate_group_metrics(raw, parsed, metrics, modes)[1]
        table = self._models_by_methods(parsed)
        print(f"{self.compact[0]}, {self.compact[1]}:\n\n{tabulate.tabulate(table, headers='firstrow')}")
        path = Path(self.work_dir, "summary", f"methods_{time_str}.md")
        path.write_text(self._format_md_table(table), encoding="utf-8")
        print(f"\nThe same as markdown: {path}\n")
        for line in counts(Path(self.work_dir)):
            print(line)
        raise_failed(list(failures(self.cfg, Path(self.work_dir))), Path(self.work_dir))

    def _models_by_methods(self, parsed: dict[str, Any]) -> list[list[str]]:
        """One row per checkpoint, one column per method; "-" where a result is missing."""
        row, metric = self.compact
        cells: dict[str, dict[str, str]] = {}
        for model in self.model_cfgs:
            abbr, method = model_abbr_from_cfg(model), model["method"]
            score = parsed.get(abbr, {}).get(row, {}).get(metric)
            cells.setdefault(abbr.removesuffix(f"-{method}"), {})[method] = (
                "-" if score is None else f"{score:.2f}"
            )
        methods = list(dict.fromkeys(method for row in cells.values() for method in row))
        return [
            ["model", *methods],
            *([name, *(row.get(m, "-") for m in methods)] for name, row in cells.items()),
        ]


def failures(config: Any, work_dir: Path) -> Iterator[str]:
    """A line for each model and dataset of a run's config that has no result in `work_dir`, and why."""
    for model, dataset in product(config.models, config.datasets):
        result = Path(get_infer_output_path(model, dataset, str(work_dir / "results")))
        if not result.is_file():
            yield no_predictions(work_dir, model, dataset) or _failed(work_dir, "eval", model, dataset)
        elif error := json.loads(result.read_text(encoding="utf-8")).get("error"):
            yield f"{_name(model, dataset)}: not scored: {error}"


def no_predictions(work_dir: Path, model: Any, dataset: Any) -> str | None:
    """The line for a model and a dataset without predictions; None if they have some."""
    if Path(get_infer_output_path(model, dataset, str(work_dir / "predictions"))).is_file():
        return None
    return _failed(work_dir, "infer", model, dataset)


def _failed(work_dir: Path, stage: str, model: Any, dataset: Any) -> str:
    """Why a stage did not do its work: its own words, else where its log is."""
    what = {"infer": "no predictions", "eval": "predicted, not scored"}[stage]
    said = error_file(work_dir, stage, model, dataset)
    if said.is_file():
        return f"{_name(model, dataset)}: {what}: {said.read_text(encoding='utf-8').strip()}"
    logs = work_dir / "logs" / stage / model_abbr_from_cfg(model)  # named after a task's first dataset
    log = max(logs.glob("*.out"), key=lambda path: path.stat().st_mtime, default=logs)
    return f"{_name(model, dataset)}: {what}; see {log}"


def _name(model: Any, dataset: Any) -> str:
    return f"{model_abbr_from_cfg(model)}/{dataset_abbr_from_cfg(dataset)}"


def raise_failed(failed: Sequence[str], work_dir: Path) -> None:
    """Raises UserError that names the first of these lines and what to do, if there are any."""
    if not failed:
        return
    more = [] if len(failed) <= SHOWN else [f"... and {len(failed) - SHOWN} more"]
    lines = [*failed[:SHOWN], *more, f"the same command with -r {work_dir.name} does only what is missing"]
    raise UserError(f"{len(failed)} without a result:\n" + "\n".join(lines))


def newest_config(work_dir: Path) -> Any:
    """The newest config of a run's folder. Raises UserError if `work_dir` is no such folder."""
    configs = sorted((work_dir / "configs").glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise UserError(f"{work_dir}: no OpenCompass run (configs/*.py is missing); give outputs/ske/TIME")
    return Config.fromfile(configs[-1], format_python_code=False)


def counts(work_dir: Path) -> Iterator[str]:
    """A line for each model but `direct`: its items, and how many texts reached their limit or are empty."""
    for folder in sorted((work_dir / "predictions").glob("*")):
        items = [
            item
            for path in folder.glob("*.json")
            for item in json.loads(path.read_text(encoding="utf-8")).values()
            if trace_of(item)
        ]
        if not items:
            continue
        traces = [trace_of(item) or {} for item in items]
        cut = {step: sum(t["truncated"][step] is True for t in traces) for step in ("knowledge", "answer")}
        empty = {
            "knowledge": sum(
                not reply_of(t["knowledge"] or "").strip() for t in traces if t["method"] == "explicit"
            ),
            "answer": sum(not reply_of(item["prediction"]).strip() for item in items),
        }
        yield (
            f"{folder.name}: {len(items)} items; at the token limit: "
            f"{cut['knowledge']} knowledge texts, {cut['answer']} answers; "
            f"empty: {empty['knowledge']} knowledge texts, {empty['answer']} answers"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Name every task of an OpenCompass run that has no result.")
    parser.add_argument("work_dir", type=Path, help="the run's folder: outputs/ske/TIME")
    work_dir = parser.parse_args().work_dir
    failed = list(failures(newest_config(work_dir), work_dir))
    for line in counts(work_dir):
        print(line)
    raise_failed(failed, work_dir)
    print("every model has a result on every dataset")


if __name__ == "__main__":
    main()
