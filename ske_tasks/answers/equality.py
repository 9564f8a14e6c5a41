r"""Whether two results of closed mathematics are the same.

    python -c "from ske_tasks.answers.equality import same; print(same(r'\frac12', '0.5'))"

First the string normalisation of MATH (Hendrycks et al. 2021, `math_equivalence.py`: units, dollars, percent
and degree signs, `\left`, `\dfrac`) and plain fractions; what they do not decide, math-verify decides (LaTeX
to SymPy), in a process of its own (`ske_tasks.answers.verifier`). A gold answer with several blanks ("5;10")
is compared blank by blank.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import zip_longest

from ske_tasks.answers.verifier import verified


def same(gold: str, prediction: str) -> bool:
    """Whether two results are the same, blank by blank where the gold answer has several."""
    blanks, given = _blanks(gold, ";"), _blanks(prediction, ";")
    if len(blanks) > 1 and len(given) != len(blanks):
        given = _blanks(prediction, r"[;,]|\band\b|和")
    if len(blanks) == 1 and len(given) != 1:
        given = [prediction]
    return len(blanks) == len(given) and all(_same_blank(g, p) for g, p in zip_longest(blanks, given))


def _blanks(text: str, separator: str) -> list[str]:
    parts = re.split(separator, text.translate(str.maketrans("；，", ";,")))
    return [part.strip() for part in parts if part.strip()]


@lru_cache(maxsize=65_536)
def _same_blank(gold: str, prediction: str) -> bool:
    in_latex = _in_latex(prediction)  # tried second: the "²" of "36 m²" is a unit's
    return _equal(gold, prediction) or (in_latex != prediction and _equal(gold, in_latex))


def _equal(gold: str, prediction: str) -> bool:
    left, right = normalise(gold), normalise(prediction)
    if left == right:
        return True
    if not right:
        return False
    numbers = _fraction(left), _fraction(right)
    if None not in numbers and (numbers[0] == numbers[1] or "." not in left + right):
        return numbers[0] == numbers[1]
    return verified(left, right)


def _fraction(text: str) -> Fraction | None:
    r"""The value of "-3", "0.5", "1/2" and "\frac{1}{2}", None for anything else."""
    found = re.fullmatch(
        r"(-?)\\frac\{(\d{1,40})\}\{(\d{1,40})\}|(-?\d{1,40})(?:\.(\d{1,40})|/(\d{1,40}))?", text
    )
    if not found:
        return None
    sign, above, below, whole, decimals, divisor = found.groups()
    if (below or divisor) and not int(below or divisor):
        return None
    if above:
        return Fraction(int(sign + above), int(below))
    return Fraction(f"{whole}.{decimals}") if decimals else Fraction(int(whole), int(divisor or 1))


_SIGNS = {"∞": r"\infty", "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def _in_latex(text: str) -> str:
    """Roots, powers and fractions that are written as signs: "2√3", "x²", "½"."""
    text = re.sub(r"√\s?(?:\(([^()]*)\)|(\d{1,40}|\w))", lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    return re.sub("[∞½⅓¼¾]", lambda m: _SIGNS[m[0]], text)


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
