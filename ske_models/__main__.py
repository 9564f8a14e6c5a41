"""lm-eval's own command with `ske_explicit` and our tasks in it, without the start-up hook.

    python -m ske_models run --model ske_explicit --tasks ske_world

What `lm_eval` does after an install; for environments where the `.pth` hook is off or not wanted.
"""

import ske_learn_hook

if __name__ == "__main__":
    ske_learn_hook.install()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
