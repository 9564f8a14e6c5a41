"""The recipe of a run: one YAML file, checked whole before anything is done.

    python training/round.py --recipe training/recipes/paper.yaml --dry-run

The classes below, and that of `sft` (training/settings/sft.py), are its reference: a field per line, its unit
beside it. What is wrong in a file is reported with its line and what to write instead.
"""

# ruff: noqa: RUF012 (pydantic copies the defaults)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from ske_models.errors import UserError
from ske_models.fingerprint import digest
from ske_models.yaml_data import Lines, load_with_lines
from training import domains
from training.domain import JudgeSettings, Source
from training.serving.settings import Serve
from training.settings.errors import explain
from training.settings.judge import OpenAIJudge
from training.settings.key import KeyJudge
from training.settings.parts import Arguments, by_tag
from training.settings.paths import file_at
from training.settings.sft import Sft
from training.settings.strict import (
    Address,
    AtLeastOne,
    Count,
    Name,
    Positive,
    Seed,
    Strict,
    TaskName,
    Temperature,
    Text,
)

FOLDER = Path(__file__).parent / "recipes"
SERVED = ("local-chat-completions", "local-completions")  # lm-eval's backends for servers
BENCHMARKS = ("mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq")


class DatasetQuestions(Source):
    """Questions that exist: a column of a hub dataset, or of a local .jsonl or .parquet file."""

    source: Literal["dataset"]
    path: Text
    config: Text | None = None
    split: Text = "train"
    column: Text = "question"
    choices: Text | Annotated[list[Text], Field(min_length=1)] | None = (
        None  # of options; several: one in each
    )
    answer: Text | None = None  # the column of the key (training/data/keys.py has the forms)
    rows: AtLeastOne | None = None  # at most; the first ones

    @property
    def label(self) -> str:
        """With the path, and the configuration where there is one."""
        return f"dataset:{self.path}" + (f"/{self.config}" if self.config else "")

    @model_validator(mode="after")
    def _key(self) -> DatasetQuestions:
        if self.choices is not None and self.answer is None:
            raise ValueError("`choices` needs `answer`, the column of the right one")
        return self


class PassageQuestions(Source):
    """Questions that the current model writes from the passages of an unsupervised corpus."""

    source: Literal["passages"]
    path: Text
    config: Text | None = None
    split: Text = "train"
    column: Text = "text"
    rows: AtLeastOne | None = None
    passage_chars: AtLeastOne = 1_500  # a passage is cut at the end of a paragraph or a sentence

    @property
    def label(self) -> str:
        """With the path."""
        return f"passages:{self.path}"


QuestionSource = Annotated[
    SerializeAsAny[Source],
    by_tag("source", (DatasetQuestions, PassageQuestions), lambda domain: domain.questions),
]


def _test_set(name: str) -> str:
    known = [*BENCHMARKS, *(d.name for d in domains.every() if d.questions and d.questions.tests)]
    if name not in known:
        expected = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return name


def has_key(source: Source) -> bool:
    """Whether the answers to its questions are known."""
    return isinstance(source, DatasetQuestions) and source.answer is not None


class Questions(Strict):
    """Where questions come from (each source gives an equal share), and which are dropped."""

    sources: Annotated[list[QuestionSource], Field(min_length=1)]
    ending: str = ""  # how an answer must end; written under every question
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8  # Jaccard similarity of word 3-grams
    decontaminate: list[Annotated[str, AfterValidator(_test_set)]] = []  # BENCHMARKS, or a domain
    ngram: AtLeastOne = 13  # words in a row that a question may not share with a test item


class DatasetChats(Source):
    """Instruction data: a column of chats, [{"role", "content"}, ...] or [{"from", "value"}, ...]."""

    source: Literal["dataset"]
    path: Text
    config: Text | None = None
    split: Text = "train"
    column: Text = "messages"
    rows: AtLeastOne | None = None


Chats = Annotated[SerializeAsAny[Source], by_tag("source", (DatasetChats,), lambda domain: domain.chats)]


class Generation(Strict):
    """How knowledge, reasoning and self-given scores are generated: any lm-eval backend."""

    backend: Text = "hf"
    args: Arguments = {}  # of the backend, as in --model_args; without `pretrained`
    endpoints: list[Address] = []  # base URLs of servers of the same model; work is shared among them
    serve: Serve | None = None  # servers that the run starts and stops itself; then no endpoints
    samples: AtLeastOne = 1  # texts per question
    temperature: Temperature = 0.0
    max_reasoning_tokens: AtLeastOne = 1_024
    max_verdict_tokens: AtLeastOne = 512  # of a judgement that the model gives itself
    max_question_tokens: AtLeastOne = 256
    window: AtLeastOne = 512  # questions per call of the backend; a killed run repeats at most one window
    think: Text | None = (
        None  # what a thought is told by: "off", or marks as in <plan>...</plan>; null: all known
    )
    shots: Text | None = None  # YAML of few-shot examples for M0; later checkpoints see none

    @model_validator(mode="before")
    @classmethod
    def _by_servers(cls, given: Any) -> Any:
        managed = isinstance(given, dict) and given.get("serve") is not None
        return {"backend": SERVED[0]} | given if managed else given

    @model_validator(mode="after")
    def _whole(self) -> Generation:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples is {self.samples}, but at temperature 0 they would all be the same; "
                "write samples: 1, or a temperature above 0"
            )
        if self.serve and self.endpoints:
            raise ValueError("give `serve` (servers that the run starts) or `endpoints`, one of them")
        if self.serve and self.backend not in SERVED:
            raise ValueError(f"with `serve`, backend is {' or '.join(SERVED)}; leave it out")
        if self.serve and (named := sorted({"model", "base_url"} & self.args.keys())):
            raise ValueError(f"with `serve`, the run sets {' and '.join(named)} itself; leave it out of args")
        return self


