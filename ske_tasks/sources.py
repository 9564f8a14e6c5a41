"""From the hub's repositories to rows: one reader for each of the six benchmarks.

    python -c "from ske_tasks.sources import READERS; print(len(READERS['nq']().test))"

Every reader returns all items of the published test split. What cannot be scored (no gold answer) is listed
in `Read.unscored` with the reason, and what was repaired in `Read.repaired`; nothing is left out silently.
"""

import importlib.resources
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml
from datasets import Dataset, load_dataset

from ske_models.errors import UserError
from ske_tasks.rows import Kind, Row, make_row


@dataclass
class Read:
    """What a reader found: rows of the test split and few-shot examples."""

    test: list[Row]
    shots: list[Row] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)


def fetch(repo: str, config: str | None, split: str, columns: list[str]) -> Dataset:
    """Load one split from the hub and check its columns.

    Raises:
        UserError: the repository, configuration, split or a column is not there; says which and what to do.
    """
    name = repo + (f" ({config})" if config else "")
    try:
        data = load_dataset(repo, config, split=split)
    except (OSError, ValueError, RuntimeError) as cause:
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        raise UserError(
            f"cannot load {name}, split {split}, from the Hugging Face hub: {reason}; check the network and "
            "HF_ENDPOINT, or fill the cache where there is a network (hf download --repo-type dataset "
            f"{repo}) and set HF_HUB_OFFLINE=1"
        ) from cause
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        raise UserError(
            f"{name}, split {split}: no column {', '.join(missing)} (found {', '.join(data.column_names)}); "
            "the repository has changed: pin an older revision in the cache, or correct ske_tasks/sources.py"
        )
    return data


def read_mmlu() -> Read:
    """MMLU, `cais/mmlu`: test split of 57 subjects; the five `dev` questions of a subject are its shots."""

    def rows(split: str) -> list[Row]:
        data = fetch("cais/mmlu", "all", split, ["question", "subject", "choices", "answer"])
        return [
            make_row(
                "mmlu",
                item["subject"],
                f"{item['subject']}/{split}/{n}",
                "choice",
                item["question"],
                [letter_of(item["answer"])],
                [letter_of(i) for i in range(len(item["choices"]))],
                [choice.strip() for choice in item["choices"]],
            )
            for n, item in enumerate(data)
        ]

    return Read(rows("test"), rows("dev"))


def read_arc(benchmark: str, config: str) -> Read:
    """ARC, `allenai/ai2_arc`: test split, letters A-E or 1-4 as printed; shots are the first of `train`."""

    def rows(split: str) -> list[Row]:
        data = fetch("allenai/ai2_arc", config, split, ["id", "question", "choices", "answerKey"])
        return [
            make_row(
                benchmark,
                config,
                item["id"],
                "choice",
                item["question"],
                [item["answerKey"]],
                item["choices"]["label"],
                item["choices"]["text"],
            )
            for item in data
        ]

    return Read(rows("test"), rows("train[:32]"))


def read_nq() -> Read:
    """NQ, `google-research-datasets/nq_open`: `validation` is the standard open-domain test split (3,610)."""

    def rows(split: str) -> list[Row]:
        data = fetch("google-research-datasets/nq_open", None, split, ["question", "answer"])
        return [
            make_row(
                "nq",
                "nq_open",
                f"{split}/{n}",
                "open",
                item["question"].strip().rstrip("?") + "?",
                item["answer"],
            )
            for n, item in enumerate(data)
        ]

    return Read(rows("validation"), rows("train[:64]"))


