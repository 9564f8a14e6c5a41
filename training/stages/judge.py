"""The stage `judge`: a critique and a score from 1 to 10 for the knowledge and the reasoning of every sample.

    python -m training.stage judge runs/mine 1      # round1/written.jsonl -> round1/scores.jsonl

Who judges is a role of the recipe (`training/judges/`): `openai`, an answer `key`, a domain that knows the
truth, or the model that wrote the texts (`itself.py`). A verdict without a clear score is requested once
more, sampled, so that a greedy model says something else, too; a reminder would get a bare score, and the
next models learn from the critiques. What is then without a score is left out and counted. Equal texts are
judged once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ske_models.files import Row, write_jsonl
from ske_models.prompts import PromptSet
from ske_models.prompts import load as load_prompts
from training import domains
from training.data.texts import QuestionRow, TextRow, replies, rows_of
from training.judges.verdict import Verdict
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.serving.where import of_checkpoint, of_judge
from training.settings.judge import OpenAIJudge
from training.settings.key import KeyJudge
from training.stages import Stage, checkpoint_files, part, prompting

Kind = Literal["knowledge", "reasoning"]
KINDS: tuple[Kind, ...] = ("knowledge", "reasoning")

# What a tokenizer may take for one of its control tokens: <|end|> (also with wide bars), </s>, <pad>, [INST].
_CONTROL = re.compile(r"[<＜](?=[|｜/]|[\w.:▁-]{1,64}[>＞])|\[(?=/?[A-Za-z]*[A-Z][A-Z_0-9]+\])")
_MARKER = re.compile(r"[<＜](?=[<＜]{2})|[>＞](?=[>＞]{2})")  # the templates' <<<KNOWLEDGE ... KNOWLEDGE>>>
_SCORE = re.compile(
    r"(score)(?:_|[^\w:=：])*(?:(?:1[\W_]*(?:to[\W_]*)?10|out[\W_]+of[\W_]+10)(?:_|[^\w:=：])*)?"
    r"(?:[:=：]|is)[\W_]*(?:boxed[\W_]*)?(?=\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Judged:
    """One text to be judged. `reasoning`: None where the knowledge itself is judged. `id`: for messages."""

    id: str
    kind: Kind
    question: str
    knowledge: str
    reasoning: str | None = None

    @property
    def content(self) -> tuple[str, str, str | None]:
        """What the verdict depends on."""
        return self.question, self.knowledge, self.reasoning


@dataclass(frozen=True)
class Judging:
    """One verdict an item, in order, and what they cost.

    counts: asked (distinct texts), shared (verdicts taken from an equal text), asked_again, escaped
    (distinct texts in whose prompt something was defused); of a model also tokens {"input", "output"}; of an
    endpoint also usd, usd_unconfirmed and faults (training/judges/openai.py).
    """

    verdicts: list[Verdict]
    counts: dict[str, Any]


def check(recipe: Recipe) -> None:
    """Raises UserError if the recipe's judge cannot be used, for want of a key."""
    if isinstance(recipe.judge, OpenAIJudge):
        from training.judges.openai import key

        key(recipe.judge)


def prompt(prompts: PromptSet, judged: Judged) -> str:
    """The user turn that asks for a verdict.

    What it quotes can neither close its markers nor become a control token.
    """
    texts = {"question": judged.question, "knowledge": judged.knowledge}
    if judged.reasoning is not None:
        texts["reasoning"] = judged.reasoning
    quoted = {name: escape(text) for name, text in texts.items()}
    return prompts.render(f"score_{judged.kind}", **quoted)


def escape(text: str) -> str:
    """A text as a judge is shown it.

    Markers and control tokens are broken by a space; "Score: 10" is without its colon, so that a judge that
    only repeats it has given no score. A text with none of them is returned as it is.
    """
    text = _MARKER.sub(r"\g<0> ", _CONTROL.sub(r"\g<0> ", text))
    while (without := _SCORE.sub(r"\1 ", text)) != text:  # "Score: 1-10: 8" has two colons
        text = without
    return text


