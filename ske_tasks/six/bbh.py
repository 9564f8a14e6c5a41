"""BBH (Suzgun et al. 2022), 27 tasks, from the hub to rows, and its own CoT examples as shots.

python -c "from ske_tasks.six.bbh import read_bbh; print(len(read_bbh().test))"
"""

import importlib.resources
import re
from pathlib import Path

from ske_models.yaml_data import load_yaml
from ske_tasks.six.hub import Read, fetch
from ske_tasks.six.rows import Kind, Row, letter_of, make_row

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
    folder = Path(str(importlib.resources.files("lm_eval"))) / "tasks" / "bbh" / "cot_fewshot"
    for subset in BBH:
        for n, item in enumerate(fetch("SaylorTwift/bbh", subset, "test", ["input", "target"])):
            read.test.append(_bbh_row(subset, str(n), item["input"], item["target"].strip(), read=read))
        file = folder / f"{subset}.yaml"
        samples = load_yaml(file, str(file))["fewshot_config"]["samples"]
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
