"""opencompass_short.py for vLLM on a CPU."""

from mmengine.config import read_base

with read_base():
    from .opencompass_short import *  # noqa: F403

for model in models:  # noqa: F405
    model["llm"]["model_kwargs"].update(enforce_eager=True, dtype="float32")
del model
