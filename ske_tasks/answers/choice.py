"""Reads the letter of a multiple-choice answer, and nothing else that happens to be a letter.

    python -c "from ske_tasks.answers.extract import extract as e; print(e('It is B', 'choice', {'B': ''}))"

Rules; the later statement wins, and what offers two letters, or one that no option has, is unanswered:

1. Statements: "The answer is (B)", boxed, "Answer: B", "B is the correct answer", a first or last line that
   is only "B" or "B. text". A letter that is negated ("not A", "neither A nor B") cancels an earlier one.
   Statements that contradict each other again and again (a loop) state nothing, unless the last is the first.
2. After the last statement, a changed mind ("Wait, it should be C").
3. Without a statement: a conclusion ("so B", "which leaves (D)"), the only option called correct, or a last
   sentence that names exactly one option ("The most likely cause is (C).").
4. The option's text instead of its letter: in a statement, in a conclusion, as the last line or the whole
   reply. A letter counts for more than a text.
"""

import re
from dataclasses import dataclass, field

from ske_tasks.answers.letters import Letters
from ske_tasks.answers.marks import Statement
from ske_tasks.answers.option_text import Options, compared, exact_text, lone_text, named_text
from ske_tasks.answers.reply import ParsedReply, plain

LOOP = 3  # so often may the stated letter change; a reply that changes it more often is a loop

_NEGATED = re.compile(
    r"\s?(?:n't|(?:is\s)?(?:(?:definitely|clearly|certainly)\s)?not\b|neither\b|nor\b|不是)", re.IGNORECASE
)
_NO_OPTION = re.compile(
    r"""[\W]{0,4}(?:(?:none|neither)\ of|not\ (?:among|listed|in|one\ of|given|provided|available)
        |unknown\b
        |cannot\ be|无|没有|不(?:能|存在|确定|在)|题目)""",
    re.VERBOSE | re.IGNORECASE,
)
_REJECTED = r"""\s?(?:项)?\s?(?:is|was|are|were|seems|looks|也|is\ also)?\s?(?:also\s|clearly\s|definitely\s)?
    (?:n't|not|wrong|incorrect|false|out|ruled|eliminated|impossible|cannot|can't|错误|不正确|不对|错)"""
