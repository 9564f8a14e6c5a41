"""Reads the free forms: BBH's words, bracket sequences and sorted lists, and NQ's short answers.

    python -c "from ske_tasks.answers.extract import extract as e; print(e('So it is: ) ]', 'brackets', {}))"

Each reader takes the last statement of an answer ("The answer is ..."); without one it takes only what cannot
be anything else: a reply or last line that is nothing but the answer, or a last sentence that holds exactly
one. `sure` is given where only what is stated may count.
"""

import re
from collections.abc import Mapping

from ske_tasks.answers.reply import ParsedReply

_BRACKET_RUN = re.compile(r"[\[\](){}<>](?:[\s,\"']{0,4}[\[\](){}<>])*")
_OPPOSITE = {
    "valid": "invalid",
    "true": "false",
    "yes": "no",
    "invalid": "valid",
    "false": "true",
    "no": "yes",
}
# "not valid", "n't a logically valid", "does not appear to be valid", "neither sound nor valid"
_DENIES = re.compile(r"\b(?:not|never|neither|nor|cannot|hardly|fails?\sto)\b|n't\b", re.IGNORECASE)
_DENIED = (
    r"(?:\b(?:not|never|neither|nor|cannot|fails?\sto)|n't)\s+"
    r"(?:(?:be|appear|seem|look|to|an?|all|that|very|really|at)\s+){0,4}(?:\w{1,30}\s+)?"
)
_CLAUSE = re.compile(
    r"[,.;:=→()]|->|\b(?:but|so|because|since|as|thus|therefore|hence|while|and)\b", re.IGNORECASE
)
# of Boolean words alone, up to the last "=" or "is"
_EXPRESSION = re.compile(
    r"(?:\b(?:not|and|or|true|false|is)\b|[\s()=→]|->){0,200}(?:=|→|->|\bis\b)", re.IGNORECASE
)


def read_label(reply: ParsedReply, words: Mapping[str, str], sure: bool = False) -> str | None:
    """One of a closed set of words (yes/no, True/False, valid/invalid), or None."""
    found = None
    for mark in reply.statements:
        stated = _first_sentence(mark.tail)
        worked = _EXPRESSION.match(stated)  # "True and False = False"
        result = _label_in(stated[worked.end() :], words, first=True) if worked else None
        found = result or _label_in(stated, words, first=True) or found
    if found:
        return found
    alone = rf"\W{{0,6}}({'|'.join(words)})\W{{0,6}}"
    for line in (reply.last_line, reply.first_line):
        if only := re.fullmatch(alone, line, re.IGNORECASE):
            return _named(only[1], words)
    if sure or reply.truncated:
        return None
    last = reply.last_sentence.rpartition("=")[2]
    concluded = re.match(r"(?i)(?:so|thus|therefore|hence|in conclusion|overall)\b[\s,:]{0,4}(.*)", last)
    for line in (reply.last_line, reply.first_line, concluded[1] if concluded else ""):
        if word := _label_at_start(line, words):
            return word
    # Inside a sentence yes and no are ordinary words ("no way"); there only their synonyms count.
    return _label_in(last, words, skip=("yes", "no"))


def _label_at_start(line: str, words: Mapping[str, str]) -> str | None:
    found = re.match(rf"\W{{0,8}}({'|'.join(words)})\s?(?:[.,;:!\"')-]|$)", line, re.IGNORECASE)
    return _named(found[1], words) if found else None


def _label_in(
    sentence: str, words: Mapping[str, str], first: bool = False, skip: tuple[str, ...] = ()
) -> str | None:
    """The label of a sentence, "not valid" being "invalid"; None where it has none, or (not `first`) two.

    None, too, if it is denied from further off ("it is not clear that this is valid").
    """
    meaning = {word.lower(): word.lower() for word in words}
    if "yes" in meaning:
        meaning |= {"plausible": "yes", "implausible": "no"}
    known = "|".join(word for word in meaning if word not in skip)
    hits = []
    for found in re.finditer(rf"(?P<no>{_DENIED})?\b(?P<word>{known})\b", sentence, re.IGNORECASE):
        word = meaning[found["word"].lower()]
        plain = found["word"].lower() in ("yes", "no")
        if not (found["no"] or plain) and _DENIES.search(_CLAUSE.split(sentence[: found.start()])[-1]):
            return None
        negated = found["no"] and (not plain or found["no"].lower().strip() == "not")
        hits.append(_OPPOSITE[word] if negated else word)
    if not hits or (not first and len(set(hits)) > 1):
        return None
    return _named(hits[0], words)


