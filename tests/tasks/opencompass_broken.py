"""TinyWorld with what can fail: a dataset that cannot be loaded, one that cannot be scored, a model."""

from mmengine.config import read_base

with read_base():
    from ...eval_configs.ske import *  # noqa: F403

[good] = datasets  # noqa: F405
scoring = {"evaluator": dict(good["eval_cfg"]["evaluator"], nope=1)}
datasets = [dict(good, abbr="nowhere", path="nowhere"), dict(good, abbr="unscored", eval_cfg=scoring), good]
models = [dict(models[0], abbr="gone-direct", llm=dict(models[0]["llm"], path="/nowhere/M9")), *models]  # noqa: F405
del good, scoring
