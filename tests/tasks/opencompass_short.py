"""eval_configs/ske.py with a few tokens per text, for the noise of a tiny model.

A dataset that gives no limit (ARC) has none here either.
"""

from mmengine.config import read_base

with read_base():
    from ...eval_configs.ske import *  # noqa: F403

for dataset in datasets:  # noqa: F405
    if "max_out_len" in dataset["infer_cfg"]["inferencer"]:
        dataset["infer_cfg"]["inferencer"]["max_out_len"] = 6
for model in models:  # noqa: F405
    model["max_knowledge_toks"] = 8
    model["max_reasoning_toks"] = 6
del dataset, model