def judge_texts(
    folder: RunFolder,
    role: Literal["judge", "self"],
    n_checkpoint: int,
    items: Sequence[Judged],
    path: Path,
    label: str,
    questions: Mapping[str, Row] | None = None,
) -> Judging:
    """Has every item judged: by the recipe's judge, or by M`n_checkpoint` itself.

    questions: id -> row of questions.jsonl, where a key has the answers; M`n_checkpoint` answers with what
    is judged then. path: a file of the run; it names the unfinished work beside it, and what was paid for;
    it is not written.
    label: of the progress bar. Raises UserError: no key, an endpoint that refuses, deadline or spending cap
    reached (what was answered is kept: the same call goes on), no such checkpoint, a question that a
    domain's judge cannot know.
    """
    first: dict[tuple[str, str, str | None], Judged] = {}
    for item in items:
        first.setdefault(item.content, item)
    distinct = list(first.values())
    texts = [prompt(folder.prompts, item) for item in distinct]
    spent: dict[str, Any] = {}
    if role == "self":
        from training.judges import itself

        verdicts, spent = itself.ask(folder, n_checkpoint, texts, path, label)
    elif isinstance(folder.recipe.judge, OpenAIJudge):
        from training.judges import openai as judge_openai

        stage = path.relative_to(folder.path).as_posix()
        book = folder.path / "judge.sqlite"
        verdicts, spent = judge_openai.ask(folder.recipe.judge, texts, book, stage, label)
    elif isinstance(folder.recipe.judge, KeyJudge):
        from training.judges import key

        verdicts, spent = key.ask(folder, n_checkpoint, distinct, questions or {}, path, label)
    else:
        domain = domains.named(folder.recipe.judge.kind)
        assert domain is not None  # the recipe was checked
        assert domain.judge is not None
        verdicts = [domain.judge.judge(item.id, *item.content) for item in distinct]
    by_content = dict(zip(first, verdicts, strict=True))
    counts = {
        "asked": len(distinct),
        "shared": len(items) - len(distinct),
        "asked_again": sum(verdict.attempts > 1 for verdict in verdicts),
        "escaped": sum(any(escape(text) != text for text in c if text) for c in first),
    }
    return Judging([by_content[item.content] for item in items], counts | spent)


def run(folder: RunFolder, n: int) -> dict[str, Any]:
    """Judges round `n`; returns its counts: texts scored, unscored by reason and skipped, histograms, cost.

    Samples whose knowledge or reasoning is empty or truncated are skipped; of a text that has a thought, the
    reply is judged.
    """
    rows_written = rows_of(folder.round(n) / "written.jsonl", TextRow)
    written = [replies(row, folder.marks) for row in rows_written]
    whole = [row for row in written if is_whole(row)]
    items = [to_judge(row, kind) for row in whole for kind in KINDS]
    path = folder.round(n) / "scores.jsonl"
    role, label = folder.settings(n).judge, f"judge, round {n}"
    questions = questions_of(folder, n) if _by_key(folder, n) else None
    judging = judge_texts(folder, role, folder.writer(n), items, path, label, questions)
    samples = [row["sample"] for row in whole for _ in KINDS]
    rows = [
        {
            "id": item.id,
            "sample": sample,
            "kind": item.kind,
            "score": verdict.score,
            "verdict": verdict.text,
            "attempts": verdict.attempts,
            "why": verdict.why,
        }
        for item, sample, verdict in zip(items, samples, judging.verdicts, strict=True)
    ]
    write_jsonl(path, rows)
    return {**_outcome(rows), "skipped": 2 * (len(written) - len(whole)), **judging.counts}


def is_whole(row: Row) -> bool:
    """Whether a row of written.jsonl is judged: neither of its texts is truncated or empty."""
    return not any(row["truncated"][kind] or not row[kind].strip() for kind in KINDS)


def to_judge(row: Row, kind: Kind) -> Judged:
    """One of the two texts of a row of written.jsonl."""
    reasoning = row["reasoning"] if kind == "reasoning" else None
    return Judged(row["id"], kind, row["question"], row["knowledge"], reasoning)


def _outcome(rows: Sequence[Row]) -> dict[str, Any]:
    """How many rows have a score, why others have none, and the histograms: {kind: {score: rows}}."""
    scores = {kind: Counter(row["score"] for row in rows if row["kind"] == kind) for kind in KINDS}
    return {
        "scored": sum(row["score"] is not None for row in rows),
        "unscored": dict(Counter(row["why"].partition(":")[0] for row in rows if row["why"])),
        "histogram": {kind: {str(score): scores[kind][score] for score in range(1, 11)} for kind in KINDS},
    }


