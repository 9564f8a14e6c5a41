"""The one row schema of the six benchmarks, and how a row becomes a prompt.

A row is a plain dict (a line of a `datasets.Dataset`), so that lm-eval can log it as it is:

    python -c "from ske_tasks.six.load import load; print(load('arc_c')['test'][0])"
"""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, get_args

Kind = Literal["choice", "multi_choice", "label", "brackets", "words", "number", "math", "open"]
KINDS: tuple[str, ...] = get_args(Kind)


class Row(TypedDict):
    """One question.

    `letters` and `options` are parallel: the letter as the benchmark prints it (ARC also has 1-4) and the
    option's text. For kind `label` (yes/no, True/False, valid/invalid) `letters` is empty and `options` are
    the allowed words; for kind `words` they are the words to be sorted. `gold` holds the right letter
    (`choice`), every right letter (`multi_choice`), all accepted aliases (`open`), else the one right answer.
    `target` is how a few-shot example answers. `ske_question` and `ske_ending` make the prompt; `ske_stem` is
    the question without its options.
    """

    benchmark: str
    subset: str
    id: str
    kind: str
    question: str
    letters: list[str]
    options: list[str]
    gold: list[str]
    target: str
    ske_question: str
    ske_stem: str
    ske_ending: str


_ENDINGS: dict[str, str] = {
    "choice": 'End your reply with "The answer is (X)." where X is the letter of the right option.',
    "multi_choice": 'One or more options are right. End your reply with "The answer is (X)." '
    "where X stands for the letters of all right options.",
    "brackets": 'End your reply with "The answer is X." where X stands for the missing closing brackets '
    "only, separated by spaces.",
    "words": 'End your reply with "The answer is X." where X stands for the sorted words, '
    "separated by spaces.",
    "number": 'End your reply with "The answer is X." where X is the number.',
    "math": 'End your reply with "The answer is $X$." where X is the final result.',
    "open": 'End your reply with "The answer is X." where X is as short as possible: '
    "a name, a date, a number or a few words.",
}
_CHINESE_ENDINGS: dict[str, str] = {
    "choice": "请以“答案是(X)。”结束回答，其中X是正确选项的字母。",
    "multi_choice": "有一个或多个选项正确。请以“答案是(X)。”结束回答，其中X代表所有正确选项的字母。",
    "math": "请以“答案是$X$。”结束回答，其中X是最终结果；有多个空时，各空的结果用分号隔开。",
}


def make_row(
    benchmark: str,
    subset: str,
    name: str,
    kind: Kind,
    question: str,
    gold: list[str],
    letters: list[str] | None = None,
    options: list[str] | None = None,
    target: str = "",
    chinese: bool = False,
    shown: str | None = None,
) -> Row:
    """Build a row; `shown` is the question as the benchmark itself prints it, options included.

    Without `shown` the options are printed one per line, each after its own letter in brackets.
    """
    letters, options = letters or [], options or []
    if shown is None:
        lines = [f"({letter}) {option}".rstrip() for letter, option in zip(letters, options, strict=True)]
        shown = "\n".join([question.strip(), "", *lines]) if lines else question.strip()
    if kind == "label":
        ending = f'End your reply with "The answer is X." where X is {" or ".join(options)}.'
    else:
        ending = (_CHINESE_ENDINGS if chinese else _ENDINGS)[kind]
    row = Row(
        benchmark=benchmark,
        subset=subset,
        id=name,
        kind=kind,
        question=question.strip(),
        letters=letters,
        options=options,
        gold=gold,
        target=target,
        ske_question=shown,
        ske_stem=question.strip(),
        ske_ending=ending,
    )
    if not row["target"]:
        row["target"] = write_answer(row, chinese)
    return row


def prompt(row: Row) -> str:
    """The prompt of `direct` (lm-eval's `doc_to_text`): the question, an empty line, how to end."""
    return "\n\n".join(part for part in (row["ske_question"], row["ske_ending"]) if part)


def gold_text(row: Row) -> str:
    """The gold answer as one string: letters joined, or the first alias."""
    return "".join(row["gold"]) if row["kind"] == "multi_choice" else row["gold"][0]


def write_answer(row: Row, chinese: bool = False) -> str:
    """The gold answer in the sentence that `ske_ending` asks for."""
    answer = gold_text(row)
    if row["kind"] in ("choice", "multi_choice"):
        answer = f"({answer})"
    elif row["kind"] == "math" and "$" not in answer:
        answer = f"${answer}$"
    return f"答案是{answer}。" if chinese else f"The answer is {answer}."


def options_of(row: Mapping[str, Any]) -> dict[str, str]:
    """What `extract` needs of a row: letter to option text, or word to word where there are no letters."""
    return dict(zip(row["letters"] or row["options"], row["options"], strict=True))


def letter_of(index: int) -> str:
    """0 to "A", 1 to "B" ..."""
    return chr(ord("A") + index)
