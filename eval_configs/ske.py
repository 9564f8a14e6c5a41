"""M0 to M4, by the three methods, on the six benchmarks, with OpenCompass' own datasets and evaluators.

    opencompass eval_configs/ske.py                                  # the embedded model on TinyWorld
    SKE_RUN=runs/paper opencompass eval_configs/ske.py               # every checkpoint of a training run
    SKE_MODELS=M0=/models/M0,/models/M1 SKE_BACKEND=vllm opencompass eval_configs/ske.py
    python -m ske_models.opencompass.summary outputs/ske/TIME        # once more: did everything run?

SKE_RUN       a run folder of training/round.py: its folders M0, M1, ... are the models
SKE_MODELS    instead of it: folders or names on the Hub, with commas between; NAME=PATH gives a name
SKE_METHODS   direct,cot,explicit (all)
SKE_DATASETS  zero-shot (default) | 2024 (OpenCompass' few-shot defaults of the paper's time) | tinyworld
SKE_BACKEND   hf (default) | vllm, for models with a chat template; hf-base | vllm-base, for base models;
              api: an OpenAI-compatible server at OPENAI_BASE_URL, SKE_MODELS are the names it serves
SKE_NUM_GPUS  GPUs of one model: 1 where there is one, else 0; with vllm, tensor parallel
SKE_PROMPTS   a prompt set: default, world, or a YAML file;  SKE_LAYOUT: single | multiturn
SKE_STORE     a folder for what the models write, a file each; without it, ~/.cache/ske-learn
              (with Slurm: outputs/ske-store)
SKE_SLICE     only these items of every dataset, such as [:10], to try things out
SKE_WORLD_SEED  another TinyWorld, with a model of its own in SKE_MODELS and SKE_DATASETS=tinyworld
COMPASS_DATA_CACHE  the folder with OpenCompass' data/
DATASET_SOURCE      ModelScope: OpenCompass takes the data from there, and it is not checked before
OPENAI_API_KEY      for SKE_BACKEND=api, with OPENAI_BASE_URL (OpenAI's own without it)
"""

# ruff: noqa: A001, C408  (OpenCompass wants a variable called `eval`; its configs are written with dict())

from mmengine.config import read_base
from opencompass.models import (
    VLLM,
    HuggingFaceBaseModel,
    HuggingFacewithChatTemplate,
    OpenAISDK,
    VLLMwithChatTemplate,
)
from opencompass.partitioners import NaivePartitioner
from opencompass.runners import SlurmRunner

from ske_models.opencompass.model import SKEExplicit
from ske_models.opencompass.runner import Local
from ske_models.opencompass.summary import SKESummarizer
from ske_models.opencompass.tasks import EvalTask, InferTask

with read_base():
    from opencompass.configs.datasets.agieval.agieval_gen_5c79b4 import agieval_datasets
    from opencompass.configs.datasets.ARC_c.ARC_c_gen_1e0de5 import ARC_c_datasets
    from opencompass.configs.datasets.ARC_e.ARC_e_gen_1e0de5 import ARC_e_datasets
    from opencompass.configs.datasets.bbh.bbh_0shot_nocot_gen_925fc4 import bbh_datasets as bbh_0shot
    from opencompass.configs.datasets.bbh.bbh_gen_5b92b0 import bbh_datasets as bbh_3shot
    from opencompass.configs.datasets.mmlu.mmlu_gen_4d595a import mmlu_datasets as mmlu_5shot
    from opencompass.configs.datasets.mmlu.mmlu_zero_shot_gen_47e2c0 import mmlu_datasets as mmlu_0shot
    from opencompass.configs.datasets.nq.nq_gen_c788f6 import nq_datasets as nq_dpr
    from opencompass.configs.datasets.nq.nq_open_gen_e93f8a import nq_datasets as nq_open
    from opencompass.configs.summarizers.groups.agieval import agieval_summary_groups
    from opencompass.configs.summarizers.groups.bbh import bbh_summary_groups
    from opencompass.configs.summarizers.groups.mmlu import mmlu_summary_groups

    from .tinyworld import tinyworld_datasets

# In a config mmengine turns imports into names that it resolves later; this one is called now. It checks all
# variables and that models, backend and data are available, and ends with one line if not.
run = __import__("ske_models.opencompass.config", fromlist=["begin"]).begin()
if run.embedded:
    __import__("ske_tasks.world.opencompass", fromlist=["require_its_model"]).require_its_model()

