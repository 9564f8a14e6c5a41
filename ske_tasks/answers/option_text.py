"""Finds which option a text names by its wording instead of its letter.

    python -c "from ske_tasks.answers.option_text import named_text; print(named_text('Rome', {'B': 'Rome'}))"

A text that fits two options fits none; of two options of which one contains the other ("New York", "New York
City") the longer one is meant.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from ske_tasks.answers.marks import FILLER
from ske_tasks.answers.reply import ParsedReply, clean, plain

Options = Mapping[str, str]

_WORDS = re.compile(r"\s|[一-鿿]{4}")  # more than one word
_GOES_ON = re.compile(r"\w|\s+(?:or|and)\b")
_FILLER = re.compile(FILLER, re.VERBOSE)


def named_text(sentence: str, options: Options, stated: bool = True) -> str | None:
    """The letter of the option that `sentence` is, or contains as the only one, or (`stated`) begins with.

    `stated`: the sentence is what follows "The answer is", where "Paris, not London" names Paris.
    """
    if exact := exact_text(sentence, options):
        return exact
    lines = (plain(_FILLER.sub("", sentence, count=1)), plain(sentence))
    texts = {letter: text for letter, option in options.items() if (text := compared(option))}

    tests: list[Callable[[str], bool]] = [
        lambda option: option in lines,
        lambda option: _has_word(lines[1], option),
        lambda option: any(_begins(line, option) for line in lines),
    ]
    for test in tests if stated else tests[:2]:
        hits = {letter: option for letter, option in texts.items() if test(option)}
        longest = [
            k for k, v in hits.items() if not any(v != other and v in other for other in hits.values())
        ]
        if len(longest) == 1:
            return longest[0]
    return None


def _has_word(text: str, option: str) -> bool:
    """Whether the option is in the text as a whole word or words."""
    place = text.find(option)
    while place >= 0:
        around = text[max(0, place - 1) : place] + text[place + len(option) : place + len(option) + 1]
        if not any(character.isalnum() or character == "_" for character in around):
            return True
        place = text.find(option, place + 1)
    return False


def _begins(line: str, option: str) -> bool:
    """Whether the line begins with the option, and does not offer another one beside it ("Rome or Paris")."""
    return line.startswith(option) and not _GOES_ON.match(line, len(option))


def exact_text(line: str, options: Options) -> str | None:
    """The option of more than one word that is word for word what the line says, upper and lower case too."""
    written = plain(line, keep_case=True)
    same = [
        letter
        for letter, option in options.items()
        if _WORDS.search(compared(option)) and compared(option, keep_case=True) == written
    ]
    return same[0] if len(same) == 1 else None


def lone_text(reply: ParsedReply, options: Options) -> str | None:
    """The option that is the last line, or that a reply of one short sentence is about."""
    single = len(reply.sentences) == 1
    for line in (reply.last_line, reply.first_line if single else ""):
        same = [k for k, option in options.items() if compared(option) and compared(option) == plain(line)]
        if len(same) == 1:
            return same[0]
    if not single or re.search(r"(?i)\bnot\b|n't\b", reply.text):
        return None
    letter = named_text(reply.text, options, stated=False)
    return letter if letter and len(reply.text) <= len(options[letter]) + 40 else None


@lru_cache(maxsize=4096)
def compared(option: str, keep_case: bool = False) -> str:
    """An option's text as it is compared: cleaned as the model's text is."""
    return plain(clean(option), keep_case)