AGIEVAL = (
    "aqua-rat gaokao-biology gaokao-chemistry gaokao-chinese gaokao-english gaokao-geography gaokao-history "
    "gaokao-mathcloze gaokao-mathqa gaokao-physics jec-qa-ca jec-qa-kd logiqa-en logiqa-zh lsat-ar lsat-lr "
    "lsat-rc math sat-en sat-en-without-passage sat-math"
).split()
# AGIEval's own list (src/evaluation: multi_choice_datasets); the options of these may have several right
# ones.
AGIEVAL_MULTI = {"gaokao-physics", "jec-qa-ca", "jec-qa-kd"}
# The hub's `query` is AGIEval's zero-shot prompt; its last line is the instruction, which ours replaces.
_QUERY = re.compile(
    r"(?P<head>.*)(?: Answer Choices: | 选项：)(?P<options>.*)\n(?:A: Among A through .|答案：从A到.)[^\n]*",
    re.DOTALL,
)
_CLOZE = re.compile(r"(?P<head>.*)\n(?:A: The answer is|答案：)", re.DOTALL)


def read_agieval() -> Read:
    """AGIEval v1, `hails/agieval-*`: 21 sets of zero-shot prompts. The hub has no shots for it."""
    read = Read([])
    for subset in AGIEVAL:
        closed = subset in ("math", "gaokao-mathcloze")
        columns = ["query", "answer"] if closed else ["query", "choices", "gold"]
        for n, item in enumerate(fetch(f"hails/agieval-{subset}", None, "test", columns)):
            if closed:
                read.test.append(_cloze_row(subset, n, item))
            elif item["gold"]:
                read.test.append(_agieval_choice_row(subset, n, item, read))
            else:
                read.unscored.append(f"agieval {subset} row {n}: no gold answer in the data")
    return read


def _cloze_row(subset: str, n: int, item: dict) -> Row:
    head = _match(_CLOZE, item["query"], f"hails/agieval-{subset} row {n}")["head"]
    question = re.sub(r"^(Q: |问题：)", "", head)
    chinese = item["query"].startswith("问题：")
    return make_row("agieval", subset, f"{subset}/{n}", "math", question, [item["answer"]], chinese=chinese)


def _agieval_choice_row(subset: str, n: int, item: dict, read: Read) -> Row:
    found = _match(_QUERY, item["query"], f"hails/agieval-{subset} row {n}")
    question = re.sub(r"^(Q: |问题：)", "", found["head"])
    printed, options = split_letters(item["choices"])
    letters = [letter_of(i) for i in range(len(printed))]
    if sorted(printed) == letters:
        letters = printed
    else:
        read.repaired.append(f"agieval {subset} row {n}: options printed as {printed}, lettered by position")
    gold = [letter_of(i) for i in item["gold"]]
    # Seven gaokao-mathqa items are the exam's multiple-answer questions: several gold letters in the data.
    kind: Kind = "multi_choice" if subset in AGIEVAL_MULTI or len(gold) > 1 else "choice"
    chinese = "选项：" in item["query"]
    return make_row(
        "agieval", subset, f"{subset}/{n}", kind, question, gold, letters, options, chinese=chinese
    )


def split_letters(choices: list[str]) -> tuple[list[str], list[str]]:
    """`["(A)x", "  B. y", "z"]` to `["A", "B", ""], ["x", "y", "z"]`.

    The printed letters hold where they are a permutation of A, B, ... (logiqa row 108 prints A, C, B, D, and
    its gold letter means the printed one); where one is missing or doubled, the caller letters by position.
    """
    letters, texts = [], []
    for place, choice in enumerate(choices):
        bare = rf"\s*({letter_of(place)})\s*[．.:：?、]?\s*"
        found = re.match(r"\(([A-H])\)", choice) or re.match(bare, choice)
        letters.append(found[1] if found else "")
        texts.append(choice[found.end() :].strip() if found else choice.strip())
    return letters, texts


