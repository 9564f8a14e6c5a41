r"""Reads the results of AGIEval's closed mathematics sets (`math`, `gaokao-mathcloze`).

    python -c "from ske_tasks.answers.extract import extract as e; print(e('The area is 36.', 'math', {}))"

Rules: the last statement, or what is in the last box, whichever comes later; else the last sentence, where it
ends with a result ("So the area is 36 square units.", "... = 4$"); else a first line that is only a result.
"""

import re

from ske_tasks.answers.reply import ParsedReply, boxes

_VALUE = r"""(?:\$[^$]{1,400}\$                                     # $\frac{1}{2}$
    | \\[(\[]\s?(?:(?!\\[)\]]).){1,400}\\[)\]]                       # \(36\)
    | [-+]?\d[\d,]{0,30}(?:\.\d{1,30})?(?:\s?/\s?\d{1,30}|\s?[π√]\S{0,60})?(?:\s?%)?
                                                                     # 36; 1/12; 1,024.5; 2√3; 10.5π
    | [-+]?\d{0,9}\s?(?:√|π|\\sqrt|\\frac|\\pi)\S{0,60}             # 2√3; \frac{1}{2}
    )"""
_UNIT = r"""(?:\s?(?!(?:more|less|greater|times|of|than|or|and|plus|minus|if|when|for)\b)
    (?:[a-zA-Z%°²³^23]{1,20}|\\text\{[^{}]{0,40}\})){0,6}"""
_CONCLUDED = re.compile(
    rf"""(?:\b(?:is|are|be|equals?|gives?|get|obtain|have|has)\b|[=:]|是|为)\s?
        (?:approximately|about|exactly|equal\ to|simply|just|now|:|\s){{0,3}}
        (?P<value>{_VALUE})(?P<unit>{_UNIT})\s?[.!]?\s?$""",
    re.VERBOSE,
)
_ONLY = re.compile(rf"\W{{0,3}}?(?P<value>{_VALUE}){_UNIT}\s?\.?", re.VERBOSE)
_DENIED = re.compile(
    r"\b(?:cannot|can't|not|no|unable|impossible|undefined)\b|n't\b|无法|没有|不存在", re.IGNORECASE
)
_SO = re.compile(r"(?:so|thus|therefore|hence)\b(?!.{0,80}\b(?:no|cannot|unable)\b)", re.IGNORECASE)
_OPENING = re.compile(
    r"""^[\s:*>]{0,6}(?:(?:therefore|thus|simply|approximately|about|equal\ to|given\ by)[\s:*,]{0,4})?""",
    re.VERBOSE | re.IGNORECASE,
)


def read_math(reply: ParsedReply, sure: bool = False) -> str | None:
    r"""The stated result as written (LaTeX without the outer dollars), several joined by ";", or None."""
    found, place = _boxed(reply.text)
    for mark in reply.statements:
        stated, inside = _stated(mark.tail), _boxed(mark.tail)[0]
        denied = inside is not None or mark.start < place or re.match(r"\s?(?:not|n't)\b", stated)
        if not denied and (result := _result(stated)):
            found = [result]
    if found is None and not sure and not reply.truncated:
        found = _from_last(reply)
    if not found or any(part.count("{") != part.count("}") for part in found):
        return None  # "\\frac{1}{" is cut
    result = ";".join(_trim(part) for result in found for part in result.split(";"))
    return result if result.strip(".;") else None


def _boxed(text: str) -> tuple[list[str] | None, int]:
    r"""The contents of the last `\boxed{...}` and its place; several of one line."""
    found = boxes(text)
    if not found:
        return None, -1
    line = text.count("\n", 0, found[-1][0])
    same = [box for box in found[-8:] if text.count("\n", 0, box[0]) == line]
    return [content for _, _, content in same], found[-1][0]


def _stated(tail: str) -> str:
    r"""The line that follows a mark; a formula that is set off by \[ and \] or $$ with what is in it."""
    lines = [line.strip() for line in tail.split("\n") if line.strip()]
    if len(lines) > 1 and lines[0] in ("\\[", "$$"):
        return f"{lines[0]}{lines[1]}{lines[2] if len(lines) > 2 else ''}"
    return lines[0] if lines else ""


