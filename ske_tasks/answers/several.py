"""Reads the letters of a question with one or more right options.

python -c "from ske_tasks.answers.extract import extract as e; print(e('A、B都对', 'multi_choice', {'A': '', 'B': ''}))"

Rules, the first that finds something: the last statement with letters ("The answer is A, C and D."), or that
all options are right; a first or last line that is only letters; a conclusion ("所以，A、B都是正确的。"); all
letters that are called right one by one ("A正确，B错误，C正确"); a last sentence that names letters; the options'
own texts as the whole reply. Letters count for more than texts.
"""

import re

from ske_tasks.answers.letters import CONCLUDE, Letters
from ske_tasks.answers.option_text import Options, compared
from ske_tasks.answers.reply import ParsedReply, plain

_ALL = re.compile(
    r"""\W{0,4}(?:the\ )?(?:所有|全部|以上)(?:的)?(?:[四五六]个)?选项(?:都?(?:是)?正确的?)?\W{0,4}$  # 所有的选项。
      | \W{0,4}(?:the\ )?以上(?:都|全部|均)?(?:是|对|正确)\W{0,4}$                           # 以上都是
      | \W{0,4}all\ (?:of\ )?(?:the\ )?(?:above|options?|(?:four|five)\ options|choices)
        (?:\ are\ (?:right|correct))?\W{0,4}$                                           # all of the above
    """,
    re.VERBOSE | re.IGNORECASE,
)
_RANGE = re.compile(r"从?(?P<first>[A-H])到(?P<last>[A-H])[,\s]{0,2}(?:都|均|全部)(?:是)?(?:正确|对)")  # 从A到D都正确
_WRONG = re.compile(r"(?:不|in|not )(?:正确|correct|right)")
_DENIED = re.compile(r"不|错|非|没|无|未|\bnot\b|n't\b|\bwrong\b|incorrect|\?|如果", re.IGNORECASE)


def read_choices(reply: ParsedReply, options: Options, sure: bool = False) -> str | None:
    """The letters in alphabetical order ("ACD"), or None. `sure`: only what is stated or concluded by letter."""
    letters = Letters.of(options)
    found = _stated(reply, letters)
    if found is not None or reply.truncated:
        return found or None
    for sentence in reversed(reply.sentences):
        if concluded := _concluded(sentence, letters):
            return concluded
    found = _called_right(reply, letters) or _named_last(reply, letters)
    if found or sure:
        return found
    by_text = [k for k, option in options.items() if compared(option) and compared(option) in plain(reply.text)]
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
        if re.fullmatch(only, line):
            return letters.run(line.lstrip(" \t.-*#"))
        begun = re.match(rf"\W{{0,4}}(?:{one})[)\].:,、]", line)
        items = [item for item in reply.lines if re.match(rf"\W{{0,4}}(?:{one})[)\].:,、]", item)]
        if begun and len(items) == 1 and not re.match(rf"\W{{0,4}}(?:{one})\W{{0,2}}(?:is|选?项|错|不)", line):
            return letters.run(line.lstrip(" \t.-*#"))
    return None


def _letters_at(tail: str, letters: Letters) -> str | None:
    line = next((line for line in tail.split("\n") if line.strip()), "")
    if _ALL.match(line):
        return "".join(sorted(letters.options))
    return letters.run(tail) or ("" if letters.foreign.match(line) else None)


def _concluded(sentence: str, letters: Letters) -> str | None:
    """ "So A and C are right.", "因此，B、D", "从A到D, 都是正确的"."""
    if all_of := _RANGE.search(sentence):
        return "".join(sorted(k for k in letters.options if all_of["first"] <= k <= all_of["last"]))
    if not re.search(r"(?i)\b(?:so|thus|therefore|hence)\b|所以|因此|故|综上|由此", sentence):
        return None
    called = letters.called_right.findall(sentence)
    if called and not _WRONG.search(sentence):
        return "".join(sorted(letters.in_text(called[-1][0]))) or None
    run = letters.run_pattern
    ending = re.search(rf"{CONCLUDE}(?P<run>{run})[.!]?\s?$", sentence, re.VERBOSE)
    return "".join(sorted(letters.in_text(ending["run"]))) or None if ending else None


def _called_right(reply: ParsedReply, letters: Letters) -> str | None:
    """Every letter that is called right: "A正确，B错误，C正确", or the last run of "A and C are correct"."""
    right: set[str] = set()
    for found in letters.called_right.finditer(reply.text):
        before = reply.text[max(0, found.start() - 40) : found.start()]
        if not re.search(r"(?i)(?:\bnot|n't|\bif|如果|不是?)\s?(?:\w+\s)?$", before):
            right |= set(letters.in_text(found["run"]))
    return "".join(sorted(right)) or None


def _named_last(reply: ParsedReply, letters: Letters) -> str | None:
    """The options that the last sentence names by letter, and does not deny."""
    last = reply.last_sentence
    named = letters.bracketed(last)
    items = {line[:12] for line in reply.lines if re.match(rf"\W{{0,3}}(?:{letters.alternatives})[).:\]]", line)}
    if not named or _DENIED.search(last) or (len(items) > 1 and last[:12] in items):
        return None
    return "".join(sorted(named))