BBH_LABELS = {
    "boolean_expressions": ["True", "False"],
    "causal_judgement": ["Yes", "No"],
    "formal_fallacies": ["valid", "invalid"],
    "navigate": ["Yes", "No"],
    "sports_understanding": ["yes", "no"],
    "web_of_lies": ["Yes", "No"],
}
BBH_FREE: dict[str, Kind] = {
    "dyck_languages": "brackets",
    "multistep_arithmetic_two": "number",
    "object_counting": "number",
    "word_sorting": "words",
}
BBH_CHOICE = (
    "date_understanding disambiguation_qa geometric_shapes hyperbaton logical_deduction_five_objects "
    "logical_deduction_seven_objects logical_deduction_three_objects movie_recommendation "
    "penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection "
    "snarks temporal_sequences tracking_shuffled_objects_five_objects "
    "tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects"
).split()
BBH = sorted([*BBH_LABELS, *BBH_FREE, *BBH_CHOICE])
# Three published items were split at the commas inside their options, so that no letter is the gold answer.
# The options are joined again; keys are the gold texts, values the numbers of pieces of each option.
BBH_SPLIT_OPTIONS = {
    "Monsters, Inc": [2, 1, 1, 1],
    "dearth, wind, & fire": [3, 3, 2, 3],
    "rita, sue and bob poo": [2, 2, 2, 1],
}


def read_bbh() -> Read:
    """BBH, `SaylorTwift/bbh`: 27 tasks; shots are the three CoT examples of BBH's own `cot-prompts`.

    The hub has no CoT prompts; lm-eval ships them in `tasks/bbh/cot_fewshot` and they are read from there.
    """
    read = Read([])
    folder = importlib.resources.files("lm_eval") / "tasks" / "bbh" / "cot_fewshot"
    for subset in BBH:
        for n, item in enumerate(fetch("SaylorTwift/bbh", subset, "test", ["input", "target"])):
            read.test.append(_bbh_row(subset, str(n), item["input"], item["target"].strip(), read=read))
        samples = yaml.safe_load((folder / f"{subset}.yaml").read_text("utf-8"))["fewshot_config"]["samples"]
        for n, shot in enumerate(samples):
            answer = re.findall(r"answer is (.*?)\.?\s*$", shot["target"])[-1]
            read.shots.append(_bbh_row(subset, f"cot/{n}", shot["input"], answer, target=shot["target"]))
    return read


def _bbh_row(subset: str, n: str, text: str, gold: str, target: str = "", read: Read | None = None) -> Row:
    text = text.strip()
    kind: Kind = BBH_FREE.get(subset) or ("label" if subset in BBH_LABELS else "choice")
    if kind == "label":
        gold = next(word for word in BBH_LABELS[subset] if word.lower() == gold.lower())
        return make_row(
            "bbh", subset, f"{subset}/{n}", kind, text, [gold], [], BBH_LABELS[subset], target, shown=text
        )
    if kind != "choice":
        words = text.split("List:")[1].split() if kind == "words" else []
        return make_row("bbh", subset, f"{subset}/{n}", kind, text, [gold], [], words, target, shown=text)
    question, _, block = text.rpartition("Options:\n")
    options = [re.sub(r"^\([A-Z]\) ?", "", line) for line in block.split("\n")]
    if pieces := BBH_SPLIT_OPTIONS.get(gold):
        parts = iter(options)
        options = [", ".join(next(parts) for _ in range(count)) for count in pieces]
        gold = f"({letter_of(options.index(gold))})"
        lines = [f"({letter_of(i)}) {option}" for i, option in enumerate(options)]
        text = question + "Options:\n" + "\n".join(lines)
        if read:
            read.repaired.append(
                f"bbh {subset} row {n}: options had been split at their commas, joined again"
            )
    letters = [letter_of(i) for i in range(len(options))]
    return make_row(
        "bbh",
        subset,
        f"{subset}/{n}",
        kind,
        question,
        [gold.strip("()")],
        letters,
        options,
        target,
        shown=text,
    )


def letter_of(index: int) -> str:
    """0 to "A", 1 to "B" ..."""
    return chr(ord("A") + index)


def _match(pattern: re.Pattern[str], text: str, where: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if not found:
        raise UserError(
            f"{where}: `query` does not read as AGIEval's zero-shot prompt; correct ske_tasks/sources.py"
        )
    return found


READERS: dict[str, Callable[[], Read]] = {
    "mmlu": read_mmlu,
    "agieval": read_agieval,
    "arc_e": lambda: read_arc("arc_e", "ARC-Easy"),
    "arc_c": lambda: read_arc("arc_c", "ARC-Challenge"),
    "bbh": read_bbh,
    "nq": read_nq,
}
