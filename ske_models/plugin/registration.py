"""What `ske_learn_hook` adds to lm-eval 0.4.13, which looks for no plugins.

lm-eval after 0.4.13 reads the entry-point group `lm_eval.models`, which this package declares too; it skips a
name that is taken, so both at once do no harm. Two modules of lm-eval are completed right after they ran:
`lm_eval.models` gets the name `ske_explicit`, and `lm_eval.tasks._index` lists our folder of tasks.

    lm_eval ls tasks | grep ske
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

MODEL = "ske_explicit"
MODEL_CLASS = "ske_models.lm_eval:SKEExplicitLM"  # a string: imported when the model is asked for
TASKS = Path(__file__).resolve().parents[2] / "ske_tasks" / "tasks"


def find_spec(
    name: str, path: Sequence[str] | None, target: ModuleType | None, behind: Any
) -> ModuleSpec | None:
    """The spec that the finders other than `behind` have for the module, with a loader that completes it."""
    for finder in sys.meta_path:
        spec = None if finder is behind else finder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = CompletingLoader(spec.loader)
            return spec
    return None


class CompletingLoader(Loader):
    """Runs a module with its real loader, which it puts back in its own place, then completes the module."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self.real
        module.__loader__ = self.real
        self.real.exec_module(module)
        complete(module)


def complete(module: ModuleType) -> None:
    """Add what is ours to one of the two modules. A lm-eval of another shape costs our names and a warning,
    not the user's run."""
    try:
        (add_model if module.__name__ == "lm_eval.models" else add_tasks)(module)
    except Exception as error:
        warnings.warn(
            f"ske-learn could not extend {module.__name__}: {error!r}; SKE_LEARN_HOOK=0 leaves it alone",
            stacklevel=2,
        )


def add_model(_models: ModuleType) -> None:
    """Register `ske_explicit` once lm-eval has filled its registry. Earlier, the entry would make lm-eval
    take the registry for filled, and `hf` for unknown."""
    from lm_eval.api.registry import model_registry

    if MODEL not in model_registry:
        model_registry.register(MODEL, target=MODEL_CLASS)


def add_tasks(index: ModuleType) -> None:
    """Let `TaskIndex.build` read our folder right behind the built-in one: a user's folder comes later and so
    has the last word. A caller who leaves the built-in tasks out gets none of ours."""
    _look_after_results()
    build, builtin = index.TaskIndex.build, Path(str(index.__file__)).parent

    def build_with_ours(paths: Iterable[Path], **options: Any) -> dict[str, Any]:
        paths = list(paths)
        if builtin in paths and TASKS not in [path.resolve() for path in paths]:
            paths.insert(paths.index(builtin) + 1, TASKS)
        if builtin not in paths:
            return build(paths, **options)
        from ske_models.plugin.task_index import remembered

        with remembered(index, builtin):
            return build(paths, **options)

    index.TaskIndex.build = staticmethod(build_with_ours)


def _look_after_results() -> None:
    """Complete the class that writes results, where it is loaded: before tasks, in lm-eval's evaluator."""
    tracker = sys.modules.get("lm_eval.loggers.evaluation_tracker")
    if tracker is not None:
        from ske_models.plugin.results_file import WithoutKeys, complete_tracker

        complete_tracker(tracker.EvaluationTracker)
        logging.getLogger("lm_eval.evaluator").addFilter(WithoutKeys())
