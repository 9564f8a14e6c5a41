"""Reads the letters of a question with one or more right options.

    python -c "from ske_tasks.answers.extract import *; print(extract('A', 'multi_choice', {'A': ''}))"

Rules, the first that finds something: the last statement with letters ("The answer is A, C and D."), or that
all options are right; a first or last line that is only letters; a conclusion ("所以，A、B都是正确的。");
all letters that are called right one by one ("A正确，B错误，C正确"); a last sentence that names letters; the
options' own texts as the whole reply. Letters count for more than texts.
"""

import re

from ske_tasks.answers.letters import CONCLUDE, Letters
from ske_tasks.answers.option_text import Options, compared
from ske_tasks.answers.reply import ParsedReply, plain

# 因此，全部选项都是正确的
_ALL_INSIDE = re.compile(r"(?:所有|全部|以上|[四五六]个)(?:的)?选项(?:都|均|全)(?:是)?(?:正确|对)")
_ALL = re.compile(
    r"""\W{0,4}(?:所有|全部|以上)(?:的)?(?:[四五六]个)?选项(?:都?(?:是)?正确的?)?\W{0,4}$   # 所有的选项。
      | \W{0,4}以上(?:都|全部|均)?(?:是|对|正确)\W{0,4}$                           # 以上都是
      | \W{0,4}all\ (?:of\ )?(?:the\ )?(?:above|options?|(?:four|five)\ options|choices)
        (?:\ are\ (?:right|correct))?\W{0,4}$                                           # all of the above
    """,
    re.VERBOSE | re.IGNORECASE,
)
_RANGE = re.compile(
    r"从?(?P<first>[A-H])到(?P<last>[A-H])[,\s]{0,2}(?:都|均|全部)(?:是)?(?:正确|对)"
)  # 从A到D都正确
_WRONG = re.compile(r"(?:不|in|not )(?:正确|correct|right)")
_DENIED = re.compile(r"不|错|非|没|无|未|\bnot\b|n't\b|\bwrong\b|incorrect|\?|如果", re.IGNORECASE)


def read_choices(reply: ParsedReply, options: Options, sure: bool = False) -> str | None:
    """The letters in alphabetical order ("ACD"), or None. `sure`: only what is stated or concluded."""
    letters = Letters.of(options)
    found = _stated(reply, letters)
    if found is not None or reply.truncated:
        return found or None
    starts = {line[:20] for line in reply.lines}
    for sentence in reversed(reply.sentences):
        if concluded := _concluded(sentence, letters, sentence[:20] in starts):
            return concluded
    found = _called_right(reply, letters) or _named_last(reply, letters)
    if found or sure:
        return found
    by_text = [
        k for k, option in options.items() if compared(option) and compared(option) in plain(reply.text)
    ]
    return "".join(sorted(by_text)) if by_text and len(reply.sentences) <= len(by_text) else None


def _stated(reply: ParsedReply, letters: Letters) -> str | None:
    found = None
    for mark in reply.statements:
        found = _letters_at(mark.tail, letters) or found
    if found:
        return found
    every = "".join(sorted(letters.options))
    one = letters.alternatives
    for line in (reply.last_line, reply.first_line):
        if _ALL.match(line):
            return every
        only = rf"[\W\d]{{0,6}}(?:(?i:option|choice)s?\s?)?(?:(?:{one})(?:\W|and|和|与|及){{0,6}}){{1,12}}"
        if len(line) <= 80 and re.fullmatch(only, line):
            return letters.run(line.lstrip(" \t.-*#"))
        begun = re.match(rf"\W{{0,4}}(?:{one})[)\].:,、]", line)
        said_of = re.match(rf"\W{{0,4}}(?:{one})\W{{0,2}}(?:is|选?项|错|不)", line)
        if begun and not said_of and not letters.is_list([line]) and not letters.is_item(line, reply.lines):
            return letters.run(line.lstrip(" \t.-*#"))
    return None


def _letters_at(tail: str, letters: Letters) -> str | None:
    line = next((line for line in tail.split("\n") if line.strip()), "")
    if _ALL.match(line):
        return "".join(sorted(letters.options))
    return letters.run(tail) or ("" if letters.foreign.match(line) else None)


def _concluded(sentence: str, letters: Letters, begins_line: bool) -> str | None:
    """ "So A and C are right.", "因此，B、D", "从A到D, 都是正确的"; not "因此A正确" amid other options."""
    if all_of := _RANGE.search(sentence):
        return "".join(sorted(k for k in letters.options if all_of["first"] <= k <= all_of["last"]))
    if _ALL_INSIDE.search(sentence) and not _DENIED.search(sentence):
        return "".join(sorted(letters.options))
    opening = re.search(
        r"(?i)\b(?:so|thus|therefore|hence)\b|(?:所以|因此|故|综上所?述?|由此可?[见知]?)(?P<comma>,)?",
        sentence,
    )
    if not opening:
        return None
    run: list[str] = []
    called = letters.called_right.findall(sentence)
    if called and not _WRONG.search(sentence):
        run = letters.in_text(called[-1][0])
    else:
        ending = rf"(?:{CONCLUDE}|[:,]\s?|即)(?:选项|答案)?(?P<run>{letters.run_pattern})(?:选?项)?[.!]?\s?$"
        if found := re.search(ending, sentence, re.VERBOSE):
            run = letters.in_text(found["run"])
    whole = opening["comma"] or opening[0].isascii() or begins_line or len(run) > 1
    return "".join(sorted(run)) or None if whole else None


def _called_right(reply: ParsedReply, letters: Letters) -> str | None:
    """Every letter that is called right: "A正确，B错误，C正确", or the last run of "A and C are correct"."""
    right: set[str] = set()
    for found in letters.called_right.finditer(reply.text):
        before = reply.text[max(0, found.start() - 40) : found.start()]
        if not re.search(r"(?i)(?:\bnot|n't|\bif|如果|不是?)\s?(?:选项|option|[a-z]+)?\s?$", before):
            right |= set(letters.in_text(found["run"]))
    return "".join(sorted(right)) or None


def _named_last(reply: ParsedReply, letters: Letters) -> str | None:
    """The options that the last sentence names by letter, and does not deny."""
    last = reply.last_sentence
    named = letters.bracketed(last)
    if not named or _DENIED.search(last) or letters.is_item(last, reply.lines + reply.sentences):
        return None
    runs = [letters.in_text(run) for run in letters.runs.findall(last)]
    together = [run for run in runs if set(named) <= set(run)]
    if len(named) > 1 and not together:
        return None  # named one by one, as in the question itself
    return "".join(sorted(together[-1] if together else named))
