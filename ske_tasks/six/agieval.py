"""AGIEval v1 (Zhong et al. 2023) from the hub's zero-shot prompts to rows.

python -c "from ske_tasks.six.agieval import read_agieval; print(len(read_agieval().test))"
"""

import re

from ske_models.errors import UserError
from ske_tasks.six.hub import Read, fetch
from ske_tasks.six.rows import Kind, Row, letter_of, make_row

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


def _match(pattern: re.Pattern[str], text: str, where: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if not found:
        raise UserError(
            f"{where}: `query` does not read as AGIEval's zero-shot prompt; correct ske_tasks/six/agieval.py"
        )
    return found