def _result(stated: str) -> str:
    """The result in a line such as "$x$ and $y$.", "12 metres. This is because ..." or "The area is 12.".

    "" for a line that has none.
    """
    stated = _OPENING.sub("", stated)
    stated = re.sub(r"^(?:\\[(\[]\s?(.*?)\s?\\[)\]]|\$\$(.*?)\$\$).*", lambda m: f"${m[1] or m[2]}$", stated)
    if stated.startswith("$"):
        return _formulas(stated)
    sentence = re.split(r"(?<=[.!])\s+(?=[A-Z])|\s+(?:because|since|as|which)\b", stated, maxsplit=1)[0]
    words = re.findall(r"[A-Za-z]{2,}", re.sub(r"\$[^$]*\$|\\[A-Za-z]+", "", sentence))
    concluded = _CONCLUDED.search(sentence)
    if concluded and re.match(r"[A-Za-z]{2,}\s", sentence) and "=" not in sentence[: concluded.start() + 1]:
        return _whole(concluded)
    if len(words) <= 3:
        return _after_sum(sentence)
    if concluded:
        return _whole(concluded)
    if _DENIED.search(sentence):
        return ""
    values = re.findall(_VALUE, sentence, re.VERBOSE)
    return values[0] if len(values) == 1 else "" if values else sentence


def _formulas(stated: str) -> str:
    """ "$x$ and $y$; z ..." up to the end of the list."""
    pieces = stated.split("$")
    found = [f"${pieces[1]}$"]
    for between, formula in zip(pieces[2::2], pieces[3::2], strict=False):
        if not re.fullmatch(r"\s?(?:[;,]|and|和|或|or|;\s?and|,\s?and)\s?", between):
            break
        found.append(f"${formula}$")
    rest = pieces[2 * len(found)] if len(pieces) > 2 * len(found) else ""
    if unit := re.match(r"\s?;[^$;\n]{1,80}$", rest):
        found.append(unit[0].lstrip(" ;"))
    if len(found) == 1 and (only := _after_sum(pieces[1])) != pieces[1]:
        return only
    return ";".join(found) if len(found) > 1 else found[0]


def _whole(concluded: re.Match[str]) -> str:
    unit = concluded["unit"].strip()
    value = concluded["value"]
    return f"{value}{unit}" if unit in ("%", "°", "\\%") else value


def _after_sum(formula: str) -> str:
    """ "4 + 0 - 1 = 3" as "3", "a = b = 3" too; "x = 3" and "x^2 + y^2 = 4" stay."""
    left, equals, right = formula.rpartition("=")
    if equals and right.strip(" .$") and ("=" in left or not re.search(r"[A-Za-z]", left)):
        return right
    return formula


def _from_last(reply: ParsedReply) -> list[str] | None:
    """The result with which the last sentence ends; a first or last line that is nothing else."""
    line, sentence = reply.last_line, reply.last_sentence
    if _DENIED.search(re.sub(r"\$[^$]*\$", "", sentence)) and not _SO.match(sentence):
        return None
    pieces = line.split("$")
    outside = "".join(pieces[::2])
    if len(pieces) > 2 and re.fullmatch(r"(?:[\s;,.和]|and\b){0,40}", outside):
        return [_last_part(piece) for piece in pieces[1::2] if piece]
    if only := _ONLY.fullmatch(line):
        return [only["value"]]
    if concluded := _CONCLUDED.search(sentence):
        told = sentence[: concluded.start()]
        if not re.search(r"(?i)\b(?:either|or|if)\b|\?$", told) or _SO.match(sentence):
            return [_last_part(_whole(concluded))]
    values = re.findall(_VALUE, sentence, re.VERBOSE)
    if len(values) == 1 and _SO.match(sentence) and re.search(r"[.!]$", sentence):
        return values
    if len(pieces) > 2 and re.fullmatch(r"[\s.]{0,3}", pieces[-1]):
        return [_last_part(pieces[-2])]
    if "=" in line and re.search(r"\w", line.rpartition("=")[2]) and not re.search(r"[A-Za-z]{3}", line):
        return [line.rpartition("=")[2]]
    first = _ONLY.fullmatch(reply.first_line)
    if first and len(reply.lines) > 1:
        return [first["value"]]
    if len(reply.lines) == 1 and not re.search(r"\b[A-Za-z]{2,20}\s[A-Za-z]{2,}", reply.text):
        return [reply.text]
    return None


def _last_part(formula: str) -> str:
    return formula.rpartition("=")[2] if formula.count("=") > 1 else formula


def _trim(result: str) -> str:
    result = result.strip().rstrip(".").strip("* ")
    result = result.strip("$").strip() if result.count("$") <= 2 or "$$" in result else result
    return result.rstrip(".").strip()