Judge = Annotated[
    SerializeAsAny[JudgeSettings], by_tag("kind", (OpenAIJudge, KeyJudge), lambda domain: domain.judge)
]


class Select(Strict):
    """What is selected. `random`: as many as `score` would keep, drawn blindly; `all`: everything scored."""

    by: Literal["score", "random", "all"] = "score"
    threshold: Annotated[int, Field(ge=1, le=10)] = 8
    per_question: AtLeastOne | None = None  # at most, of a question's samples; equal texts count once
    kinds: list[str] | None = None  # of question, where questions have a kind; all


class Mix(Strict):
    """Examples of each kind, at most; null: all there are. Scorings are those of the judge in round 1."""

    knowledge: Count | None = None
    reasoning: Count | None = None
    scoring_knowledge: Count | None = None
    scoring_reasoning: Count | None = None
    general: Count | None = None
    thoughts: bool = False  # train on what a model thought before its text, too
    kept_as: Literal["explicit", "cot"] = "explicit"  # cot: knowledge and reasoning as one text


class Round(Strict):
    """M(n) from M(start). `judge`: the recipe's judge, or the checkpoint that wrote the texts."""

    judge: Literal["judge", "self"]
    start: Literal["M0", "previous"] = "previous"
    questions: AtLeastOne
    mix: Mix
    select: Select | None = None  # what differs from the recipe's
    epochs: AtLeastOne | None = None
    learning_rate: Positive | None = None
    warmup_steps: Count | None = None


class Base(Strict):
    """M0 from a base model, by SFT on instruction data."""

    checkpoint: Text
    revision: Text | None = None
    data: DatasetChats
    chat_template: Text | None = None  # a jinja file, for a base model without one
    sft: Sft


class Model(Strict):
    """M0: a folder, ORG/NAME on the hub, or the name of a domain's own; or what `base` makes."""

    checkpoint: Text | None = None
    revision: Text | None = None
    base: Base | None = None

    @model_validator(mode="after")
    def _one(self) -> Model:
        if (self.checkpoint is None) == (self.base is None):
            raise ValueError("give `checkpoint` or `base`, one of them")
        return self


class Evaluate(Strict):
    """lm-eval's tasks, each by each method, for every checkpoint."""

    tasks: list[TaskName] = []
    methods: Annotated[list[Literal["direct", "cot", "explicit"]], Field(min_length=1)] = [
        "direct",
        "cot",
        "explicit",
    ]
    limit: AtLeastOne | None = None  # the first items of a task
    backend: Text = "hf"  # one for servers prompts those of `generation`, if no base_url is in args
    args: Arguments = {}


class Analysis(Strict):
    """The meta-skill analysis (paper, section "Analysis"): the judge scores every checkpoint's texts."""

    items: Count = 0  # per task
    self_scored: Count = 0  # texts per self-scored round that the judge scores, too, before they are used


class Recipe(Strict):
    """A whole run."""

    name: Name
    seed: Seed = 1
    prompts: Text = "default"
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

    @field_validator("rounds")
    @classmethod
    def _selects(cls, rounds: list[Round], info: ValidationInfo) -> list[Round]:
        """A round's `select` has what the recipe's says and it does not; so recipe.json says it whole."""
        whole: Select | None = info.data.get("select")  # None: it is wrong itself
        if whole is None:
            return rounds
        own = [r.select.model_dump(exclude_unset=True) if r.select else None for r in rounds]
        merged = [None if said is None else whole.model_copy(update=said) for said in own]
        return [r.model_copy(update={"select": select}) for r, select in zip(rounds, merged, strict=True)]

    @model_validator(mode="after")
    def _keys(self) -> Recipe:
        if isinstance(self.judge, KeyJudge):
            if not any(has_key(source) for source in self.questions.sources):
                raise ValueError(
                    "judge: {kind: key} needs a question source with `answer`, the column of its key"
                )
            if self.analysis.items:
                raise ValueError("analysis.items: a key scores no text of the evaluation; write 0")
        return self

    @property
    def hash(self) -> str:
        """16 hex digits that say which recipe it is."""
        return digest(self.model_dump(mode="json"))


def load(name_or_path: str) -> Recipe:
    """A recipe by its name (that of a file in `training/recipes`) or the path of its file.

    Raises UserError: no such file, not YAML, an unknown key, a wrong type or value; with the line.
    """
    path = FOLDER / f"{name_or_path}.yaml" if name_or_path in names() else file_at(name_or_path)
    if path is None:
        raise UserError(
            f"--recipe {name_or_path}: no such file, nor a recipe of that name ({', '.join(names())})"
        )
    content, lines = load_with_lines(path, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path}: a mapping is needed; start from {FOLDER / 'paper.yaml'}")
    return _checked(content, str(path), lines)


def of_json(content: Any, path: Path) -> Recipe:
    """The recipe that a run's folder has. Raises UserError if it is none, naming a field that is wrong."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: a recipe is a mapping, not {type(content).__name__}; {AGAIN}")
    return _checked(content, str(path), {}, f"; {AGAIN}")


AGAIN = "give the --recipe that it was made with again, which writes this file, or another --run"


def _checked(content: dict[str, Any], where: str, lines: Lines, after: str = "") -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        said = [explain(where, content, lines, problem) + after for problem in error.errors()]
        raise UserError("\n".join(dict.fromkeys(said))) from error


def names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "shots")
