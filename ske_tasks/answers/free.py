"""Reads the free forms: BBH's words, numbers, bracket sequences and sorted lists, and NQ's short answers.

    python -c "from ske_tasks.answers.free import read_number; print(read_number('The answer is 2+3=5.'))"

Each reader takes the last statement of an answer ("The answer is ..."); without one it takes only what cannot
be anything else: a reply or last line that is nothing but the answer, or a last sentence that holds exactly
one.
"""

import re
from collections.abc import Mapping

from ske_tasks.answers.statements import clean, first_line, last_line, sentences, statements

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
)
_ONES += "sixteen seventeen eighteen nineteen twenty".split()
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_ONES)}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>-|minus\s+|negative\s+)?\s*(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|"
    rf"(?i:{'|'.join(_ONES)})\b)(?![\d])",
    re.IGNORECASE,
)
_BRACKET_RUN = re.compile(r"[\[\](){}<>](?:[\s,\"']*[\[\](){}<>])*")
_OPPOSITE = {
    "valid": "invalid",
    "true": "false",
    "yes": "no",
    "invalid": "valid",
    "false": "true",
    "no": "yes",
}


def read_label(text: str, words: Mapping[str, str]) -> str | None:
    """One of a closed set of words (yes/no, True/False, valid/invalid), or None."""
    text = clean(text)
    found = None
    for mark in statements(text):
        found = _label_in(_first_sentence(mark.tail), words, first=True) or found
    if found:
        return found
    last = (sentences(text) or [""])[-1].rpartition("=")[2]
    concluded = re.match(r"(?i)(?:so|thus|therefore|hence|in conclusion|overall)\b[\s,:]*(.*)", last)
    for line in (last_line(text), first_line(text), concluded[1] if concluded else ""):
        if word := _label_at_start(line, words):
            return word
    # Inside a sentence yes and no are ordinary words ("no way"); there only their synonyms count.
    return _label_in(last, words, skip=("yes", "no"))


def _label_at_start(line: str, words: Mapping[str, str]) -> str | None:
    found = re.match(rf"\W*({'|'.join(words)})\s*(?:[.,;:!\"')-]|$)", line, re.IGNORECASE)
    return _named(found[1], words) if found else None


def _label_in(
    sentence: str, words: Mapping[str, str], first: bool = False, skip: tuple[str, ...] = ()
) -> str | None:
    """The label of a sentence, "not valid" being "invalid"; None where it has none, or (not `first`) two."""
    meaning = {word.lower(): word.lower() for word in words}
    if "yes" in meaning:
        meaning |= {"plausible": "yes", "implausible": "no"}
    known = "|".join(word for word in meaning if word not in skip)
    negation = r"(?P<no>\b(?:not|never|isn't|cannot be)\s+(?:\w+\s+)?)?"
    hits = []
    for found in re.finditer(rf"{negation}\b(?P<word>{known})\b", sentence, re.IGNORECASE):
        word = meaning[found["word"].lower()]
        negated = found["no"] and found["word"].lower() not in ("yes", "no")
        hits.append(_OPPOSITE[word] if negated else word)
    if not hits or (not first and len(set(hits)) > 1):
        return None
    return _named(hits[0], words)


def _named(word: str, words: Mapping[str, str]) -> str | None:
    return next((name for name in words if name.lower() == word.lower()), None)


def read_number(text: str) -> str | None:
    """A number as its shortest decimal ("-35", "1024", "0.5"), or None."""
    text = clean(text).replace("\\,", "").replace("\\!", "")
    found = None
    for mark in statements(text):
        stated = _first_sentence(mark.tail)
        if turned := re.match(r"\s*not\b.*?\b(?:but|it is|it's)\b(.*)", stated):
            stated = turned[1]
        found = _number_in(stated) or found
    if found:
        return found
    last = (sentences(text) or [""])[-1]
    if "=" in last:
        return _number_in(last)
    numbers = [canonical(m) for m in _NUMBER.finditer(last)]
    return numbers[0] if len(set(numbers)) == 1 else None


def _number_in(sentence: str) -> str | None:
    """The first number after the last "=" (the result of a sum), else the first number."""
    found = _NUMBER.search(sentence.rpartition("=")[2]) or _NUMBER.search(sentence)
    return canonical(found) if found else None


