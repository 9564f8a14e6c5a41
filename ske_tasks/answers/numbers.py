"""Reads a number: digits with thousands separators, or words ("minus thirty-five", "one hundred and two").

    python -c "from ske_tasks.answers.extract import extract as e; print(e('It is 2+3=5.', 'number', {}))"

Rules: the number that the last statement gives; without a statement, what follows the last "=" of the last
sentence, or the only number in it. A number in words that is no whole number ("half a dozen") is left unread.
"""

import re

from ske_tasks.answers.marks import Statement
from ske_tasks.answers.reply import ParsedReply

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000}
_VALUES = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_WORD = "|".join(sorted([*_VALUES, *_SCALES], key=len, reverse=True))
_NUMBER = re.compile(
    rf"""(?<![A-Za-z0-9_.])(?P<sign>-|minus\s|negative\s)?\s?
    (?: (?P<digits>\d{{1,3}}(?:,\d{{3}}){{1,8}}(?:\.\d{{1,60}})?      # 1,024.5
          | \d{{1,60}}(?:\.\d{{1,60}})?)                             # 24; 0.5
      | (?P<words>(?:a\s)?(?:{_WORD})\b(?:(?:\s|-)(?:and\s)?(?:{_WORD})\b){{0,11}})  # one hundred and two
    )(?!\d)""",
    re.IGNORECASE | re.VERBOSE,
)
# what follows a number in words that makes it another number: "twenty-first", "two point five", "two dozen"
_GOES_ON = re.compile(
    r"[\s-]?(?:\bpoint\b|(?:and\s)?(?:a\s)?(?:half|third|quarter|tenth)s?\b|dozens?\b)|-\w", re.IGNORECASE
)
# how the stated number came about: "9, because 4 + 5 = 9", "9 (4 plums = 4, 5 pears = 5)."
_ASIDE = re.compile(r"\b(?:because|since|as)\b|(?<=\w)\s\([^()]{0,200}\)\W{0,4}$", re.IGNORECASE)


def read_number(reply: ParsedReply, sure: bool = False) -> str | None:
    """A number as its shortest decimal ("-35", "1024", "0.5"), or None. `sure`: only what is stated."""
    found = None
    for mark in reply.statements:
        found = _stated(mark) or found
    if found is None and (only := _NUMBER.fullmatch(reply.last_line.strip(" .\"'"))):
        found = canonical(only)
    if found or sure or reply.truncated:
        return found
    last = reply.last_sentence.replace("\\,", "").replace("\\!", "")
    if "=" in last:
        after = last.rpartition("=")[2]
        return number_in(after) if re.search(r"\w", after) else None
    numbers = {canonical(m) for m in _NUMBER.finditer(last)}
    return numbers.pop() if len(numbers) == 1 else None


def _stated(mark: Statement) -> str | None:
    line = (
        next((line for line in mark.tail.split("\n") if line.strip()), "")
        .replace("\\,", "")
        .replace("\\!", "")
    )
    stated = re.split(r"(?<=[.!])\s+(?=[A-Z])", line.strip(), maxsplit=1)[0]
    if turned := re.match(r"\s?not\b.*?\b(?:but|it is|it's)\b(.*)", stated):
        stated = turned[1]
    return number_in(_ASIDE.split(stated, maxsplit=1)[0]) or number_in(stated)


def number_in(sentence: str) -> str | None:
    """The first number after the last "=" (the result of a sum), else the first number."""
    found = _NUMBER.search(sentence.rpartition("=")[2]) or _NUMBER.search(sentence)
    return canonical(found) if found else None


def canonical(found: re.Match[str]) -> str | None:
    """A matched number without thousands separators, trailing zeros and words; None for odd words."""
    if found["words"]:
        value = _in_words(found)
        digits = None if value is None else str(value)
    else:
        digits = found["digits"].replace(",", "")
        digits = digits.rstrip("0").rstrip(".") if "." in digits else digits.lstrip("0") or "0"
    if digits is None:
        return None
    return ("-" if found["sign"] and digits != "0" else "") + digits


def _in_words(found: re.Match[str]) -> int | None:
    """ "one hundred and twenty-one" as 121; None when the words do not make one whole number."""
    if _GOES_ON.match(found.string, found.end()):
        return None
    total = group = 0
    last = 10**9
    for word in re.findall(_WORD, found["words"].lower()):
        if word in _VALUES:
            value = _VALUES[word]
            if value >= last or (last < 20 and last != 0) or (last < 100 and (value >= 10 or value == 0)):
                return None
            group, last = group + value, value
        elif word == "hundred":
            group, last = max(group, 1) * 100, 100
        else:
            total, group, last = total + max(group, 1) * _SCALES[word], 0, _SCALES[word]
    return total + group
