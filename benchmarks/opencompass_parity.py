"""Do OpenCompass' evaluators and our extraction judge the same answers alike? Lists every disagreement.

    COMPASS_DATA_CACHE=.../opencompass python benchmarks/opencompass_parity.py > disagreements.md

Needs the data of both harnesses: OpenCompass' folder, and the Hub (or a mirror in HF_ENDPOINT) for ours.
For 100 items of each benchmark, found in both, two replies are written, half of them right: one as the
prompts ask for it (`ASKED`), one as models end else (`OTHER`). OpenCompass judges them with the datasets of
eval_configs/ske.py, their postprocessors and, as for cot and explicit, `ske_models.opencompass.conclusion`;
we with `ske_tasks.answers.extract`.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import opencompass
from mmengine.config import Config  # type: ignore[import-untyped]
from opencompass.registry import ICL_EVALUATORS, TEXT_POSTPROCESSORS
from opencompass.utils import build_dataset_from_cfg

from ske_models.opencompass import conclusion
from ske_tasks.answers.extract import contains_alias, extract, is_right
from ske_tasks.six.load import quick_sample, read
from ske_tasks.six.rows import Row, gold_text, options_of

CONFIGS = Path(opencompass.__file__).parent / "configs" / "datasets"
STOCK = {
    "mmlu": "mmlu/mmlu_zero_shot_gen_47e2c0.py",
    "agieval": "agieval/agieval_gen_5c79b4.py",
    "arc_e": "ARC_e/ARC_e_gen_1e0de5.py",
    "arc_c": "ARC_c/ARC_c_gen_1e0de5.py",
    "bbh": "bbh/bbh_0shot_nocot_gen_925fc4.py",
    "nq": "nq/nq_open_gen_e93f8a.py",
}
# Stock ARC is the dev split, ours is the test split: OpenCompass' reader is given the test files.
ARC_TEST = {"arc_e": "ARC-e/ARC-Easy-Test.jsonl", "arc_c": "ARC-c/ARC-Challenge-Test.jsonl"}
# How the prompts ask a reply to end, with what models put around it.
ASKED = (
    "The answer is {bare}.",
    "So the answer is {bare}.",
    "{reasoning}\n\nThe answer is {bare}.",
    "{reasoning} Therefore, the answer is {bare}.",
    "{reasoning}\n\nThe correct answer is {bare}.",
    "{reasoning}\n\nAnswer: {bare}",
)
# How else models end a reply.
OTHER = (
    "{bare}",
    "{reasoning}\n\n**The answer is {bare}.**",
    "{reasoning}\n\nThe final answer is: $\\boxed{{{bare}}}$",
    "{reasoning}\n\nThe answer is {bare}. I hope this helps.",
    "At first sight the answer is no.\n{reasoning}\nThe answer is {bare}, because nothing else fits.",
    "{reasoning} So it must be {bare}.",
)
REASONING = (
    "Let us recall the relevant facts first. They narrow the choice down.",
    "Step 1: read the question closely.\nStep 2: apply what is known.\nStep 3: check the result.",
    "根据题意，逐项分析即可得出结论。",
)


class Case(NamedTuple):
    """An item in both harnesses: our row, OpenCompass' dataset config, its gold answer."""

    row: Row
    config: Any
    reference: Any


