r"""Finds where a reply states its answer: "The answer is ...", `\boxed{...}`, "答案是 ..."

    python -c "from ske_tasks.answers.marks import find_statements as f; print(f('The answer is B.'))"

The last statement counts, so a changed mind is followed; hypothetical ("if the answer is A") and questioning
("is the answer A?") sentences state nothing. What is in a box is never hypothetical.
"""

import re
from dataclasses import dataclass

from ske_models.ends import HYPOTHETICAL

BOXED = "\ue000"  # what the parser writes for \boxed: a private character, which no model writes
FIRST, LAST = 40, 160  # of very many statements, so many are read at either end

# What may be between the mark and the letter: quotes, a colon, "clearly", "option" ...
FILLER = r"""(?i:[\s:\"'*,>-]|\b(?:clearly|therefore|thus|definitely|simply|just|indeed|actually|probably
    |likely|most|that|options?|choices?|letters?|answers?|number|is|are|statement|correct|right|best|one|the
    |first|second|third|fourth|last)\b|选项|选|是|为|的|全部|所有|[一二两三四五六]个){0,30}"""
_BE = r"""(?:\b(?:is|are|was|were|will\ be|would\ be|should\ be|must\ be|has\ to\ be|can\ only\ be|becomes
    |remains|seems\ to\ be|appears\ to\ be|turns\ out\ to\ be)\b(?:n't)?
    |isn't|wasn't|cannot\ be|can't\ be|'s\b|:|=|->|→|\ -\ )"""
_CLAUSE = r"""(?:[^.:\n"]|"[^"\n]{0,80}")"""
_MARK = re.compile(
    rf"""
    (?:
        {BOXED}                                                              # \boxed{{B}}
        | \b(?:answers?|ans)\b                                               # the answer is B; Answer: B
            (?:\s(?:choices?|options?|letters?|here|then                     # the answer choice is B
               |(?:to|for|of|in)\ {_CLAUSE}{{1,80}}?))?                      # the answer to "Who?" is B
            (?:,[^.,:\n]{{1,60}},)?                                          # the answer, then, is B
            \s?(?:\(s\))?\s?{_BE}                                            # the answer(s): B
        | ^[\s\#>]{{0,8}}(?:the\ )?(?:final\ |correct\ )?answer\s?$          # ## Final answer / B
        | \b(?:final\ result|final\ answer|conclusion(?=:))\s?{_BE}?         # final answer B; Conclusion: B
        | ^\#{{4}}\ (?=\S{{1,20}}$)                                          # #### 24
        | \[(?:参考|正确|最终)?答案\]\s?:?                                     # 【答案】: B
        | 答案(?:应该|应当|应|选项|选择|就|只能|便|最终|也|的){{0,4}}(?:不是|是|为|选|:)+ # 答案应该是B
        | 答案["\]]?(?=\s?[A-Z(\[$])                                             # 答案 B
        | ^答\s?:                                                            # 答：(B)
        | 最[终后]的?(?:结果|结论|选择)(?:应该|应)?(?:是|为|:)                     # 最终结果为(B)
        | 结论\s?:                                                           # 结论：B
    )
    | \b(?:correct|right|best|true|closest|nearest)
        \ (?:option|choice|statement|one|response|answer)s?                  # the correct option is B
        (?:\ (?:that|which|to|for|of|among|from)\ {_CLAUSE}{{1,80}}?)?\s?{_BE} # the best choice for this is B
    | (?P<choice>\b(?:I|we)(?:'ll|'d|\ will|\ would|\ should|\ must|\ can|\ therefore|\ thus|\ finally
                |\ have\ to|\ now){{0,3}}
        \ (?:choose|pick|select|go\ with|settle\ on|say)\b)                  # I would choose B
    | (?:正确|错误|有误|不当|恰当|合适|最佳|最好|符合题意|符合要求)的?(?:一项|一组|说法|叙述|描述|选项
        |答案|判断|理解|表述|做法|选择){{0,2}}(?:应该|应当|应|都)?(?:不是|是|为|:|有)[:]? # 错误的叙述是B
    | 选项(?:应该|应当|应)?(?:是|为|有)                                            # 选项为B
    | (?:应该?|应当|最终|我们|我|本题|此题|因此|所以|故|只能)[,:]?\s?
        (?:我们|我|可以|应该?|应当|就|最终|本题){{0,3}}选(?!项)择?
        (?:的?(?:答案|选项)?(?:应该|应)?(?:是|为))?:?                             # 最终选择的是：B；故选B
    | \A的是\s?:?                                                            # 的是B (the prompt began it)
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_OTHERS = re.compile(  # "Many people would say the answer is A"
    r"\b(?:people|students|many|some|most|others)\s(?:\w+\s){0,2}(?:say|think|believe|guess|assume)\s"
    r"(?:that\s)?(?:the\s)?(?:correct\s|right\s|best\s)?$",
    re.IGNORECASE,
)
# After an answer is stated: "The second best answer is C", "However, if it were 10, the answer would be C"
_REMARK = re.compile(
    r"""\b(?:wrong|incorrect|second(?:[\s-]best)?|next[\s-]best|other)\s$
      | \b(?:however|but|although|though|otherwise)\b[^.\n]*\bif\b[^.\n]*$""",
    re.IGNORECASE | re.VERBOSE,
)
_ASKED = re.compile(r"\s?(?:option\s?)?\(?[A-Z]\)?\s?\?|\s?(?:什么|哪)")


@dataclass(frozen=True)
class Statement:
    """A place where an answer is stated: `start` and `end` of the mark in the text, and the text after it.

    tail: up to the next statement, 2,000 characters at most; rest: past it, for an option's text that looks
    like a statement itself. is_choice: it says "I choose".
    """

    start: int
    end: int
    tail: str
    rest: str
    is_choice: bool


def find_statements(text: str) -> list[Statement]:
    """Every place that states an answer, in order; of more than `FIRST + LAST`, the first and last ones."""
    marks = list(_MARK.finditer(text))
    if len(marks) > FIRST + LAST:
        marks = marks[:FIRST] + marks[-LAST:]
    marks = [mark for mark in marks if not _states_nothing(mark)]
    marks = [mark for place, mark in enumerate(marks) if not (place and _REMARK.search(_before(mark)))]
    found = []
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        end = following.start() if following else len(text)
        rest = text[mark.end() : mark.end() + 2_000].lstrip(" \n:")
        tail = text[mark.end() : min(end, mark.end() + 2_000)].lstrip(" \n:")
        if mark[0].endswith(("n't", "cannot be", "can't be", "不是")):
            tail = " not " + tail
        found.append(Statement(mark.start(), mark.end(), tail, rest, mark["choice"] is not None))
    return found


def _states_nothing(mark: re.Match[str]) -> bool:
    text = mark.string
    if mark[0] == BOXED:
        return False
    before = _before(mark)
    return bool(HYPOTHETICAL.search(before) or _OTHERS.search(before) or _ASKED.match(text, mark.end()))


def _before(mark: re.Match[str]) -> str:
    return mark.string[max(0, mark.start() - 80) : mark.start()]
