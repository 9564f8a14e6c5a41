"""Lets lm-eval know our model and tasks.

Started by `ske_learn_hook.pth` with every interpreter, so it is small;
ske_models/plugin/registration.py does the work.

    SKE_LEARN_HOOK=0 lm_eval ...     # switched off: lm-eval as it was installed
    python -m ske_models run ...     # the same command without the .pth file
"""

import os
import sys

COMPLETED = ("lm_eval.models", "lm_eval.tasks._index")


def start():
    if os.environ.get("SKE_LEARN_HOOK") != "0":
        install()


def install():
    """Complete the two modules of lm-eval when they are imported, or now. Calling it again is harmless."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
    for name in COMPLETED:
        if name in sys.modules:
            from ske_models.plugin import registration

            registration.complete(sys.modules[name])


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in COMPLETED:
            return None
        try:
            from ske_models.plugin import registration
        except ModuleNotFoundError:  # the package was removed and the .pth file left behind
            return None
        return registration.find_spec(name, path, target, behind=Finder)