def cases(benchmark: str, size: int) -> Iterator[Case]:
    """`size` items, spread over the subsets, that both have."""
    configs = Config.fromfile(CONFIGS / STOCK[benchmark])
    datasets = next(value for name, value in configs.items() if name.endswith("_datasets"))
    by_subset: dict[str, list[Any]] = defaultdict(list)
    for row in read(benchmark).test:
        by_subset[row["subset"]].append(row)
    places = {id(row): place for rows in by_subset.values() for place, row in enumerate(rows)}
    built: dict[str, Any] = {}
    for row in quick_sample(read(benchmark).test, size):
        config = next(d for d in datasets if benchmark in (*ARC_TEST, "nq") or d["name"] == row["subset"])
        if row["subset"] not in built:
            if benchmark in ARC_TEST:
                folder = Path(os.environ["COMPASS_DATA_CACHE"]).resolve() / "data" / "ARC"
                config = dict(config, path=str(folder / ARC_TEST[benchmark]))
            built[row["subset"]] = build_dataset_from_cfg(config).test
        theirs = built[row["subset"]]
        if benchmark in ARC_TEST:  # OpenCompass leaves out what has not four options, and letters the rest
            found = [item for item in theirs if item["question"].strip() == row["question"]]
            if len(found) != 1 or row["letters"] != list("ABCD"):
                continue
            item = found[0]
        else:
            # MMLU's rows are numbered over all subjects; the others by their place in the subset's data
            place = places[id(row)] if benchmark == "mmlu" else int(row["id"].rpartition("/")[2])
            columns = config["reader_cfg"]["input_columns"]
            # the Hub's jec-qa-ca has one row less
            near = [theirs[n] for n in (place, place + 1) if n < len(theirs)]
            start = _letters(row["question"])[:25]
            item = next(i for i in near if start in _letters(" ".join(str(i[c]) for c in columns)))
        yield Case(row, config, item[config["reader_cfg"]["output_column"]])


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def answer(row: Row, ways: Sequence[str], draw: random.Random) -> str:
    """A reply, right or wrong with equal chance."""
    bare = gold_text(row)
    if draw.random() < 0.5:
        bare = wrong(row, draw)
    if row["kind"] in ("choice", "multi_choice"):
        bare = f"({bare})" if row["kind"] == "choice" else bare
    if row["kind"] == "math":
        bare = f"${bare.strip('$')}$"
    return draw.choice(ways).format(bare=bare, reasoning=draw.choice(REASONING))


def wrong(row: Row, draw: random.Random) -> str:
    """Another answer of the same kind."""
    match row["kind"]:
        case "choice":
            return draw.choice([letter for letter in row["letters"] if letter not in row["gold"]])
        case "multi_choice":
            full = "".join(sorted(row["gold"]))
            return draw.choice([letters for letters in ("A", "AB", "BCD", "ABCD") if letters != full])
        case "label":
            return draw.choice([word for word in row["options"] if word != row["gold"][0]])
        case "words":
            return " ".join(reversed(row["gold"][0].split()))
        case "number" | "math":
            return "-98765"
        case "brackets":
            return ") ) )"
    return "Zanzibar Smith"


def theirs(case: Case, text: str) -> bool:
    """OpenCompass' verdict, through the dataset's own postprocessors and evaluator."""
    config = case.config["eval_cfg"]
    said, gold = conclusion(text), case.reference
    for name, value in (("pred_postprocessor", said), ("dataset_postprocessor", gold)):
        if name in config:
            arguments = dict(config[name])
            process = arguments.pop("type")
            process = TEXT_POSTPROCESSORS.get(process) if isinstance(process, str) else process
            value = process(value, **arguments)  # noqa: PLW2901
        said, gold = (value, gold) if name == "pred_postprocessor" else (said, value)
    scores = ICL_EVALUATORS.build(dict(config["evaluator"])).score([said], [gold])
    return float(scores.get("score", scores.get("accuracy"))) == 100


def main() -> None:
    """Prints a table, then the disagreements."""
    draw = random.Random(0)
    judged: Counter[str] = Counter()
    same: Counter[tuple[str, str]] = Counter()
    lines = []
    for benchmark in STOCK:
        for case in cases(benchmark, 120):
            if judged[benchmark] == 100:
                break
            judged[benchmark] += 1
            row = case.row
            for name, ways in (("asked", ASKED), ("other", OTHER)):
                text = answer(row, ways, draw)
                if row["kind"] == "open":
                    ours = contains_alias(extract(text, "open", {}), row["gold"])
                else:
                    ours = is_right(extract(text, row["kind"], options_of(row)), row)
                agreed = ours == theirs(case, text)
                same[benchmark, name] += agreed
                if not agreed:
                    said = "right" if ours else "wrong"
                    lines.append(
                        f"| {name} | {row['id']} | {row['kind']} | {gold_text(row)} | {text!r} | {said} |"
                    )
        print(
            benchmark, same[benchmark, "asked"], same[benchmark, "other"], judged[benchmark], file=sys.stderr
        )
    print("| benchmark | items | same verdict, as asked | else |\n|---|---|---|---|")
    for benchmark, count in judged.items():
        print(f"| {benchmark} | {count} | {same[benchmark, 'asked']} | {same[benchmark, 'other']} |")
    sums = {name: sum(same[b, name] for b in judged) for name in ("asked", "other")}
    print(f"| all | {judged.total()} | {sums['asked']} | {sums['other']} |")
    print("\n| reply | item | kind | gold | text | ours |\n|---|---|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
