"""How replies are read, rule by rule: what each text states, by hand.

pytest -q tests/tasks/test_reading.py
"""

from __future__ import annotations

import pytest

from ske_tasks.answers.equality import same
from ske_tasks.answers.extract import extract

METALS = {"A": "copper", "B": "iron", "C": "tin", "D": "lead"}
CELLS = {"A": "B cells", "B": "T cells", "C": "both A and B", "D": "none of these"}
TEN = dict.fromkeys("ABCDEFGHIJ", "")
SEASONS = {"A": "春分", "B": "夏至", "C": "秋分", "D": "冬至"}
ORDERS = {"A": "①②③④", "B": "①②", "C": "③④", "D": "②③"}
DIGITS = {"1": "wind", "2": "rain", "3": "snow", "4": "hail"}
YES = {"yes": "yes", "no": "no"}
VALID = {"valid": "valid", "invalid": "invalid"}
TRUE = {"True": "True", "False": "False"}
FRUIT = dict.fromkeys(["plum", "apple", "fig"], "")

# rule -> (kind, options, text, what it states)
RULES: dict[str, list[tuple[str, dict[str, str], str, str | None]]] = {
    "a statement": [
        ("choice", METALS, "The answer is (B).", "B"),
        ("choice", METALS, "the answer is b", "B"),
        ("choice", METALS, "Answer: C", "C"),
        ("choice", METALS, "**Answer:** **D**", "D"),
        ("choice", METALS, "The correct answer is option A, because it conducts.", "A"),
        ("choice", METALS, "So my final answer would be: C) tin", "C"),
        ("choice", METALS, "B is the correct answer.", "B"),
        ("choice", METALS, "I would choose D.", "D"),
        ("choice", METALS, "## Final answer\n\nC", "C"),
        ("choice", METALS, 'The answer to "Which one rusts?" is B.', "B"),
        ("choice", METALS, "The closest option is (D) with a small error.", "D"),
        ("choice", METALS, "Answer choice: A", "A"),
        ("choice", METALS, "B", "B"),
        ("choice", METALS, "C. tin", "C"),
        ("choice", METALS, "(D) lead, since it is heavy.", "D"),
        ("choice", METALS, "D, because it is the heaviest.", "D"),
        ("choice", DIGITS, "The answer is 3.", "3"),
        ("choice", DIGITS, "(2) rain", "2"),
        ("choice", TEN, "The answer is (J).", "J"),
        ("choice", TEN, "The answer is I.", "I"),
        ("label", YES, "So the answer is no.", "no"),
        ("label", TRUE, "The answer is True and nothing else.", "True"),
        ("number", {}, "The answer is 17.", "17"),
        ("words", FRUIT, "The answer is apple, fig, plum.", "apple fig plum"),
        ("brackets", {}, "So the answer is ] ) }.", "] ) }"),
        ("open", {}, "The answer is Lake Baikal.", "Lake Baikal."),
        ("math", {}, "The answer is $\\frac{3}{4}$.", "\\frac{3}{4}"),
    ],
    "boxed is never hypothetical": [
        ("choice", METALS, "The metal that rusts is $\\boxed{B}$.", "B"),
        ("choice", METALS, "If so, the metal is \\( \\boxed{\\text{C}} \\)", "C"),
        ("choice", METALS, "Could it be anything else? It is $\\boxed{\\textbf{(D)}}$.", "D"),
        ("choice", METALS, "$\\boxed{A. \\text{ copper}}$", "A"),
        ("number", {}, "All in all that is $\\boxed{42}$ stones.", "42"),
        ("number", {}, "$\\boxed{2{,}048}$", "2048"),
        ("label", VALID, "The argument is \\boxed{invalid}.", "invalid"),
        ("math", {}, "Hence $x = \\boxed{\\frac{5}{7}}$.", "\\frac{5}{7}"),
        ("math", {}, "so $\\boxed{3}$ and $\\boxed{4}$", "3;4"),
        ("brackets", {}, "$\\boxed{) ]}$", ") ]"),
    ],
    "Chinese marks": [
        ("choice", SEASONS, "【解析】白昼最长的一天是夏至。\n【答案】: B", "B"),
        ("choice", SEASONS, "【解析】略。<eoe>\n【答案】：C<eoa>", "C"),
        ("choice", SEASONS, "【答案】D", "D"),
        ("choice", SEASONS, "选项A讲的是春天。选项B正确吗？不。\n【答案】C", "C"),
        ("choice", SEASONS, "【答案】无正确选项", None),
        ("choice", SEASONS, "所以选项C是对的。【答案】题目有误", None),
        ("choice", SEASONS, "答案是（B）。", "B"),
        ("choice", SEASONS, "正确答案：A", "A"),
        ("choice", SEASONS, "答案为「C」", "C"),
        ("choice", SEASONS, "答案应该是D。", "D"),
        ("choice", SEASONS, "故选：B", "B"),
        ("choice", SEASONS, "因此应选A。", "A"),
        ("choice", SEASONS, "的是(C)。", "C"),
        ("choice", SEASONS, "的是：D.", "D"),
        ("choice", SEASONS, "白昼最短。所以，选项D是正确的。", "D"),
        ("choice", SEASONS, "因此，最终选择的是：（A）", "A"),
        ("choice", SEASONS, "我们应该选择B，因为那天最长。", "B"),
        ("choice", SEASONS, "所以我们选择(C)秋分。", "C"),
        ("choice", SEASONS, "答：(B)夏至", "B"),
        ("choice", SEASONS, "由此可知，C是正确答案。", "C"),
        ("choice", SEASONS, "因此，D是最好的选项。", "D"),
        ("choice", SEASONS, "综上，最终答案是选项B。", "B"),
        ("choice", SEASONS, "正确的选项为（D）", "D"),
        ("choice", SEASONS, "结论：A", "A"),
        ("choice", SEASONS, "只有B选项符合题意。", "B"),
        ("choice", SEASONS, "错误的说法是C选项。", "C"),
        ("choice", SEASONS, "最符合题意的是：Ｄ．冬至", "D"),
        ("choice", SEASONS, "Ａ，因为昼夜等长。", "A"),
        ("choice", SEASONS, "A选项正确，B选项错误，C选项也正确。", None),
        ("choice", SEASONS, "因此，选项D是错误的。", None),
        ("choice", SEASONS, "我们应该选择什么呢？", None),
        ("choice", SEASONS, "【答案】A. 春分 B. 夏至 C. 秋分 D. 冬至", None),
        ("choice", SEASONS, "A、B正确，C、D错误。", None),
        ("math", {}, "答案是$2\\sqrt{3}$。", "2\\sqrt{3}"),
    ],
    "several letters": [
        ("multi_choice", SEASONS, "The answer is (A), (C) and (D).", "ACD"),
        ("multi_choice", SEASONS, "ABD", "ABD"),
        ("multi_choice", SEASONS, "答案：A、C", "AC"),
        ("multi_choice", SEASONS, "所以，选项B、C、D都是正确的。", "BCD"),
        ("multi_choice", SEASONS, "A正确，B错误，C错误，D正确。", "AD"),
        ("multi_choice", SEASONS, "正确的有：B、D", "BD"),
        ("multi_choice", SEASONS, "正确的选项有A、B和C。", "ABC"),
        ("multi_choice", SEASONS, "(B)、(C)和(D)，因为它们都在下半年。", "BCD"),
        ("multi_choice", SEASONS, "因此，选项(C)是正确的。", "C"),
        ("multi_choice", SEASONS, "所有的选项。", "ABCD"),
        ("multi_choice", SEASONS, "所以，从B到D都是正确的。", "BCD"),
        ("multi_choice", SEASONS, "因此，全部选项都是正确的。", "ABCD"),
        ("multi_choice", SEASONS, "最后，我们应该选择全部四个选项：(A)、(B)、(C)和(D)。", "ABCD"),
        ("multi_choice", SEASONS, "因此选项(A)是正确的。再看下一项。因此选项(C)是正确的。", "AC"),
        ("multi_choice", SEASONS, "因此选项A正确。\n\n综上，选项A、D正确。", "AD"),
        ("multi_choice", SEASONS, "因此，选项B不符合规定。", None),
        ("multi_choice", SEASONS, "因此，选项A和B两个都符合规定。", "AB"),
        ("multi_choice", SEASONS, "所有正确选项都是：A, B和D.", "ABD"),
        ("multi_choice", SEASONS, "所有正确的选项。", None),
        ("multi_choice", ORDERS, "(A)①②③④", "A"),
        ("multi_choice", ORDERS, "答案是B：①②", "B"),
        ("multi_choice", METALS, "Options A and D are correct.", "AD"),
        ("multi_choice", METALS, "So the right ones are B, C and D.", "BCD"),
        ("multi_choice", METALS, "$\\boxed{AC}$", "AC"),
        ("multi_choice", METALS, "All of the above.", "ABCD"),
    ],
    "a last sentence that names one option": [
        ("choice", METALS, "It turns brown in rain. The most likely metal is (B).", "B"),
        ("choice", METALS, "The correct option that bends easily is (D).", "D"),
        ("choice", METALS, "This is best described by option C: tin.", "C"),
        ("choice", METALS, "Rust is iron oxide, making option (B) correct.", "B"),
        ("choice", METALS, "Its colour is red, which makes (A) the best choice.", "A"),
        ("choice", METALS, "All signs point to option A.", "A"),
        ("choice", METALS, "The passage supports (C).", "C"),
        ("choice", METALS, "The only metal that does not rust is (D).", "D"),
        ("choice", METALS, "Weighing it takes an hour. (D) lead", "D"),
        ("choice", METALS, "Answer: 11 grams (D)", "D"),
        ("choice", METALS, "The metal that is meant here is B. Iron.", "B"),
        ("choice", METALS, "The only metal that does not bend is (B) iron.", "B"),
        ("choice", METALS, "The number that is not hit is 125 (D).", "D"),
        ("choice", METALS, "One might think of (B).", None),
        ("choice", METALS, "It is certainly not (B).", None),
        ("choice", METALS, "We can rule out (C).", None),
        ("choice", METALS, "Is it (A)?", None),
        ("choice", METALS, "This fits (A) or (D).", None),
        ("choice", METALS, "The density P(A) is given.", None),
        ("choice", METALS, "(A) is red.\n(B) is grey.\n(C) is white.", None),
        ("choice", METALS, "Option (A) copper is wrong.\nOption (B) iron", None),
        ("choice", DIGITS, "We insert (1) into (2) and get (3).", None),
    ],
    "a conclusion": [
        ("choice", METALS, "It is red, so A.", "A"),
        ("choice", METALS, "A, B and C are out, which leaves D.", "D"),
        ("choice", METALS, "Hence it must be (C).", "C"),
        ("choice", METALS, "No, it's B.", "B"),
        ("choice", METALS, "Therefore, the metal is tin.", "C"),
        ("choice", METALS, "At the end of the test, only lead is left.", "D"),
        ("label", TRUE, "not ( True ) = False, so False.", "False"),
        ("number", {}, "3 + 4 = 7", "7"),
        ("number", {}, "There are 12 birds in all.", "12"),
    ],
    "run-on": [
        ("choice", METALS, "The answer is (C).\n\nQuestion: Which gas is light?\nThe answer is (A).", "C"),
        ("choice", METALS, "B\n\nQ: What next?\nA: D", "B"),
        ("choice", METALS, "The closest option is (D).\n\nQuestion:\nA sample of", "D"),
        ("choice", METALS, "My notes:\n\nQuestion: what is red? Copper is. The answer is (A).", "A"),
        ("choice", METALS, "P: true\nQ: false\nOnly one holds. The answer is (D).", "D"),
        ("choice", METALS, "The answer is (B).\n\nLet's summarize the answers:\nThe answer is A.", "B"),
        ("choice", METALS, "The answer is (D).\n\nHere is a list of my answers:\nA. The answer is (C).", "D"),
        ("choice", METALS, "The answer is A. " + "The answer is B. The answer is C. " * 9, None),
        ("choice", TEN, "\n".join(f"The answer is ({letter})." for letter in "CHEIC"), "C"),
        ("choice", METALS, "The answer is (A). Wait, it should be (B).", "B"),
        ("choice", METALS, "The answer is (A).<|eot_id|>The answer is (B).", "A"),
        ("choice", METALS, "The answer is (A).<end_of_turn>\n<start_of_turn>user\nAnswer: B", "A"),
        ("choice", METALS, "The answer is (C)<eos>The answer is (B)", "C"),
        ("choice", METALS, "The answer is (D)<｜end▁of▁sentence｜>The answer is (B)", "D"),
        ("number", {}, "The answer is 4.\n\nQuestion: and now?\nThe answer is 9.", "4"),
        ("label", TRUE, "P: True\nThe rest follows.\nThe answer is False.", "False"),
        ("open", {}, "Marie Curie\n\nQuestion: who else?\nPierre", "Marie Curie"),
    ],
    "two letters, or none of the options'": [
        ("choice", METALS, "A, C", None),
        ("choice", METALS, "(A), (C)", None),
        ("choice", METALS, "The answer is (A) and (C).", None),
        ("choice", METALS, "The answer is either (B) or (D).", None),
        ("choice", METALS, "The answer is A or B.", None),
        ("choice", METALS, "The answer is B. iron and D. lead.", None),
        ("choice", METALS, "答案是A和C。", None),
        ("choice", METALS, "答案：(A)copper (D)lead", None),
        ("choice", METALS, "The answer is (E).", None),
        ("choice", METALS, "(B) is true as well. The answer is (F).", None),
        ("choice", METALS, "The answer is (B).\nCorrection: the answer is (G).", None),
        ("choice", METALS, "The answer is not among the options.", None),
        ("choice", METALS, "The answer is (None of the above).", None),
        ("choice", METALS, "The answer is (B) and (C) is wrong.", "B"),
        ("choice", METALS, "The answer is (B) iron, not (C) tin.", "B"),
        ("choice", METALS, "The answer is B, and A is a distractor.", "B"),
        ("choice", CELLS, "The answer is both A and B.", "C"),
        ("choice", CELLS, "The answer is B cells.", "A"),
        ("choice", CELLS, "None of these.", "D"),
        ("choice", METALS, "The right answer is lead (C).", "C"),
        ("choice", METALS, "The answer is (C), that is lead.", "C"),
        ("choice", METALS, "the correct answer:\n\nA. copper\nB. iron\nC. tin\nD. lead", None),
        ("choice", METALS, "Answer Choices: (A) copper (B) iron (C) tin (D) lead", None),
    ],
    "negation, hypothesis, question": [
        ("choice", METALS, "The answer is not A.", None),
        ("choice", METALS, "The answer is not A but C.", "C"),
        ("choice", METALS, "The answer isn't (B). It is (D).", "D"),
        ("choice", METALS, "If the answer is A, we are done.", None),
        ("choice", METALS, "Is the answer B?", None),
        ("choice", METALS, "I don't know.", None),
        ("choice", METALS, "The answer is a metal that rusts.", None),
        ("choice", TEN, "I think that the force is balanced.", None),
        ("choice", METALS, "A metal is a good conductor.", None),
        ("choice", METALS, "The answer is D.\n\nM = abc\n\nc", "D"),
        ("choice", {"A": "8", "B": "9"}, "There are two kinds. We can select 3 of them in 8 ways.", None),
        ("label", VALID, "The argument is not valid.", "invalid"),
    ],
    "other forms": [
        ("choice", METALS, 'FINAL ANSWER:\n"""\n(C) tin\n"""', "C"),
        ("choice", METALS, ">> FINAL ANSWER:\n```\nB\n```", "B"),
        ("number", {}, 'FINAL ANSWER:\n"""\n-19\n"""', "-19"),
        ("words", FRUIT, 'FINAL ANSWER:\n"""\napple fig plum\n"""', "apple fig plum"),
        ("choice", METALS, '{"answer": "B"}', "B"),
        ("choice", METALS, '```json\n{"reasoning": "it rusts", "answer": "B"}\n```', "B"),
        ("choice", METALS, "{'final_answer': 'D'}", "D"),
        ("number", {}, '{"answer": 24}', "24"),
        ("choice", METALS, "<answer>C</answer>", "C"),
        ("number", {}, "3 boxes of 8.\n#### 24", "24"),
        ("choice", METALS, "The answer is `B`.", "B"),
        ("choice", METALS, "The answer is __B__.", "B"),
        ("choice", METALS, "  \n\n  B  \n\n", "B"),
    ],
    "thoughts": [
        ("choice", METALS, "<think>The answer is (A). No.</think>The answer is (B).", "B"),
        ("choice", METALS, "<Thinking>Is it (A)?</Thinking>\nC", "C"),
        ("choice", METALS, "The answer is (A), I guess.</think>\nD", "D"),
        ("choice", METALS, "<think>the answer is (A)", None),
        ("choice", METALS, "[THINK]The answer is (A).[/THINK]The answer is (C).", "C"),
        ("choice", METALS, "<|channel|>analysis<|message|>(A)?<|end|><|channel|>final<|message|>B", "B"),
    ],
    "numbers": [
        ("number", {}, "The answer is twenty-one.", "21"),
        ("number", {}, "The answer is thirty five.", "35"),
        ("number", {}, "The answer is one hundred.", "100"),
        ("number", {}, "The answer is one hundred and two.", "102"),
        ("number", {}, "The answer is two thousand three hundred and four.", "2304"),
        ("number", {}, "The answer is minus twelve.", "-12"),
        ("number", {}, "The answer is 1,024 apples.", "1024"),
        ("number", {}, "The answer is 2.50.", "2.5"),
        ("number", {}, "The answer is -7.", "-7"),
        ("number", {}, "The answer is 3 + 4 = 7.", "7"),
        ("number", {}, "The answer is two dozen.", None),
        ("number", {}, "The answer is twenty-first.", None),
        ("number", {}, "The answer is two point five.", None),
        ("number", {}, "= (8 + 1 + 6 + 6) =", None),
        ("number", {}, "I count 3 here and 4 there.", None),
        ("number", {}, "24", "24"),
        ("number", {}, "Seven", "7"),
    ],
    "mathematics": [
        ("math", {}, "So, the area is 36 square units.", "36"),
        ("math", {}, "Final answer: The probability of rain is 1/12.", "1/12"),
        ("math", {}, "Thus, the value of $6\\star 5$ is 11.", "11"),
        ("math", {}, "So the final answer is:\n\n\\[ \\sqrt{2} \\]", "\\sqrt{2}"),
        ("math", {}, "The answer is\n\n\\[\n\\frac{2}{9}\n\\]", "\\frac{2}{9}"),
        ("math", {}, "So at noon, there are 2560 bacteria in the dish.", "2560"),
        ("math", {}, "Therefore $x = 4$.", "x = 4"),
        ("math", {}, "So, the answer is: 4 + 0 - 1 = 3", "3"),
        ("math", {}, " 256 bacteria.\n\nHere's the reasoning:\n1. It doubles every hour", "256"),
        ("math", {}, "$\\frac{1}{2}$", "\\frac{1}{2}"),
        ("math", {}, "The answer is $2$ and $3$.", "2;3"),
        ("math", {}, "The answer is $5$; 10", "5;10"),
        ("math", {}, "So he needs 16,575 tiles for the floor.", "16,575"),
        ("math", {}, "So he needs 5 tiles for 3 floors.", None),
        ("math", {}, "Final answer: There is no such number.", None),
        ("math", {}, "We cannot find the value of $k$.", None),
        ("math", {}, "Solving gives $\\frac{d}{", None),
    ],
    "labels, brackets, words": [
        ("label", YES, "Yes, it is plausible.", "yes"),
        ("label", YES, "This is implausible.", "no"),
        ("label", TRUE, "True", "True"),
        ("label", TRUE, "So we have True and False = False", "False"),
        ("label", VALID, "It may be valid or invalid.", None),
        ("brackets", {}, "> )", "> )"),
        ("brackets", {}, "So, we need \">\". So the answer is >.", ">"),
        ("brackets", {}, "32: )", None),
        ("brackets", {}, "The missing brackets are ) and more.", None),
        ("words", FRUIT, "1. apple\n2. fig\n3. plum", "apple fig plum"),
        ("words", FRUIT, "Sorted: apple < fig < plum", "apple fig plum"),
        ("words", FRUIT, "apple fig", None),
    ],
    "short answers": [
        ("open", {}, "It was Ada Lovelace.", "Ada Lovelace."),
        ("open", {}, "Lake Baikal", "Lake Baikal"),
        ("open", {}, "The answer is not Rome but Milan.", "Milan."),
        ("open", {}, "Long ago there was a lake in the far north of the land.\nIt had a name.", None),
    ],
}  # fmt: skip

