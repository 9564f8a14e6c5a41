"""Reads the letter (or letters) of a multiple-choice answer, and nothing else that happens to be a letter.

    python -c "from ske_tasks.answers.choice import read_choice as r; print(r('No, it is B.', {'B': ''}))"

Rules; the later statement wins, and what offers two letters is unanswered:

1. Statements: "The answer is (B)", boxed, "Answer: B", "B is the correct answer", a first or last line that
   is only "B" or "B. text". A letter that is negated ("not A", "neither A nor B") cancels an earlier one.
2. After the last statement, a changed mind ("Wait, it should be C").
3. Without a statement: a conclusion ("so B", "which leaves (D)"), or the only option called correct.
4. The option's text instead of its letter: in a statement, in a conclusion, as the last line or the whole
   reply.

"A" and "I" before a lower-case word are the article and the pronoun, unless it is a connective ("A because").
"""

import re

from ske_tasks.answers.option_text import Options, compared, exact_text, lone_text, named_text
from ske_tasks.answers.statements import FILLER, clean, first_line, last_line, plain, sentences, statements

_CONNECTIVE = (
    r"(?:because|since|as|for|due|which|that|is|and|or|but|not|with|in|given|so|based|by|rather|instead|if|when|"
    r"while|according|however|after|though|although|only|here|from|would|too)\b"
)
_NEGATED = re.compile(
    r"\s*(?:n't|(?:is\s+)?(?:(?:definitely|clearly|certainly)\s+)?not\b|neither\b|nor\b|不是)", re.IGNORECASE
)
_REJECTED = (
    r"\s*(?:项)?\s*(?:is|was|are|were|seems|looks|也|is\ also)?\s*(?:also\s+|clearly\s+|definitely\s+)?"
    + (r"(?:n't|not|wrong|incorrect|false|out|ruled|eliminated|impossible|cannot|can't|错误|不正确|不对|错)")
)
_RETRACT = re.compile(
    r"\b(?:wait|actually|hold on|correction|no,|on second thought|sorry|hmm|but|however|scratch that|oops|"
    r"mistake|let me (?:re\w*|correct|check))|不对|等等|更正",
    re.IGNORECASE,
)
_CONCLUDE = (
    r"(?i:\b(?:so|thus|therefore|hence|consequently|leaves|leaving|leave|must be|should be|has to be|it's|"
    r"it is|that's|that is|choose|pick|select|go with|going with|conclude)\b|=>|→|∴|选择?"
    r"|所以|因此|故|应为|应是)"
    r"(?i:[\s:,\"']|\b(?:that|only|us|with|me|it|it's|is|we|I|are|left|must|should|has to|be|the|my|"
    r"final|answer|correct|right|best|true|option|choice|going|go|pick|choose|select)\b|是|选项|选|为|答案)*"
)
_END = (
    r"(?=\s*(?:$|[.,;!\n)]|(?i:because|since|as|due|given|which)\b|"
    r"(?i:is (?:the )?(?:correct|right|best|answer|true))))"
)
_CALLED_RIGHT = (
    r"\s*(?:项)?(?:\s+(?i:is|must be|should be|would be|has to be)(?:\s+(?i:also|clearly|therefore|thus|the|"
    r"most|indeed|probably|definitely|then|actually|my|only|one|that|is))*\s+(?P<how>(?i:"
    r"(?:correct|right|best|true|final)(?:\s+(?:answer|choice|option|one|statement))?|answer|choice))\b|(?P<zh>是正确的|是正确答案|正确|是对的|符合题意))"
)


def read_choice(text: str, options: Options) -> str | None:
    """The letter of a single-answer question, or None. `options`: letter to text."""
    text = clean(text)
    found, after = None, 0
    for start, tail in _stated(text, options):
        letter, rejected = _assertion(tail, options)
        if letter is not None:
            found, after = letter, start
        elif found in rejected:
            found, after = None, start
    rest = text[after:]
    if found is not None:
        return _changed_mind(rest, found, options) or None
    return _concluded(rest, options) or _only_right_one(rest, options) or lone_text(text, options)


