"""From the hub's repositories to rows: one reader for each of the six benchmarks.

    python -c "from ske_tasks.six.sources import READERS; print(len(READERS['nq']().test))"

Every reader returns all items of the published test split. What cannot be scored (no gold answer) is listed
in `Read.unscored` with the reason, and what was repaired in `Read.repaired`; nothing is left out silently.
"""

from collections import defaultdict
from collections.abc import Callable

from ske_tasks.answers.reply import plain
from ske_tasks.six.agieval import AGIEVAL, read_agieval
from ske_tasks.six.bbh import read_bbh
from ske_tasks.six.hub import Read, fetch
from ske_tasks.six.rows import Row, letter_of, make_row


def read_mmlu() -> Read:
    """MMLU, `cais/mmlu`: test split of 57 subjects; the five `dev` questions of a subject are its shots.

    Five `dev` questions are also in `test`, of another subject or their own; the subject's first
    `validation` questions take their places.
    """

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

    read = Read(rows("test"))
    tested = {plain(row["ske_question"]) for row in read.test}
    spare: dict[str, list[Row]] = defaultdict(list)
    for row in rows("validation"):
        if plain(row["ske_question"]) not in tested:
            spare[row["subset"]].append(row)
    for shot in rows("dev"):
        known = plain(shot["ske_question"]) in tested
        if known:
            read.repaired.append(f"mmlu shot {shot['id']} is a test question, replaced from validation")
        read.shots.append(spare[shot["subset"]].pop(0) if known else shot)
    return read


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


READERS: dict[str, Callable[[], Read]] = {
    "mmlu": read_mmlu,
    "agieval": read_agieval,
    "arc_e": lambda: read_arc("arc_e", "ARC-Easy"),
    "arc_c": lambda: read_arc("arc_c", "ARC-Challenge"),
    "bbh": read_bbh,
    "nq": read_nq,
}
REPOSITORIES = {  # what each reader reads, on the hub
    "mmlu": ["cais/mmlu"],
    "agieval": [f"hails/agieval-{subset}" for subset in AGIEVAL],
    "arc_e": ["allenai/ai2_arc"],
    "arc_c": ["allenai/ai2_arc"],
    "bbh": ["SaylorTwift/bbh"],
    "nq": ["google-research-datasets/nq_open"],
}
