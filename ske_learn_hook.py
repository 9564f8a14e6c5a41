"""Makes lm-eval know this package's model and tasks: started by `ske_learn_hook.pth` with every interpreter.

lm-eval 0.4.13 looks for no plugins (later versions read the entry-point group `lm_eval.models`, which this
package also declares; both at once do no harm). So two of its modules are completed right after they were
imported: `lm_eval.models` gets the name `ske_explicit`, as a string that is imported only when asked for,
and `lm_eval.tasks._index` lists the folder `ske_tasks/tasks` right behind the built-in tasks. Nothing of
lm-eval is imported before somebody else does.

    SKE_LEARN_HOOK=0 lm_eval ...        # switched off: lm-eval as it was installed
    python -m ske_models run ...        # the same command without the .pth file
"""

import os
import sys

MODEL = "ske_explicit"
MODEL_CLASS = "ske_models.lm_eval:SKEExplicitLM"
TASKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ske_tasks", "tasks")


def start() -> None:
    """What the .pth file calls: `install` unless the environment says SKE_LEARN_HOOK=0."""
    if os.environ.get("SKE_LEARN_HOOK") != "0":
        install()


def install() -> None:
    """Let lm-eval know the model and the tasks, whether it is imported already or not; again is harmless."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
    for name, complete in COMPLETIONS.items():
        if name in sys.modules:
            complete(sys.modules[name])


def add_model(models) -> None:
    """Register `ske_explicit` after `lm_eval.models` has filled the registry: an earlier entry would make
    lm-eval take the registry for filled and `hf` for unknown."""
    from lm_eval.api.registry import model_registry

    if MODEL not in model_registry:
        model_registry.register(MODEL, target=MODEL_CLASS)


def add_tasks(index) -> None:
    """Let `TaskIndex.build` read our folder right behind the built-in one, so that a user's folder, which
    comes later, still has the last word. A caller who leaves the built-in tasks out gets none of ours."""
    from pathlib import Path

    build, builtin, ours = index.TaskIndex.build, Path(index.__file__).parent, Path(TASKS)

    def build_with_ours(paths, **options):
        paths = list(paths)
        if builtin in paths and ours not in paths:
            paths.insert(paths.index(builtin) + 1, ours)
        return build(paths, **options)

    index.TaskIndex.build = staticmethod(build_with_ours)


COMPLETIONS = {"lm_eval.models": add_model, "lm_eval.tasks._index": add_tasks}


class Finder:
    """Answers for the two modules only; the finders behind it do the finding."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in COMPLETIONS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is Finder else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = Loader(spec.loader, COMPLETIONS[name])
                return spec
        return None


class Loader:
    """Runs the module with its real loader, puts that back in its place, then completes the module."""

    def __init__(self, real, complete):
        self.real, self.complete = real, complete

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self.real
        self.real.exec_module(module)
        try:
            self.complete(module)
        except Exception as error:
            import warnings

            # A later lm-eval may be shaped differently; that must cost our names, not the user's run.
            warnings.warn(
                f"ske-learn could not extend {module.__name__}: {error!r}; set SKE_LEARN_HOOK=0 to leave it alone",
                stacklevel=2,
            )