def read_choices(text: str, options: Options) -> str | None:
    """The letters of a question with one or more right options, in alphabetical order ("ACD"), or None."""
    text = clean(text)
    letters, found = _alternatives(options), None
    for _, tail in _stated(text, options, several=True):
        found = _letter_run(tail, options) or found
    if found:
        return found
    run = rf"(?:[(\[]?(?:{letters})[)\]]?(?:\s*(?:[,、&]|\band\b|和|与|及)\s*|\s*))+"
    right = re.findall(
        rf"(?<![A-Za-z0-9_(])({run})(?:项|选项|都|均|are|is|both|all|\s)*(?:正确|correct|right)", text
    )
    if right and not re.search(r"(?:不|in|not )(?:正确|correct|right)", text):
        return _letter_run(right[-1], options)
    for sentence in reversed(sentences(text)):
        if concluded := re.search(rf"{_CONCLUDE}({run})[.!]?$", sentence):
            return _letter_run(concluded[1], options)
    by_text = [k for k, option in options.items() if compared(option) and compared(option) in plain(text)]
    return "".join(sorted(by_text)) if by_text and len(sentences(text)) <= len(by_text) else None


def _alternatives(options: Options) -> str:
    return "|".join(re.escape(letter) for letter in options)


def _token(options: Options) -> str:
    """A pattern for a letter that stands alone: in brackets (any case) or bare; groups `b` and `x`."""
    letters = _alternatives(options)
    return (
        rf"(?:[(\[{{<\"']\s*(?P<b>(?i:{letters}))\s*[)\]}}>\"']|"
        rf"(?<![A-Za-z0-9'\\_-])(?P<x>{letters}|(?i:{letters})(?=\s*(?:[.,;!]?\s*$|\n)))"
        r"(?![A-Za-z0-9_']|-\w|\s*[=+^*]|\.\d))"
    )


def _letter(found: re.Match[str], options: Options) -> str:
    written = found["b"] or found["x"]
    return written if written in options else written.upper()


def _is_article(found: re.Match[str]) -> bool:
    rest = found.string[found.end() :]
    return found["x"] in ("A", "I") and bool(re.match(rf"\s+(?!{_CONNECTIVE})[a-z]", rest))


def _stated(text: str, options: Options, several: bool = False) -> list[tuple[int, str]]:
    """Where the text states an answer: (position, what follows), in order."""
    places = [(mark.end, mark.tail) for mark in statements(text)]
    token = _token(options)
    for found in re.finditer(token + _CALLED_RIGHT, text):
        if (
            found["how"]
            and re.search(r"answer|choice|option|one\b", found["how"], re.IGNORECASE)
            and not several
        ):
            before = text[max(0, found.start() - 40) : found.start()]
            if not re.search(
                r"(?i)\b(?:not|if|whether|think|thought|say|said)\s+(?:that\s+)?(?:option\s+)?$", before
            ):
                places.append((found.start(), f"({_letter(found, options)})"))
    places += _answer_lines(text, options, several)
    return sorted(places, key=lambda place: place[0])


def _answer_lines(text: str, options: Options, several: bool) -> list[tuple[int, str]]:
    """The first and the last line where they are an answer by themselves: "B", "(B) (B)", "B. Paris"."""
    letters = _alternatives(options)
    labelled = {m[1] for m in re.finditer(rf"^\W*({letters})\s*[).:\]]\s*\S", text, re.MULTILINE)}
    last = last_line(text)
    places = []
    for line, position in ((first_line(text), 0), (last, max(0, len(text) - len(last)))):
        only = rf"\W*(?i:(?:option|choice)\s*)?\(?(?P<x>(?i:{letters}))\)?(?:\W+\(?(?P=x)\)?)*\W*"
        if re.fullmatch(only, line) or (
            several and re.fullmatch(rf"[\W\d]*(?:(?:{letters})(?:\W|and|和)*)+", line)
        ):
            places.append((position, line.lstrip(" \t.-*#")))
            continue
        beginning = rf"\W*(?i:(?:option|choice)\s*)?\(?(?P<x>{letters})(?:\s*[).:\]]+\s*|\s*,\s|\s+-\s)"
        found = re.match(beginning, line)
        listed = {m[1] for m in re.finditer(rf"\(({letters})\)\s*\w", line)}
        if found and len(labelled) == 1 and len(listed) < 3:
            rest, own = plain(line[found.end() :]), compared(options[found["x"]])
            if (own and rest.startswith(own)) or not re.match(r"(?:is|was|are|cannot|can't|isn't)\b", rest):
                places.append((position, f"({found['x']})"))
    return places


