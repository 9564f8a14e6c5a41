"""OpenCompass' tasks, one dataset at a time: what fails on one dataset does not take the others with it.

    infer = dict(..., runner=dict(..., task=dict(type=InferTask)))     # in a config
    python -m ske_models.opencompass.tasks infer CONFIG                       # what OpenCompass then runs

OpenCompass 0.5.4 ends a task at its first exception, and with `--debug` the whole command. Here a task goes
through its datasets, writes down why one failed (`logs/infer/MODEL/DATASET.error`), and goes on; the
summarizer (ske_models/opencompass/summary.py) then ends the command with a line for each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict  # type: ignore[import-untyped]
from opencompass.tasks import OpenICLEvalTask, OpenICLInferTask, openicl_eval, openicl_infer
from opencompass.utils import (
    build_dataset_from_cfg,
    build_model_from_cfg,
    dataset_abbr_from_cfg,
    get_infer_output_path,
    get_logger,
    model_abbr_from_cfg,
)

from ske_models.errors import UserError
from ske_models.records import Answer


def error_file(work_dir: str | Path, stage: str, model: Any, dataset: Any) -> Path:
    """Where it says why a dataset failed. stage: "infer" or "eval"; model, dataset: their configs."""
    return Path(get_infer_output_path(model, dataset, str(Path(work_dir, "logs", stage)), "error"))


class Failures:
    """What fails in a stage of a run ("infer" or "eval") is logged and written down, and ends there.

    names: the datasets that failed, as MODEL/DATASET.
    """

    def __init__(self, stage: str, work_dir: str) -> None:
        self.stage, self.work_dir = stage, work_dir
        self.names: list[str] = []

    @contextmanager
    def caught(self, model: Any, datasets: Sequence[Any]) -> Iterator[None]:
        """An exception in here is the failure of these datasets of a model."""
        for dataset in datasets:  # what an earlier attempt said
            error_file(self.work_dir, self.stage, model, dataset).unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            name, reason = model_abbr_from_cfg(model), cause(error)
            failed = [dataset_abbr_from_cfg(dataset) for dataset in datasets]
            what = failed[0] if len(failed) == 1 else f"its {len(failed)} datasets"
            get_logger().error(f"{name}, {what}: {reason}", exc_info=not isinstance(error, UserError))
            for dataset in datasets:
                path = error_file(self.work_dir, self.stage, model, dataset)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(reason + "\n", encoding="utf-8")
            self.names += [f"{name}/{dataset}" for dataset in failed]


def cause(error: Exception) -> str:
    """One line. A user's mistake says everything itself; of anything else the kind is named, too."""
    line = next(iter(str(error).strip().splitlines()), "")
    ours = isinstance(error, UserError)
    return line.removeprefix("ske-learn: ") if ours else f"{type(error).__name__}: {line}"


class InferTask(OpenICLInferTask):
    """`OpenICLInferTask` that loads its model once, and goes on after a dataset that failed."""

    def get_command(self, cfg_path: str, template: str) -> str:
        return _ours(super().get_command(f"infer {cfg_path}", template), openicl_infer.__file__)

    def run(self, cur_model: Any = None, cur_model_abbr: str | None = None) -> None:
        """cur_model: with `--debug`, the model of the task before, called cur_model_abbr."""
        self.failures = Failures("infer", self.work_dir)
        for cfg, datasets in zip(self.model_cfgs, self.dataset_cfgs, strict=True):
            name = model_abbr_from_cfg(cfg)
            self.model, self.model_cfg = None, cfg  # what the runner keeps for the next task
            with self.failures.caught(cfg, datasets):
                self.model = cur_model if name == cur_model_abbr else build_model_from_cfg(cfg)
            if self.model is None:
                continue
            for number, dataset in enumerate(datasets, start=1):
                self.logger.info(f"{name}: dataset {number} of {len(datasets)}")
                with self.failures.caught(cfg, [dataset]):
                    _OneInfer(_alone(self.cfg, cfg, dataset)).run(self.model, name)


class _OneInfer(OpenICLInferTask):
    """`OpenICLInferTask` that refuses a dataset of which nothing is to be asked."""

    def _inference(self) -> None:
        reader = self.dataset_cfg["reader_cfg"]
        if "test_range" in reader and not len(self.dataset.test):
            whole = {**self.dataset_cfg, "reader_cfg": {**reader, "test_range": None}}
            size = len(build_dataset_from_cfg(ConfigDict(whole)).test)
            raise UserError(
                f"SKE_SLICE (test_range) {reader['test_range']}: past the {size} items of "
                f"{dataset_abbr_from_cfg(self.dataset_cfg)}; leave -r out and give a range that it has"
            )
        super()._inference()


class EvalTask(OpenICLEvalTask):
    """`OpenICLEvalTask` that goes on after a dataset that failed."""

    def get_command(self, cfg_path: str, template: str) -> str:
        return _ours(super().get_command(f"eval {cfg_path}", template), openicl_eval.__file__)

    def run(self) -> None:
        self.failures = Failures("eval", self.work_dir)
        for model, datasets in zip(self.model_cfgs, self.dataset_cfgs, strict=True):
            for dataset in datasets:
                with self.failures.caught(model, [dataset]):
                    _OneEval(_alone(self.cfg, model, dataset)).run()


class _OneEval(OpenICLEvalTask):
    """`OpenICLEvalTask` whose postprocessors see how a prediction came about, as stated.py needs it."""

    def _load_predictions(self) -> tuple[list[dict[str, Any]], list[Any] | None]:
        items, texts = super()._load_predictions()
        if texts is None:
            return items, None
        traces = [trace_of(item) for item in items]
        return items, [
            Answer(text, trace) if trace and isinstance(text, str) else text
            for text, trace in zip(texts, traces, strict=True)
        ]


def trace_of(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """What `SKEExplicit` has put into the predictions about an item; None with `direct` and other models."""
    prompt = item.get("origin_prompt")
    last = prompt[-1] if isinstance(prompt, list) and prompt else None
    return last if isinstance(last, dict) and last.get("role") == "SKE" else None


def _alone(cfg: ConfigDict, model: Any, dataset: Any) -> ConfigDict:
    """The config of a task for one dataset."""
    return ConfigDict({**cfg, "models": [model], "datasets": [[dataset]]})


def _ours(command: str, script: str) -> str:
    """OpenCompass' command for a task, which runs the file of its own class, for this module."""
    return command.replace(f"{script} ", f"-m {__name__} ")


def main() -> None:
    """What OpenCompass starts for a task."""
    parser = argparse.ArgumentParser(description="Run one task of OpenCompass.")
    parser.add_argument("stage", choices=("infer", "eval"))
    parser.add_argument("config", help="the task's config, as OpenCompass has written it")
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    task = InferTask(config) if args.stage == "infer" else EvalTask(config)
    task.run()
    if task.failures.names:
        raise UserError(f"{len(task.failures.names)} failed: {', '.join(task.failures.names)}")


if __name__ == "__main__":
    main()