# kind, options, text cut at the token limit, what it states all the same
CUT = [
    ("choice", METALS, "The answer is (B).", "B"),
    ("choice", METALS, "The answer is (B). This is because", "B"),
    ("choice", METALS, "The answer is (B)", "B"),
    ("choice", METALS, "Therefore, the answer is A", None),
    ("choice", METALS, "Therefore, the answer is (", None),
    ("choice", METALS, "The most likely metal is (B).", None),
    ("choice", METALS, "So B. And then", None),
    ("choice", METALS, "It cannot be copper", None),
    ("number", {}, "= (8 + 1 + 6 + 6) =", None),
    ("number", {}, "The answer is 1", None),
    ("number", {}, "The answer is 12.", "12"),
    ("number", {}, "There are 12 birds.", None),
    ("brackets", {}, "31: ]\n32: )", None),
    ("label", VALID, "The argument is valid", None),
    ("label", VALID, "The answer is valid. It is", "valid"),
    ("math", {}, "So $x = \\boxed{4}$ and", "4"),
    ("math", {}, "So the area is 36", None),
    ("math", {}, "so $x = 3$, and", None),
    ("multi_choice", METALS, "The answer is A, C and", None),
    ("words", FRUIT, "The answer is apple fig plum. These", "apple fig plum"),
    ("open", {}, "Lake Bai", None),
]  # fmt: skip


def test_rules():
    """One test for all: the table says which rule a text that is read otherwise is of."""
    wrong = [
        (rule, kind, text, "states", expected, "read as", found)
        for rule, rows in RULES.items()
        for kind, options, text, expected in rows
        if (found := extract(text, kind, options)) != expected
    ]
    assert wrong == []
    assert sum(map(len, RULES.values())) + len(CUT) > 240


def test_of_a_truncated_text_only_what_is_said_in_full_counts():
    wrong = [
        (kind, text, "states", expected, "read as", found)
        for kind, options, text, expected in CUT
        if (found := extract(text, kind, options, truncated=True)) != expected
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("gold", "given", "equal"),
    [("0.5", "\\frac{1}{2}", True), ("3", "x = 3", True), ("16", "4 + 12", True), ("7", "8", False)],
)
def test_results_are_compared_by_value(gold, given, equal):
    assert same(gold, given) is equal
