"""Gold answers written in the ways models write them, for the tests of the extraction on every item."""

import re
from collections import Counter

from ske_tasks.answers.reply import plain
from ske_tasks.six.rows import Row, gold_text


def phrasings(row: Row) -> list[str]:
    """At least five texts that state the row's gold answer, each of which must be accepted."""
    gold, texts = gold_text(row), list(row["options"])
    match row["kind"]:
        case "choice":
            option = texts[row["letters"].index(gold)]
            others = [letter for letter in row["letters"] if letter != gold] or ["Z"]
            written = [
                row["target"],
                gold,
                f"**{gold}.** {option}",
                f"I first thought ({others[0]}), but that is wrong.\nSo the correct answer is option {gold}.",
                f"A careful look rules out {others[-1]}.\n\nThe answer is {gold} because it fits best.",
                f"Let's think step by step.\n\nFinal answer: $\\boxed{{\\text{{{gold}}}}}$",
                f"答案是{gold}。",
            ]
            if (
                readable(option)
                and Counter(map(plain, texts))[plain(option)] == 1
                and option not in row["letters"]
            ):
                written.append(f"The answer is {option}.")
            return written
        case "multi_choice":
            return [
                row["target"],
                gold,
                f"The answer is {', '.join(gold)}.",
                f"So {' and '.join(gold)} hold.\nFinal answer: " + "".join(f"({letter})" for letter in gold),
                f"综上，答案：{'、'.join(gold)}",
                f"因此\\boxed{{{gold}}}",
            ]
        case "label":
            return [
                row["target"],
                gold,
                f"{gold.capitalize()}.",
                f"Let's think step by step. We go on.\nSo the answer is {gold}.",
                f"**Answer:** {gold.lower()}",
                f"$\\boxed{{\\text{{{gold}}}}}$",
            ]
        case "number":
            return [
                row["target"],
                gold,
                f"We get 3 + 4 = 7 first.\n\nThe final answer is **{gold}**.",
                f"Answer: {gold}",
                f"Therefore $1 + 1 = \\boxed{{{gold}}}$",
                f"A - B = 100 - 1 = {gold}. So the answer is {gold}.",
            ]
        case "brackets":
            tight = gold.replace(" ", "")
            return [
                row["target"],
                gold,
                f"We pop the stack: 1: [ ; stack: [ <.\nSo the answer is {gold}.",
                f"Answer: `{tight}`",
                f"The missing brackets:\n\n{gold}",
                f"**The answer is: {gold}**",
            ]
        case "words":
            listed = gold.split()
            return [
                row["target"],
                gold,
                f"First letters: we compare.\nHence, the answer is {', '.join(listed)}.",
                "Answer:\n" + "\n".join(f"{n}. {word}" for n, word in enumerate(listed, 1)),
                "Sorted list: " + " ".join(listed),
                f"The final answer is: **{gold.capitalize()}**",
            ]
        case "math":
            parts = [part.strip().strip("$") for part in gold.split(";")]
            latex = ";".join(f"${part}$" for part in parts)
            return [
                row["target"],
                latex,
                "We compute.\n\nThe answer is " + ", ".join(f"\\boxed{{{part}}}" for part in parts) + ".",
                f"Since 2 + 2 = 4, we are done.\nFinal Answer: {latex}",
                f"因此，答案为{latex}。",
                f"Therefore the answer is {re.sub(r'(?<![dt])frac', 'dfrac', latex)}.",
            ]
        case _:
            written = []
            for alias in row["gold"]:
                written += [
                    alias,
                    f"The answer is {alias}.",
                    f"I recall this.\n\nSo the answer is {alias if '*' in alias else f'**{alias}**'}.",
                    f"Answer: {alias.lower()}",
                    f"It was {alias}." if not re.match(r"\W", alias) else alias,
                ]
            return written


def readable(option: str) -> bool:
    """Whether an option's text has a word, by which it can be told from the text around it."""
    return bool(re.search(r"\w\w", plain(option)))
