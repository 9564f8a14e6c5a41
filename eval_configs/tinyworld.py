"""TinyWorld's test questions as an OpenCompass dataset: 500 of the 2,500, the same share of each kind."""

# ruff: noqa: C408  (OpenCompass writes its configs with dict())

from opencompass.openicl.icl_inferencer import GenInferencer
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever import ZeroRetriever

from ske_tasks.world.opencompass import TinyWorldDataset, TinyWorldEvaluator

tinyworld_datasets = [
    dict(
        abbr="tinyworld",
        type=TinyWorldDataset,
        path="test",
        size=500,
        reader_cfg=dict(input_columns=["ske_question"], output_column="gold"),
        infer_cfg=dict(
            prompt_template=dict(
                type=PromptTemplate, template=dict(round=[dict(role="HUMAN", prompt="{ske_question}")])
            ),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer, max_out_len=96),
        ),
        eval_cfg=dict(evaluator=dict(type=TinyWorldEvaluator)),
    )
]
