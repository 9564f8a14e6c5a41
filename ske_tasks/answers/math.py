r"""Reads and compares the results of AGIEval's closed mathematics sets (`math`, `gaokao-mathcloze`).

    python -c "from ske_tasks.answers.math import same; print(same(r'\frac12', '0.5'))"

Equality is math-verify's (LaTeX to SymPy), after the string normalisation of MATH (Hendrycks et al. 2021,
`math_equivalence.py`: units, dollars, percent and degree signs, `\left`, `\dfrac`). A gold answer with
several blanks ("5;10") is compared blank by blank.
"""

import re
from itertools import zip_longest

from math_verify import parse, verify

from ske_tasks.answers.statements import clean, first_line, last_line, statements


def read_math(text: str) -> str | None:
    r"""The stated result as written (LaTeX without the outer dollars), several joined by ";", or None."""
    text = clean(text, keep_math=True).replace("\\$", "")
    found = boxed(text)
    for mark in statements(text):
        stated = first_line(mark.tail)
        inside = boxed(stated)
        if inside is None and not re.match(r"\s*(?:not|n't)\b", stated) and (result := _result(stated)):
            found = [result]
        elif inside is not None:
            found = inside
    if found is None:
        line = last_line(text)
        dollars = re.findall(r"\$+([^$]+)\$+", line)
        if re.fullmatch(r"(?:\$+[^$]+\$+[\s;,.和]*(?:and\s)?\s*)+", line):
            found = dollars
        elif dollars:
            found = [dollars[-1].rpartition("=")[2] if dollars[-1].count("=") > 1 else dollars[-1]]
        elif "=" in line:
            found = [line.rpartition("=")[2]]
        elif len(text.splitlines()) == 1 and not re.search(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}", text):
            found = [text]
    if not found:
        return None
    result = _trim(";".join(found))
    return result if result.strip(".") else None


def boxed(text: str) -> list[str] | None:
    r"""The contents of the last `\boxed{...}`; several when they stand in the last line that has one."""
    contents = []
    for place in re.finditer(r"\\(?:boxed|fbox)\s*\{", text):
        depth, end = 1, place.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0) if text[end - 1] != "\\" else 0
            end += 1
        if not depth:
            contents.append((text.count("\n", 0, place.start()), text[place.end() : end - 1]))
    if not contents:
        return None
    last = contents[-1][0]
    return [content for line, content in contents if line == last]


def _result(stated: str) -> str:
    """The result in a line such as "$x$ and $y$." or "12 metres. This is because ..."."""
    stated = re.sub(
        r"^[\s:*]*(?:therefore|thus|simply|approximately|about|equal to|given by)?[\s:*]*", "", stated
    )
    stated = re.sub(r"^\\[(\[]\s*(.*?)\s*\\[)\]].*", r"$\1$", stated)
    if stated.startswith("$"):
        group = re.match(r"\$+[^$]+\$+(?:\s*(?:[;,]|and|和|或|or)\s*\$+[^$]+\$+)*(?:\s*;\s*[^$;]+)*", stated)
        if group:
            stated = group[0]
    return re.split(r"(?<=[.!])\s+(?=[A-Z])|\s+(?:because|since|as|which)\b", stated)[0]


def _trim(result: str) -> str:
    result = result.strip().rstrip(".").strip("* ")
    return result.strip("$").strip() if result.count("$") <= 2 or "$$" in result else result


def same(gold: str, prediction: str) -> bool:
    """Whether two results are the same, blank by blank where the gold answer has several."""
    blanks, given = _blanks(gold, ";"), _blanks(prediction, ";")
    if len(blanks) > 1 and len(given) != len(blanks):
        given = _blanks(prediction, r"[;,]|\band\b|和")
    if len(blanks) == 1 and len(given) != 1:
        given = [prediction]
    return len(blanks) == len(given) and all(_same_blank(g, p) for g, p in zip_longest(blanks, given))


def _blanks(text: str, separator: str) -> list[str]:
    return [
        part.strip()
        for part in re.split(separator, text.translate(str.maketrans("；，", ";,")))
        if part.strip()
    ]


def _same_blank(gold: str, prediction: str) -> bool:
    left, right = normalise(gold), normalise(prediction)
    if left == right:
        return True
    if not right:
        return False
    return verify(parse(f"${left}$"), parse(f"${right}$"))


def normalise(result: str) -> str:
    r"""MATH's string normalisation: one way to write units, fractions, brackets and signs."""
    text = result.strip().strip("$").strip().rstrip(".").translate(str.maketrans("，（）", ",()"))
    text = re.sub(
        r"(?<!\\)\\[,!;: ]|\\quad|\\qquad|~|\\left\b|\\right\b|\\displaystyle|\\operatorname\b", "", text
    )
    text = re.sub(r"\\[dt]frac", r"\\frac", text).replace("\\$", "").replace("$", "")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|°|\\?%", "", text)
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|rm|mathbf)\s*\{\s+[^{}]*\}(?:\^\{?\d\}?)?$", "", text)
    text = re.sub(r"(?<=\d)\s*\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?\d\}?)?$", "", text)
    text = re.sub(r"\\(?:text|mathrm|mbox|textbf|rm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\sqrt\s*(\w)", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d)\s+(?!pi\b|sqrt\b|and\b|or\b)[A-Za-z]{2,}(?:\s[a-z]+)*$", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text) if re.fullmatch(r"-?[\d,.\s]+", text) else text
    return (
        re.sub(r"\s+", "", text).lower()
        if not re.search(r"[a-zA-Z]\s+[a-zA-Z]", text)
        else text.strip().lower()
    )