def _assertion(tail: str, options: Options) -> tuple[str | None, set[str]]:
    """What a statement's tail asserts: the letter ("" when it offers two), and the letters it rejects."""
    line = first_line(tail[:2000])
    if exact := exact_text(line, options) or exact_text(tail[:2000], options):
        return exact, set()
    if negated := _NEGATED.match(line):
        alone = rf"(?<![A-Za-z0-9])(?:{_alternatives(options)})(?![A-Za-z0-9])"
        listed = re.match(
            rf"(?:[\s,()\[\]]|(?:{alone})|\b(?:either|or|nor|and|not|option|choice)\b)*",
            line[negated.end() :],
        )
        rejected = {found[0] for found in re.finditer(alone, listed[0] if listed else "")}
        rest = line[negated.end() + (listed.end() if listed else 0) :]
        turn = re.search(
            r"(?i:\b(?:but|rather|instead|it's|it is|so|hence|thus|therefore)\b|而是|应是)(?P<rest>.*)", rest
        )
        return (_head(turn["rest"], options) or named_text(turn["rest"], options)) if turn else None, rejected
    letter = _head(line, options)
    return (letter if letter is not None else named_text(_sentence(line), options)), set()


def _head(line: str, options: Options) -> str | None:
    """The letter at the head of `line`; "" where two are offered; None where there is none."""
    found = re.match(FILLER + _token(options), line)
    if not found or _is_article(found):
        return None
    letter = _letter(found, options)
    if found["x"]:
        written = plain(line[found.start("x") :])
        begun = [
            k
            for k, option in options.items()
            if re.match(r"\w+\W+\w", compared(option)) and written.startswith(compared(option))
        ]
        if begun and letter not in begun:
            return None  # an option's text that begins with a letter, as "B cells"
    other = re.match(
        rf"\s*(?:,?\s*(?i:or|and|as well as)\b|/|&|和|或|与|、|,(?=\s*[(\[]?\w[)\]]?\s*(?:,|and\b|or\b)))"
        rf"\s*(?i:option\s*|choice\s*)?{_token(options)}"
        r"(?!\s+(?i:is|are|was)\b)",
        line[found.end() :],
    )
    if other and _letter(other, options) != letter and not _is_article(other):
        return ""
    return letter


def _letter_run(tail: str, options: Options) -> str | None:
    """ "A, B and D", "(A)(B)", "ABD" at the head of `tail` as "ABD"; None when there is none."""
    letters = _alternatives(options)
    head = re.match(FILLER, tail)
    rest = tail[head.end() :] if head else tail
    run = re.match(
        r"(?:[\s()\[\],;/&、\"']|(?i:\band\b|\boptions?\b)|和|与|及|以及|"
        rf"(?:{letters})(?![a-z]|\s+(?!{_CONNECTIVE})[a-z]))*",
        rest,
    )
    found = re.findall(letters, run[0]) if run else []
    return "".join(sorted(set(found))) or None


def _changed_mind(rest: str, found: str, options: Options) -> str:
    """`found`, or what the text after it says instead; "" when it only takes it back."""
    retract = _RETRACT.search(rest)
    if not retract:
        return found
    tail = rest[retract.start() :]
    corrected = list(re.finditer(rf"{_CONCLUDE}{_token(options)}{_END}", tail))
    corrected += list(re.finditer(_token(options) + _CALLED_RIGHT, tail))
    if corrected:
        return _letter(max(corrected, key=lambda m: m.start()), options)
    rejected = re.search(rf"(?<![\w'])\(?{re.escape(found)}\)?{_REJECTED}" if found else r"(?!)", tail)
    return "" if rejected else found


def _concluded(text: str, options: Options) -> str | None:
    for sentence in reversed(sentences(text)):
        hits = [
            m for m in re.finditer(rf"{_CONCLUDE}{_token(options)}{_END}", sentence) if not _is_article(m)
        ]
        if hits:
            return _letter(hits[-1], options)
    last = (sentences(text) or [""])[-1]
    opening = r"(?i)(?:so|thus|therefore|hence|it's|it is|they are|this is|that is|it was|he is|she is)\b"
    if re.match(opening, last) and not re.search(r"(?i)\bnot\b|n't\b", last):
        return named_text(last, options, stated=False)
    return None


def _only_right_one(text: str, options: Options) -> str | None:
    right = set()
    for found in re.finditer(_token(options) + _CALLED_RIGHT, text):
        before = text[max(0, found.start() - 40) : found.start()]
        if not re.search(r"(?i)(?:\bnot|n't|\bif)\s+(?:\w+\s+)?$", before):
            right.add(_letter(found, options))
    return right.pop() if len(right) == 1 else None


def _sentence(line: str) -> str:
    return (re.split(r"(?<=[.!])\s+(?=[A-Z])", line) or [line])[0]
