"""The recipe of a run: one YAML file, checked whole before anything is done.

    python training/round.py --recipe training/recipes/paper.yaml --dry-run

The classes below are its reference: a field a line, its unit beside it. What is wrong in a file is reported
with its line and what to write instead.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ske_models.errors import UserError
from ske_models.fingerprint import digest

FOLDER = Path(__file__).parent / "recipes"
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """No unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WorldQuestions(Strict):
    """TinyWorld's questions about the people of one split, of some kinds of question."""

    source: Literal["world"]
    split: Literal["train", "rounds", "dev"] = "rounds"
    kinds: list[str] | None = None  # all


class DatasetQuestions(Strict):
    """Questions that exist: a column of a hub dataset, or of a local .jsonl or .parquet file."""

    source: Literal["dataset"]
    path: str
    config: str | None = None
    split: str = "train"
    column: str = "question"
    rows: PositiveInt | None = None  # at most; the first ones


class PassageQuestions(Strict):
    """Questions that the current model writes from the passages of an unsupervised corpus."""

    source: Literal["passages"]
    path: str
    config: str | None = None
    split: str = "train"
    column: str = "text"
    rows: PositiveInt | None = None
    passage_chars: PositiveInt = 1_500  # a passage is cut at a paragraph's or sentence's end


QuestionSource = Annotated[
    WorldQuestions | DatasetQuestions | PassageQuestions, Field(discriminator="source")
]


class Questions(Strict):
    """Where questions come from (each source gives an equal share), and which are dropped."""

    sources: Annotated[list[QuestionSource], Field(min_length=1)]
    ending: str = ""  # how an answer must end; written under every question
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8  # Jaccard similarity of word 3-grams
    decontaminate: list[Literal["mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq", "world"]] = []
    ngram: PositiveInt = 13  # words in a row that a question may not share with a test item


class WorldChats(Strict):
    """TinyWorld's general data: corpus, direct answers, reading and checking."""

    source: Literal["world"]


class DatasetChats(Strict):
    """Instruction data: a column of chats, [{"role", "content"}, ...] or [{"from", "value"}, ...]."""

    source: Literal["dataset"]
    path: str
    config: str | None = None
    split: str = "train"
    column: str = "messages"
    rows: PositiveInt | None = None


Chats = Annotated[WorldChats | DatasetChats, Field(discriminator="source")]


class Generation(Strict):
    """How knowledge, reasoning and self-given scores are generated: any lm-eval backend."""

    backend: str = "hf"
    args: dict[str, Any] = {}  # of the backend, as in --model_args; without `pretrained`
    endpoints: list[str] = []  # base URLs of servers of the same model; work is shared out over them
    samples: PositiveInt = 1  # texts a question
    temperature: Annotated[float, Field(ge=0)] = 0.0
    max_reasoning_tokens: PositiveInt = 1_024
    max_verdict_tokens: PositiveInt = 512  # of a judgement that the model gives itself
    max_question_tokens: PositiveInt = 256
    window: PositiveInt = 512  # questions a call of the backend; a killed run repeats at most one window
    shots: str | None = None  # YAML of few-shot examples for M0; later checkpoints are asked zero-shot


class OpenAIJudge(Strict):
    """Any OpenAI-compatible chat endpoint. The key is read from the environment variable `key_env` only."""

    kind: Literal["openai"]
    model: str
    base_url: str = "https://api.openai.com/v1"
    key_env: str = "OPENAI_API_KEY"
    concurrency: PositiveInt = 16
    timeout_s: Seconds = 120.0  # of one call
    max_retries: Count = 8
    deadline_s: Seconds | None = None  # of a whole stage
    max_tokens: PositiveInt = 512  # of a verdict; what a model thinks before it counts, too
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # left out if the model takes none
    usd_per_million: dict[Literal["input", "output"], Usd] | None = None
    max_usd: Annotated[Usd, Field(gt=0)] | None = None  # of a whole run; needs usd_per_million

    @model_validator(mode="after")
    def _priced(self) -> OpenAIJudge:
        if self.max_usd is not None and set(self.usd_per_million or ()) != {"input", "output"}:
            raise ValueError("max_usd needs usd_per_million: {input: ..., output: ...}")
        return self


class WorldJudge(Strict):
    """TinyWorld's oracle, which knows the truth."""

    kind: Literal["world"]


Judge = Annotated[OpenAIJudge | WorldJudge, Field(discriminator="kind")]


class Select(Strict):
    """What is kept. `random`: as many as `score` would keep, drawn blindly; `all`: everything scored."""

    by: Literal["score", "random", "all"] = "score"
    threshold: Annotated[int, Field(ge=1, le=10)] = 8
    per_question: PositiveInt | None = None  # at most, of a question's samples; equal texts count once
    kinds: list[str] | None = None  # of question, where questions have a kind; all


