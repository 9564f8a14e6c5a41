"""The tables after an OpenCompass run, and a check that nothing of it failed.

    python -m ske_models.opencompass.summary outputs/ske/TIME     # exit status 1 if something failed

`SKESummarizer` prints what OpenCompass' own summarizer prints (txt, csv and markdown in `summary/`), then
the average as a table of models by methods. OpenCompass exits with 0 even if tasks failed: hence the check.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import tabulate  # type: ignore[import-untyped]
from mmengine.config import Config  # type: ignore[import-untyped]
from opencompass.summarizers import DefaultSummarizer
from opencompass.utils import dataset_abbr_from_cfg, model_abbr_from_cfg

from ske_models.errors import UserError


class SKESummarizer(DefaultSummarizer):
    """OpenCompass' summarizer, and the compact table.

    compact: the row of the summary that goes into the table of models by methods: (dataset or group, metric).
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
        print(
            f"\nThe same as markdown: {path}\nDid every task run? python -m {__spec__.name} {self.work_dir}"
        )

    def _models_by_methods(self, parsed: dict[str, Any]) -> list[list[str]]:
        """A row a checkpoint, a column a method; "-" where a result is missing."""
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


def failures(work_dir: Path) -> Iterator[str]:
    """A line for each model and dataset of the newest config in `work_dir` that has no result, and why.

    Raises UserError if `work_dir` is no folder of an OpenCompass run.
    """
    configs = sorted((work_dir / "configs").glob("*.py"), key=lambda path: path.stat().st_mtime)
    if not configs:
        raise UserError(f"{work_dir}: no OpenCompass run (configs/*.py is missing); give outputs/ske/TIME")
    config = Config.fromfile(configs[-1], format_python_code=False)
    for model in config.models:
        for dataset in config.datasets:
            name, data = model_abbr_from_cfg(model), dataset_abbr_from_cfg(dataset)
            result = work_dir / "results" / name / f"{data}.json"
            if result.is_file():
                error = json.loads(result.read_text(encoding="utf-8")).get("error")
                if error:
                    yield f"{name}/{data}: not scored: {error}"
            elif (work_dir / "predictions" / name / f"{data}.json").is_file():
                yield f"{name}/{data}: predicted, not scored; see {_log(work_dir, 'eval', name)}"
            else:
                yield f"{name}/{data}: no predictions; see {_log(work_dir, 'infer', name)}"


def _log(work_dir: Path, stage: str, model: str) -> Path:
    """The log of a stage: OpenCompass names it after the task's first dataset."""
    folder = work_dir / "logs" / stage / model
    return max(folder.glob("*.out"), key=lambda path: path.stat().st_mtime, default=folder)


def counts(work_dir: Path) -> Iterator[str]:
    """A line for each model with knowledge: how many items, and how many texts reached their token limit."""
    for folder in sorted((work_dir / "predictions").glob("*")):
        traces = [
            turn
            for path in folder.glob("[!t]*.json")
            for item in json.loads(path.read_text(encoding="utf-8")).values()
            for turn in item["origin_prompt"]
            if isinstance(turn, dict) and turn.get("role") == "SKE"
        ]
        if traces:
            cut = {
                step: sum(t["truncated"][step] is True for t in traces) for step in ("knowledge", "answer")
            }
            yield (
                f"{folder.name}: {len(traces)} items; at the token limit: "
                f"{cut['knowledge']} knowledge texts, {cut['answer']} answers"
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Name every task of an OpenCompass run that has no result.")
    parser.add_argument("work_dir", type=Path, help="the run's folder: outputs/ske/TIME")
    work_dir = parser.parse_args().work_dir
    failed = list(failures(work_dir))
    for line in counts(work_dir):
        print(line)
    if failed:
        raise UserError(f"{len(failed)} without a result:\n" + "\n".join(failed))
    print("every model has a result on every dataset")


if __name__ == "__main__":
    main()