_RETRACT = re.compile(
    r"""\b(?:wait|actually|hold\ on|correction|no,|on\ second\ thought|sorry|hmm|but|however|scratch\ that
        |oops|mistake|let\ me\ (?:re\w*|correct|check))|不对|等等|更正""",
    re.IGNORECASE | re.VERBOSE,
)
_REASON = r"(?:(?i:because|since|as|for|due|which|given)\b|因为|由于|因)"
_TURN = re.compile(
    r"(?i:\b(?:but|rather|instead|it's|it is|so|hence|thus|therefore)\b|而是|应是)(?P<rest>.*)"
)
# what makes a last sentence that names one option say something else of it
_DENIES = re.compile(
    r"""\b(?:not|never|neither|nor|none|no|incorrect|wrong|false|except|cannot|without|unlike|eliminate\w*
        |rule[sd]?|if|whether|suppose|assume|while|although|might|may|could|unclear|unsure)\b|n't\b|\?|不|错|非|没|无|未|如果""",
    re.IGNORECASE | re.VERBOSE,
)
# "The metal that does not rust is (D)" says it of D all the same
_DENIES_INSIDE = re.compile(r"\b(?:that|which|who)\b[^.;]{0,120}\b(?:is|are|be)\s(?:option\s)?[(\[]\w[)\]]")
_OPENING = re.compile(
    r"""(?:so|thus|therefore|hence|it's|it\ is|they\ are|this\ is|that\ is|it\ was|he\ is|she\ is
        |at\ the\ end\ of)\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True)
class Event:
    """A place that says something of a letter. letter: "" for one that states none or two; None: nothing.

    rejected: letters that it denies. by_text: the option was named by its text only.
    """

    place: int
    letter: str | None
    rejected: set[str] = field(default_factory=set)
    by_text: bool = False


def read_choice(reply: ParsedReply, options: Options, sure: bool = False) -> str | None:
    """The letter of a single-answer question, or None.

    options: letter to text. sure: only what is stated or concluded by letter.
    """
    letters = Letters.of(options)
    events = sorted(_events(reply, letters), key=lambda event: event.place)
    found, after = _last(events)
    if found is not None:
        said = [event.letter for event in events if event.letter and not event.by_text]
        if sum(letter != said[n] for n, letter in enumerate(said[1:])) > LOOP:
            return found if found == said[0] else None
        return _changed_mind(reply.text[after:], found, letters) or None
    if reply.truncated:
        return None
    concluded = _concluded(reply, letters) or _named_last(reply, letters)
    if concluded or sure:
        return concluded
    return _only_right_one(reply, letters) or lone_text(reply, options)


def _last(events: list[Event]) -> tuple[str | None, int]:
    """The letter that counts in the end, and from where on it may be taken back."""
    found, after, by_letter = None, 0, False
    for event in events:
        if event.letter is None:
            if found in event.rejected:
                found, after, by_letter = None, event.place, False
        elif not (event.by_text and by_letter and found):
            found, after, by_letter = event.letter, event.place, not event.by_text
    return found, after


def _events(reply: ParsedReply, letters: Letters) -> list[Event]:
    events = [_assertion(mark, letters) for mark in reply.statements]
    text = reply.text
    for found in letters.called_right.finditer(text):
        strong = re.search(r"answer|choice|option|one\b", found["how"] or "", re.IGNORECASE)
        strong = strong or re.search("答案|选择", found["zh"] or "")
        named = letters.in_text(found["run"])
        before = text[max(0, found.start() - 40) : found.start()]
        doubted = re.search(
            r"(?i)\b(?:not|if|whether|think|thought|say|said)\s(?:that\s)?(?:option\s)?$", before
        )
        if strong and not doubted and named:
            events.append(Event(found.start(), named[0] if len(named) == 1 else ""))
    stated = any(event.letter for event in events)
    return events + answer_lines(reply, letters, alone=not events, stated=stated)


def answer_lines(reply: ParsedReply, letters: Letters, alone: bool, stated: bool = False) -> list[Event]:
    """The first and the last line where they are an answer by themselves: "B", "(B) (B)", "B. Paris".

    alone: there is no statement; only then "b" is more than a word that was begun. stated: one of them has a
    letter; then a last line "(A) The liver stores fat." is a remark.
    """
    events = []
    one = letters.alternatives
    label = rf"\W{{0,6}}({one})\s?(?:[).:\]]\s?\S|,\s?{_REASON})"
    items = {found[1] for line in reply.lines if (found := re.match(label, line))}
    last = (reply.last_line, len(reply.text) - len(reply.last_line))
    for line, place in ((reply.first_line, 0), last):
        only = (
            rf"\W{{0,8}}(?i:(?:option|choice)\s?)?\(?(?P<x>(?i:{one}))\)?(?:\W{{1,4}}\(?(?P=x)\)?){{0,8}}"
            r"[^\w=+<>/-]{0,8}"
        )
        short = line if len(line) <= 80 else ""
        if found := re.fullmatch(only, short):
            known = found["x"] in letters.options
            if place and line.isalpha() and reply.lines[-2].endswith(":"):
                continue  # "Solving for A's age:" and a begun "A"
            if known or alone or "(" in line:
                events.append(Event(place, found["x"] if known else found["x"].upper()))
        elif len(items) == 1 and (whole := letters.label_and_text(line)):
            events.append(Event(place, whole))
        elif len(letters.in_text(short)) > 1 and re.fullmatch(
            rf"(?:\W|(?<![A-Za-z])(?:{one})(?![A-Za-z])|\b(?:and|or)\b|和|或|与){{2,80}}", short
        ):
            events.append(Event(place, ""))
        elif len(items) == 1 and not (stated and place) and (letter := _labelled(line, letters)):
            events.append(Event(place, letter))
    return events


def _labelled(line: str, letters: Letters) -> str | None:
    """The letter of "B. Paris", "(B) Paris", "B, because ..."; not of "A is wrong"."""
    one = letters.alternatives
    beginning = (
        rf"\W{{0,6}}(?i:(?:option|choice)\s?)?\(?(?P<x>{one})(?:\s?[).:\]]{{1,3}}\s?|\s?,\s?{_REASON}|\s-\s)"
    )
    found = re.match(beginning, line)
    listed = {m[1] for m in re.finditer(rf"\(({one})\)\s?\w", line)}
    if not found or len(listed) > 2:
        return None
    rest, own = plain(line[found.end() :]), compared(letters.options[found["x"]])
    if re.match(r"(?:is|was|are|cannot|can't|isn't)\b", rest) and not (own and rest.startswith(own)):
        return None
    return letters.head(line) or ""


def _assertion(mark: Statement, letters: Letters) -> Event:
    """What a statement asserts."""
    place, tail = mark.end, mark.tail
    lines = [line for line in tail.split("\n") if line.strip()]
    line, options = (lines[0].strip() if lines else ""), letters.options
    for whole in (line, tail, mark.rest.split("\n", 1)[0], mark.rest):
        if exact := exact_text(whole, options):
            return Event(place, exact, by_text=True)
    if negated := _NEGATED.match(line):
        return _denial(place, line[negated.end() :], letters)
    if letters.is_list(lines):
        return Event(place, None)
    letter = letters.head(line)
    if letter is not None:
        return Event(place, letter)
    sentence = re.split(r"(?<=[.!])\s(?=[A-Z])", line, maxsplit=1)[0]
    if letter := _only_named(sentence, letters):
        return Event(place, letter)
    # "we can select 8 of them" names no option
    if not mark.is_choice and (named := named_text(sentence, options)):
        return Event(place, named, by_text=True)
    return Event(place, "" if _NO_OPTION.match(line) else None)


def _denial(place: int, rest: str, letters: Letters) -> Event:
    """ "not A or B, but C": the letters denied, and the one that is stated instead."""
    alone = rf"(?<![A-Za-z0-9])(?:{letters.alternatives})(?![A-Za-z0-9])"
    words = r"\b(?:either|or|nor|and|not|option|choice)\b"
    listed = re.match(rf"(?:[\s,()\[\]]|(?:{alone})|{words}){{0,60}}", rest)
    length = listed.end() if listed else 0
    rejected = set(re.findall(alone, rest[:length]))
    turn = _TURN.search(rest[length:])
    if not turn:
        return Event(place, None if rejected or not _NO_OPTION.match(f"not{rest}") else "", rejected)
    if letter := letters.head(turn["rest"]):
        return Event(place, letter, rejected)
    return Event(place, named_text(turn["rest"], letters.options), rejected, by_text=True)


def _changed_mind(rest: str, found: str, letters: Letters) -> str:
    """`found`, or what the text after it says instead; "" when it only takes it back."""
    retract = _RETRACT.search(rest)
    if not retract:
        return found
    tail = rest[retract.start() :]
    corrected = [(m.start(), letters.letter(m)) for m in letters.concluded.finditer(tail)]
    for right in letters.called_right.finditer(tail):
        # "However, (C) would be correct if the question asked about ..." corrects nothing
        if not re.match(r"[^.\n]*\bif\b", tail[right.start() :], re.IGNORECASE):
            corrected += [(right.start(), letter) for letter in letters.in_text(right["run"])[-1:]]
    if corrected:
        return max(corrected)[1]
    rejected = rf"(?<![\w'])\(?{re.escape(found)}\)?{_REJECTED}" if found else r"(?!)"
    return "" if re.search(rejected, tail, re.VERBOSE) else found


def _concluded(reply: ParsedReply, letters: Letters) -> str | None:
    for sentence in reversed(reply.sentences):
        hits = [m for m in letters.concluded.finditer(sentence) if not letters.is_article(m)]
        hits += letters.made_right.finditer(sentence)
        if hits:
            hit = max(hits, key=lambda m: m.start())
            return None if letters.second.match(sentence, hit.end()) else letters.letter(hit)
    last = reply.last_sentence
    if _OPENING.match(last) and not re.search(r"(?i)\bnot\b|n't\b", last):
        return named_text(last, letters.options, stated=False)
    return None


def _named_last(reply: ParsedReply, letters: Letters) -> str | None:
    """The only option that the last sentence names by letter, and does not deny."""
    last = reply.last_sentence
    if letters.is_item(last, reply.lines + reply.sentences):
        return None
    whole = re.search(r"[.!?:)\]\"']$", last) or letters.ends_with_own_text(last)
    return (_only_named(last, letters) if whole else None) or letters.with_own_text(reply.last_line)


def _only_named(sentence: str, letters: Letters) -> str | None:
    named = letters.bracketed(sentence)
    if len(named) == 1 and re.search(rf"\d\S*\s\({re.escape(named[0])}\)\W*$", sentence):
        return named[0]  # "The number of files that are not hit is 125 (D)."
    if len(named) != 1 or (len(named[0]) == 1 and named[0].isdigit() and "option" not in sentence.lower()):
        return None
    joined = (
        rf"(?<![A-Za-z0-9])(?:{letters.alternatives})[)\]]?\s?(?:and|or|&|/|,|、|和|或|与)\s?(?:option\s)?"
    )
    joined += rf"[(\[]?{named[0]}"
    bare = (
        rf"[)\]]?\s?(?:and|or|&|/|、|和|或|与)\s?(?:option\s)?[(\[]?(?:{letters.alternatives})(?![A-Za-z0-9])"
    )
    if re.search(joined, sentence) or re.search(named[0] + bare, sentence):
        return None
    inside = _DENIES_INSIDE.search(sentence)
    return None if _DENIES.search(sentence[inside.end() :] if inside else sentence) else named[0]


def _only_right_one(reply: ParsedReply, letters: Letters) -> str | None:
    right: set[str] = set()
    for found in letters.called_right.finditer(reply.text):
        before = reply.text[max(0, found.start() - 40) : found.start()]
        if not re.search(r"(?i)(?:\bnot|n't|\bif)\s(?:\w+\s)?$", before):
            right |= set(letters.in_text(found["run"]))
    return right.pop() if len(right) == 1 else None