class Sft(Strict):
    """Full-parameter SFT. `batch` is in examples, over all processes; no packing."""

    epochs: PositiveInt = 2
    batch: PositiveInt = 32
    per_device_batch: PositiveInt | None = (
        None  # without it: `batch` over the processes; the rest is accumulated
    )
    learning_rate: PositiveFloat = 2e-5
    warmup_steps: Count = 100
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_length: PositiveInt = 4_096  # tokens; longer examples are dropped and counted
    bf16: bool = True  # autocast; the master weights are float32
    save_steps: PositiveInt = 200
    gradient_checkpointing: bool = False
    attention: str | None = None  # transformers' attn_implementation; padding-free needs a flash one
    padding_free: bool = False
    accelerate: str | None = None  # a config file for `accelerate launch`, or its name in recipes/accelerate
    threads: PositiveInt | None = None  # of a CPU


class Mix(Strict):
    """Examples of each kind, at most; null: all there are. Scorings are those of the judge in round 1."""

    knowledge: Count | None = None
    reasoning: Count | None = None
    scoring_knowledge: Count | None = None
    scoring_reasoning: Count | None = None
    general: Count | None = None
    kept_as: Literal["explicit", "cot"] = "explicit"  # cot: knowledge and reasoning as one text


class Round(Strict):
    """M(n) from M(start). `judge`: the recipe's judge, or the checkpoint that wrote the texts."""

    judge: Literal["judge", "self"]
    start: Literal["M0", "previous"] = "previous"
    questions: PositiveInt
    mix: Mix
    select: Select | None = None  # instead of the recipe's
    epochs: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    warmup_steps: Count | None = None


class Base(Strict):
    """M0 from a base model, by SFT on instruction data."""

    checkpoint: str
    revision: str | None = None
    data: DatasetChats
    chat_template: str | None = None  # a jinja file, for a base model without one
    sft: Sft


class Model(Strict):
    """M0: `embedded`, a folder, or ORG/NAME on the hub; or what `base` makes."""

    checkpoint: str | None = None
    revision: str | None = None
    base: Base | None = None

    @model_validator(mode="after")
    def _one(self) -> Model:
        if (self.checkpoint is None) == (self.base is None):
            raise ValueError("give `checkpoint` or `base`, one of them")
        return self


class Evaluate(Strict):
    """lm-eval's tasks, each by each method, for every checkpoint."""

    tasks: list[str] = []
    methods: Annotated[list[Literal["direct", "cot", "explicit"]], Field(min_length=1)] = [
        "direct",
        "cot",
        "explicit",
    ]
    limit: PositiveInt | None = None  # the first items of a task
    backend: str = "hf"
    args: dict[str, Any] = {}


class Analysis(Strict):
    """The meta-skill analysis (paper, section "Analysis"): the judge scores every checkpoint's texts."""

    items: Count = 0  # a task


class Recipe(Strict):
    """A whole run."""

    name: str
    seed: Count = 1
    prompts: str = "default"
    layout: Literal["single", "multiturn"] = "single"
    model: Model
    questions: Questions
    generation: Generation
    judge: Judge
    select: Select
    general: list[Chats] = []
    sft: Sft
    rounds: Annotated[list[Round], Field(min_length=1)]
    evaluate: Evaluate
    analysis: Analysis = Analysis()

    @property
    def hash(self) -> str:
        """16 hex digits that say which recipe it is."""
        return digest(self.model_dump(mode="json"))


def load(name_or_path: str) -> Recipe:
    """A recipe by its name (`world`, `paper`) or the path of its file.

    Raises UserError: no such file, not YAML, an unknown key, a wrong type or value; with the line.
    """
    path = FOLDER / f"{name_or_path}.yaml" if name_or_path in names() else Path(name_or_path).expanduser()
    if not path.is_file():
        raise UserError(
            f"--recipe {name_or_path}: no such file, nor a recipe of that name ({', '.join(names())})"
        )
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a mapping is needed; start from {FOLDER / 'world.yaml'}")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        assert node is not None  # it would not be a mapping
        lines = [_explain(path, node, problem) for problem in error.errors()]
        raise UserError("\n".join(dict.fromkeys(lines))) from error


def names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "shots")


def _explain(path: Path, node: yaml.Node, problem: Any) -> str:
    """One line: file, line of the file, field, what is wrong, what to write."""
    keys, line = [], node.start_mark.line + 1
    for key in problem["loc"]:
        below = _child(node, key)
        if below is None:
            # pydantic also names the member of a union, which is no key of the file
            if problem["type"] == "missing" and key == problem["loc"][-1]:
                keys.append(str(key))
            continue
        keys.append(str(key))
        line, node = below
    field = ".".join(keys) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"{path}, line {line}: {field} is no setting; remove it (training/recipe.py lists them all)"
    if problem["type"] == "missing":
        return f"{path}, line {line}: {field} is missing; add it (training/recipe.py says what it is)"
    message = problem["msg"].removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict | list) else f", not {problem['input']!r}"
    if problem["type"] == "float_type" and re.fullmatch(r"\d+e-?\d+", str(problem["input"])):
        given += " (which is text in YAML: write 4.0e-4 for 4e-4)"
    return f"{path}, line {line}: {field}: {message[0].lower() + message[1:]}{given}"


def _child(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    """(line, node) of an entry of a mapping or a sequence."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == key:
                return name.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line + 1, node.value[key]
    return None