def canonical(found: re.Match[str]) -> str:
    """A matched number without thousands separators, trailing zeros and words."""
    digits = NUMBER_WORDS.get(found["digits"].lower(), found["digits"]).replace(",", "")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return ("-" if found["sign"] and digits != "0" else "") + (
        digits.lstrip("0") or "0" if "." not in digits else digits
    )


def read_brackets(text: str) -> str | None:
    """A bracket sequence with single spaces ("] ) >"), or None."""
    text = clean(text, keep_math=True)
    text = re.sub(r"\\boxed\s*\{\s*(.*?)\s*\}(?=\s*\$*\s*(?:\.|\n|$))", r" the answer is: \1 ", text)
    text = re.sub(r"\\text\{(.*?)\}", r"\1", text).replace("\\", "").replace("$", " ").replace("`", " ")
    text = text.replace("**", " ")
    found = None
    for mark in statements(text):
        line = first_line(mark.tail)
        run = _BRACKET_RUN.search(line)
        if run and not re.search(r"\w", line[: run.start()].replace("the sequence is", "")):
            found = run[0]
    if found is None:
        for line in (last_line(text), first_line(text)):
            ending = re.fullmatch(r"(?:[^\[\](){}<>]*[:=])?[\s\"']*([\[\](){}<>\s,\"']+)\.?", line)
            if ending and re.search(r"[\[\](){}<>]", ending[1]):
                found = ending[1]
                break
    return " ".join(re.findall(r"[\[\](){}<>]", found)) if found else None


def read_words(text: str, words: Mapping[str, str]) -> str | None:
    """A list of words, lower case and separated by spaces, or None. `words`: those that were to be sorted."""
    text = clean(text)
    found = None
    for mark in statements(text):
        block = re.split(r"\n\s*\n", mark.tail.strip(), maxsplit=1)[0]
        one_line = first_line(block)
        for candidate in (block, one_line):
            listed = _word_list(candidate)
            if listed and (sorted(listed) == sorted(words) or candidate is one_line):
                found = listed
                break
    if found is None:
        blocks = re.split(r"\n\s*\n", text)
        for candidate in (last_line(text), *reversed(blocks), first_line(text)):
            listed = _word_list(candidate.rpartition(":")[2] or candidate)
            if sorted(listed) == sorted(words):
                found = listed
                break
    return " ".join(found) if found else None


def _word_list(block: str) -> list[str]:
    block = re.sub(r"^\s*(?:\d+[.)]|[-*•])\s+", " ", block, flags=re.MULTILINE)
    block = re.sub(
        r"^\W*(?:the\s+)?(?:sorted\s+)?(?:list|words?|order)?\s*(?:is|are)?\s*:",
        " ",
        block,
        flags=re.IGNORECASE,
    )
    pieces = re.split(r"[\s,;<>→\[\]()\"]+|\band\b(?=\s+\S+\W*$)", block)
    return [word for piece in pieces if (word := piece.strip(".:!?'").lower())]


def read_open(text: str) -> str | None:
    """NQ's short answer as the line that states it, or None for a longer text that states none."""
    text = clean(text)
    found = None
    for mark in statements(text):
        stated = first_line(mark.tail)
        if turned := re.match(r"(?i)(?:not\b|n't).*?\b(?:but|it is|it was|rather)\b\s+(.*)", stated):
            stated = turned[1]
        found = stated or found
    lines = [line for line in text.splitlines() if line.strip()]
    if (
        found is None
        and lines
        and (len(lines) == 1 or (len(lines[0].split()) <= 8 and not lines[0].rstrip().endswith(":")))
    ):
        found = lines[0]
    if found is None or not found.strip(". "):
        return None
    found = re.sub(r"(?i)^\W*(?:(?:it|he|she|they|this|that|there) (?:is|was|were|are)\s+)", "", found)
    bare = found.strip(" \t\"'*:")
    return (bare if re.search(r"\w", bare) else found.strip()) or None


def _first_sentence(tail: str) -> str:
    line = first_line(tail)
    return re.split(r"(?<=[.!])\s+(?=[A-Z])", line)[0]
