"""From a model's text to its answer, and whether that is right, for every kind of question.

    python -c "from ske_tasks.answers.extract import extract as e; print(e('It is B', 'choice', {'B': ''}))"

`extract` never guesses: a text that does not state an answer gives None, which is counted as `unanswered`.
The reply is parsed once (`ske_tasks.answers.reply`); the rules of each kind are in its module: `choice`,
`several`, `free`, `numbers`, `math`.
"""

import re
import string
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ske_tasks.answers.choice import read_choice
from ske_tasks.answers.equality import same
from ske_tasks.answers.free import read_brackets, read_label, read_open, read_words
from ske_tasks.answers.math import read_math
from ske_tasks.answers.numbers import read_number
from ske_tasks.answers.reply import ParsedReply, parse, unify
from ske_tasks.answers.several import read_choices


def extract(text: str, kind: str, options: Mapping[str, str], truncated: bool = False) -> str | None:
    """The answer that `text` states.

    Args:
        text: what the model wrote, reasoning included.
        kind: one of `ske_tasks.six.rows.KINDS`.
        options: letter to option text (`choice`, `multi_choice`), the allowed words to themselves (`label`),
            the words to be sorted to themselves (`words`), else empty; `options_of` makes it of a row.
        truncated: the text ran into its token limit: only what it says in full counts.

    Returns:
        The letter, the sorted letters, the word, the number ...; None when no answer is stated.
    """
    keep: Literal["words", "brackets", "latex"] = "words"
    if kind in ("brackets", "math"):
        keep = "latex" if kind == "math" else "brackets"
    reply = parse(text, truncated, keep)
    items = reply.items
    # A next question ends the reply only when what precedes it states an answer.
    for item in items[:-1]:
        if (answer := _read(item, kind, options, sure=True)) is not None:
            return answer
    return _read(reply, kind, options, sure=False)


def _read(reply: ParsedReply, kind: str, options: Mapping[str, str], sure: bool) -> str | None:
    """`sure`: only what is stated, not what may be concluded from how the reply ends."""
    match kind:
        case "choice":
            return read_choice(reply, options, sure)
        case "multi_choice":
            return read_choices(reply, options, sure)
        case "label":
            return read_label(reply, options, sure)
        case "number":
            return read_number(reply, sure)
        case "brackets":
            return read_brackets(reply, sure)
        case "words":
            return read_words(reply, options)
        case "math":
            return read_math(reply, sure)
        case "open":
            return read_open(reply)
    raise ValueError(f"no such kind of question: {kind!r}")


def is_right(prediction: str | None, row: Mapping[str, Any]) -> bool:
    """Whether an extracted answer is right; `row` is a `ske_tasks.six.rows.Row`.

    `multi_choice`: exactly the right letters (AGIEval's rule). `brackets`: the missing brackets, or the whole
    sequence with them. `math`: equal in LaTeX. `open`: equal to an alias after SQuAD's normalisation.
    """
    if prediction is None:
        return False
    gold = row["gold"]
    match row["kind"]:
        case "multi_choice":
            return prediction == "".join(sorted(gold))
        case "label":
            return prediction.lower() == gold[0].lower()
        case "number":
            return float(prediction) == float(gold[0])
        case "brackets":
            given = row["question"].rpartition("Input:")[2]
            return _squeezed(prediction) in (_squeezed(gold[0]), _squeezed(given + gold[0]))
        case "words":
            return prediction.split() == gold[0].lower().split()
        case "math":
            return same(gold[0], prediction)
        case "open":
            aliases = {normalise_open(alias) for alias in gold}
            return any(normalise_open(answer) in aliases for answer in _sentence_prefixes(prediction))
    return prediction == gold[0]


def normalise_open(text: str) -> str:
    """SQuAD's normalisation (evaluate-v1.1.py): no case, no punctuation, no articles, single spaces.

    Typographic quotes, dashes and full-width characters are written as in ASCII first.
    """
    words = "".join(character for character in unify(text).lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split()) or text.strip().lower()


def contains_alias(prediction: str | None, gold: Iterable[str]) -> bool:
    """OpenCompass' rule for NQ (`NQEvaluator`, 0.5.4): an alias is contained in the answer.

    prediction: the stated answer, as OpenCompass' own choice, the first line of the reply, is reasoning for
    CoT and explicit. An alias that its normalisation empties (it cuts at the first "." or ",") is compared
    whole.
    """
    if prediction is None:
        return False
    given = normalise_open(prediction)
    return any(_opencompass_form(alias) in given for alias in gold)


def _opencompass_form(text: str) -> str:
    return normalise_open(re.split(r"[\n.,]", text.lower(), maxsplit=1)[0]) or normalise_open(text)


def _sentence_prefixes(line: str) -> list[str]:
    """What may be the answer in its line: up to each sentence end ("St. Louis. It is a city." has three)."""
    ends = [found.start() for found in re.finditer(r"[.!?;](?=\s|$)", line)]
    return [line[:end] for end in ends] + [line]


def _squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)