def estimate(recipe: Recipe, n: int) -> dict[str, Any]:
    """What the verdicts of round `n` need, as `estimate_texts` has it, without loading a model."""
    settings = recipe.rounds[n - 1]
    return estimate_texts(recipe, settings.questions * recipe.generation.samples, settings.judge == "self")


def estimate_texts(recipe: Recipe, texts: int, itself: bool) -> dict[str, Any]:
    """Verdicts on the knowledge and the reasoning of `texts` texts and, at most, their tokens and cost.

    itself: the model is the judge, else the recipe's judge. Returns "verdicts", "input_tokens",
    "output_tokens", "usd" (None for a judge that costs nothing or has no prices). Every text is taken to be
    as long as its limit, different from the others, and judged once.
    """
    prompts, generation, judge = load_prompts(recipe.prompts), recipe.generation, recipe.judge
    counts: dict[str, Any] = {"verdicts": 2 * texts, "input_tokens": 0, "output_tokens": 0, "usd": None}
    asked = sum(len(prompts.templates[f"score_{kind}"]) // 4 for kind in KINDS)  # about 4 characters a token
    asked += 2 * (generation.max_question_tokens + prompts.knowledge_tokens) + generation.max_reasoning_tokens
    if itself:
        counts |= {"input_tokens": texts * asked, "output_tokens": 2 * texts * generation.max_verdict_tokens}
    elif isinstance(judge, OpenAIJudge):
        counts |= {"input_tokens": texts * asked, "output_tokens": 2 * texts * judge.max_tokens}
        if judge.usd_per_million:
            prices = judge.usd_per_million.items()
            counts["usd"] = sum(counts[f"{name}_tokens"] * price / 1e6 for name, price in prices)
    elif isinstance(judge, KeyJudge):  # answers with each knowledge
        shown = generation.max_question_tokens + prompts.knowledge_tokens
        answers = texts * judge.samples
        written = answers * generation.max_reasoning_tokens
        counts |= {"input_tokens": answers * shown, "output_tokens": written}
    return counts


def _by_key(folder: RunFolder, n: int) -> bool:
    return isinstance(folder.recipe.judge, KeyJudge) and folder.settings(n).judge == "judge"


def questions_of(folder: RunFolder, n: int) -> dict[str, Row]:
    """id -> row of a round's questions.jsonl."""
    return {row["id"]: row for row in rows_of(folder.round(n) / "questions.jsonl", QuestionRow)}


def _inputs(folder: RunFolder, n: int) -> list[Path]:
    by_key, files = _by_key(folder, n), [folder.round(n) / "written.jsonl"]
    files += [folder.round(n) / "questions.jsonl"] if by_key else []
    itself = folder.settings(n).judge == "self"
    return files + (checkpoint_files(folder, folder.writer(n)) if itself or by_key else [])


def _settings(folder: RunFolder, n: int) -> dict[str, Any]:
    role = folder.settings(n).judge
    sections = (
        ["generation", "judge"] if _by_key(folder, n) else ["generation" if role == "self" else "judge"]
    )
    return part(folder, *sections) | prompting(folder) | {"role": role}


def _prompts(folder: RunFolder, n: int) -> str | None:
    if folder.settings(n).judge == "self" or _by_key(folder, n):
        return of_checkpoint(folder, folder.writer(n))
    return of_judge(folder.recipe)


def _says(counts: dict[str, Any]) -> str:
    parts = [f"{counts['scored']:,} scores"]
    parts += [f"{n:,} {why}" for why, n in counts["unscored"].items()]
    parts += [f"{counts['skipped']:,} not judged (truncated or empty)"] if counts["skipped"] else []
    parts += [f"${counts['usd']:,.2f}"] if counts.get("usd") else []
    return ", ".join(parts)


STAGE = Stage(
    name="judge",
    inputs=_inputs,
    settings=_settings,
    outputs=("round{n}/scores.jsonl",),
    run=run,
    says=_says,
    prompts=_prompts,
)
