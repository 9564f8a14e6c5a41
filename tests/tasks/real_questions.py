"""Twenty-four questions as the six benchmarks have them, for a real language model: written for these tests.

task: real_questions      # tests/tasks/real_questions.yaml
"""

from __future__ import annotations

from typing import Any

import datasets

from ske_tasks.six.rows import Kind, letter_of, make_row

# question, options, the letter of the right one
CHOICES = [
    ("Which planet is closest to the Sun?", "Venus; Mercury; Earth; Mars", "B"),
    ("What gas do plants take in for photosynthesis?", "oxygen; nitrogen; carbon dioxide; helium", "C"),
    ("Which organ pumps blood through the body?", "the liver; the lung; the kidney; the heart", "D"),
    ("At sea level, water boils at", "100 °C; 50 °C; 0 °C; 212 °C", "A"),
    ("Which of these is a mammal?", "a shark; a whale; a penguin; a frog", "B"),
    ("Who wrote the play 'Hamlet'?", "Dickens; Goethe; Shakespeare; Molière", "C"),
    ("What is the derivative of x^2?", "x; 2x; x^3/3; 2", "B"),
    ("The chemical symbol Na stands for", "nickel; nitrogen; neon; sodium", "D"),
    ("Which layer of the Earth is liquid?", "crust; outer core; inner core; mantle", "B"),
    ("A triangle with three equal sides is called", "scalene; right; equilateral; obtuse", "C"),
    ("Light travels fastest in", "a vacuum; water; glass; air", "A"),
    ("Which particle has a negative charge?", "proton; neutron; photon; electron", "D"),
    ("If all roses are flowers and some flowers fade,", "all roses fade; none fade; no more follows", "C"),
    ("Which river flows through Cairo?", "the Danube; the Nile; the Amazon; the Rhine", "B"),
    ("A court's power to void a law is called", "veto; judicial review; appeal; pardon", "B"),
    ("Inflation means that prices in general", "rise; fall; stay; are fixed by law", "A"),
]
# kind, question, the words that the answer may be, what is right
OTHERS: list[tuple[Kind, str, str, str]] = [
    (
        "label",
        "Is this sentence plausible? 'The striker scored from a free kick.'",
        "yes; no",
        "yes",
    ),
    ("label", "not ( True and False ) is", "True; False", "True"),
    ("number", "I have two apples, a pear and three chairs. How many fruits do I have?", "", "3"),
    ("number", "What is ((4 + 6) * 3) - 5?", "", "25"),
    ("open", "who painted the ceiling of the sistine chapel", "", "Michelangelo; Michelangelo Buonarroti"),
    ("open", "what is the capital of australia", "", "Canberra"),
    ("open", "when did the second world war end", "", "1945; 2 September 1945"),
    ("open", "which element has the atomic number 1", "", "hydrogen; Hydrogen"),
]


def rows() -> list[dict[str, Any]]:
    """The questions in the row schema of the six benchmarks."""
    found: list[Any] = []
    for n, (question, options, right) in enumerate(CHOICES):
        texts = options.split("; ")
        letters = [letter_of(place) for place in range(len(texts))]
        found.append(make_row("real", "choice", f"c{n}", "choice", question, [right], letters, texts))
    for n, (kind, question, allowed, right) in enumerate(OTHERS):
        words, gold = allowed.split("; ") if allowed else [], right.split("; ")
        found.append(make_row("real", kind, f"o{n}", kind, question, gold, [], words, shown=question))
    return [dict(row) for row in found]


def load(**_: Any) -> datasets.DatasetDict:
    """One split, `test`."""
    return datasets.DatasetDict(test=datasets.Dataset.from_list(rows()))