# Data ----------------------------------------------------------------------------------------------

six = agieval_datasets + ARC_e_datasets + ARC_c_datasets
datasets = {
    "tinyworld": tinyworld_datasets,
    "zero-shot": mmlu_0shot + six + bbh_0shot + nq_open[:1],  # the first of four: without examples
    "2024": mmlu_5shot + six + bbh_3shot + nq_dpr,
}[run.datasets]
if run.slice:
    datasets = [dict(d, reader_cfg=dict(d["reader_cfg"], test_range=run.slice)) for d in datasets]

# Models --------------------------------------------------------------------------------------------

hf = dict(batch_size=64 if run.embedded else 16)
vllm = dict(model_kwargs=dict(tensor_parallel_size=max(run.num_gpus, 1)))
llm = {
    "hf": dict(hf, type=HuggingFacewithChatTemplate),
    "hf-base": dict(hf, type=HuggingFaceBaseModel),
    "vllm": dict(vllm, type=VLLMwithChatTemplate),
    "vllm-base": dict(vllm, type=VLLM),
    "api": dict(type=OpenAISDK, retry=8, max_workers=64),
}[run.backend]
if run.embedded and run.backend == "hf":
    llm["model_kwargs"] = dict(torch_dtype="float32")

models = [
    dict(
        type=SKEExplicit,
        abbr=f"{name}-{method}",
        method=method,
        prompts=run.prompts,
        layout=run.layout,
        ending="" if run.embedded else 'End with "The answer is X." where X is your answer.',
        store=run.store_of(f"{name}-{method}"),
        max_reasoning_toks=96 if run.embedded else 1024,
        batch_size=1024,  # how many questions go through the steps at once
        llm=dict(llm, path=path),
        run_cfg=dict(num_gpus=run.num_gpus),
    )
    for name, path in run.checkpoints.items()
    for method in run.methods
]
# OpenCompass reads the first line, or the first letter, of an answer: what precedes its statement must go.
for model in models:
    rule = "reply_only" if model["method"] == "direct" else "conclusion"
    model["pred_postprocessor"] = dict(type=f"ske_models.opencompass.{rule}")

# One task per model entry, not per dataset ---------------------------------------------------------

partitioner = dict(type=NaivePartitioner, n=1000)
runner = dict(
    # -p PARTITION alone: through Slurm, a job a model entry, --max-num-workers of them at once
    type=SlurmRunner if run.command_line.partition else Local,
    max_num_workers=run.command_line.max_num_workers,
)
infer = dict(partitioner=partitioner, runner=dict(runner, task=dict(type=InferTask)))
eval = dict(partitioner=partitioner, runner=dict(runner, task=dict(type=EvalTask)))
if run.command_line.mode == "infer" and not run.command_line.partition:
    infer["runner"]["check"] = True
if run.command_line.slurm:
    # OpenCompass then brings a partitioner of its own for `infer`: as many tasks a model as --max-num-workers
    infer["partitioner"] = dict(num_split=1)

# Tables --------------------------------------------------------------------------------------------

nq = "nq" if run.datasets == "2024" else "nq_open_0shot"
rows = [
    ["mmlu", "naive_average"],
    ["agieval", "naive_average"],
    ["ARC-e", "accuracy"],
    ["ARC-c", "accuracy"],
    ["bbh", "naive_average"],
    [nq, "score"],
]
kinds = ["one_hop", "two_hop", "three_hop", "four_hop", "multi_hop", "multiple_choice", "comparison"]
summarizer = dict(
    type=SKESummarizer,
    summary_groups=[
        *mmlu_summary_groups,
        *agieval_summary_groups,
        *bbh_summary_groups,
        dict(name="average", subsets=rows),
    ],
    dataset_abbrs=[*rows, ["average", "naive_average"]],
    compact=["average", "naive_average"],
)
if run.datasets == "tinyworld":
    summarizer["dataset_abbrs"] = [["tinyworld", metric] for metric in (*kinds, "accuracy", "unanswered")]
    summarizer["compact"] = ["tinyworld", "accuracy"]

work_dir = run.command_line.work_dir
asked = run.asked  # what -r compares
del run, rule, model, llm, hf, vllm, six, rows, kinds, nq, partitioner, runner