def _named(word: str, words: Mapping[str, str]) -> str | None:
    return next((name for name in words if name.lower() == word.lower()), None)


def read_brackets(reply: ParsedReply, sure: bool = False) -> str | None:
    """A bracket sequence with single spaces ("] ) >"), or None."""
    found = None
    for mark in reply.statements:
        line = _first_line(mark.tail)
        run = _BRACKET_RUN.search(line)
        if run and not re.search(r"\w", line[: run.start()].replace("the sequence is", "")):
            found = run[0]
    if found is None and not sure and not reply.truncated:
        for line in (reply.last_line, reply.first_line):
            ending = re.fullmatch(r"(?:[^\[\](){}<>]{0,200}[:=])?[\s\"']{0,4}([\[\](){}<>\s,\"']+)\.?", line)
            # "32: )" is a step of a list, and "1: ( ; stack: (" too
            if ending and re.search(r"[\[\](){}<>]", ending[1]) and not re.match(r"\d+\s?:", line):
                found = ending[1]
                break
    return " ".join(re.findall(r"[\[\](){}<>]", found)) if found else None


def read_words(reply: ParsedReply, words: Mapping[str, str]) -> str | None:
    """A list of words, lower case and separated by spaces, or None. `words`: those that were to be sorted."""
    found, wanted = None, sorted(words)
    for mark in reply.statements:
        block = re.split(r"\n\s?\n", mark.tail.strip(), maxsplit=1)[0]
        line = _first_line(block)
        for candidate in (block, line):
            listed = _word_list(candidate)
            if listed and (sorted(listed) == wanted or candidate is line):
                found = listed
                break
    if found is None:
        blocks = reply.text.split("\n\n")
        for candidate in (reply.last_line, *reversed(blocks), reply.first_line):
            listed = _word_list(candidate.rpartition(":")[2] or candidate)
            if len(listed) == len(wanted) and sorted(listed) == wanted:
                found = listed
                break
    return " ".join(found) if found else None


def _word_list(block: str) -> list[str]:
    block = re.sub(r"^\s?(?:\d{1,4}[.)]|[-*•])\s", " ", block, flags=re.MULTILINE)
    opening = r"^\W{0,8}(?:the\s)?(?:sorted\s)?(?:list|words?|order)?\s?(?:is|are)?\s?:"
    block = re.sub(opening, " ", block, flags=re.IGNORECASE)
    pieces = re.split(r"[\s,;<>→\[\]()\"]+|\band\b(?=\s\S+\W*$)", block)
    return [word for piece in pieces if (word := piece.strip(".:!?'").lower())]


def read_open(reply: ParsedReply) -> str | None:
    """NQ's short answer as the line that states it, or None for a longer text that states none."""
    found = None
    for mark in reply.statements:
        stated = _first_line(mark.tail)
        if turned := re.match(r"(?i)(?:not\b|n't).*?\b(?:but|it is|it was|rather)\b\s(.*)", stated):
            stated = turned[1]
        found = stated or found
    lines = reply.lines
    if found is None and lines and not reply.truncated and _is_short(lines):
        found = lines[0]
    if found is None or not found.strip(". "):
        return None
    found = re.sub(r"(?i)^\W{0,8}(?:(?:it|he|she|they|this|that|there) (?:is|was|were|are)\s)", "", found)
    bare = found.strip(" \t\"'*:")
    return (bare if re.search(r"\w", bare) else found.strip()) or None


def _is_short(lines: list[str]) -> bool:
    return len(lines) == 1 or (len(lines[0].split()) <= 8 and not lines[0].rstrip().endswith(":"))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.split("\n") if line.strip()), "")


def _first_sentence(tail: str) -> str:
    return re.split(r"(?<=[.!])\s+(?=[A-Z])", _first_line(tail), maxsplit=1)[0]
