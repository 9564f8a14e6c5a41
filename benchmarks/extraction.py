"""How often our extraction, OpenCompass' postprocessors and lm-eval's filters judge a text wrongly.

    python benchmarks/extraction.py                              # prints the tables (Markdown)
    python benchmarks/extraction.py --write docs/tasks.md   # puts them between the page's markers
    python benchmarks/extraction.py --library ENV/bin/python     # see benchmarks/extraction_library.py

The texts are `tests/data/outputs.jsonl`, written by hand with the verdict each deserves. OpenCompass' and
lm-eval's own code judges them, each with the rule that its stock configuration has for that kind of question,
stop strings included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import exact_match_fn
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks._yaml_loader import load_yaml
from opencompass.datasets import AGIEvalEvaluator, BBHEvaluator, NQEvaluator
from opencompass.utils.text_postprocessors import first_capital_postprocess_multi, first_option_postprocess

from ske_models.files import read_jsonl
from ske_tasks.answers.equality import same
from ske_tasks.answers.extract import extract, is_right
from ske_tasks.six.rows import options_of

OUTPUTS = Path(__file__).parent.parent / "tests" / "data" / "outputs.jsonl"
TASKS = Path(lm_eval.__file__).parent / "tasks"
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"

Judge = Callable[[dict[str, Any]], bool]


def ours(row: dict[str, Any]) -> bool:
    """Our verdict."""
    return is_right(extract(row["output"], row["kind"], options_of(row)), row)


def opencompass(row: dict[str, Any]) -> bool:
    """OpenCompass 0.5.4: `agieval_gen_5c79b4`, whose choice rule is MMLU's and ARC's too, BBH and NQ."""
    text, gold = row["output"], row["gold"]
    match row["kind"]:
        case "choice":
            return first_option_postprocess(text, options="ABCDE") == gold[0]
        case "multi_choice":
            return first_capital_postprocess_multi(text) == "".join(gold)
        case "math":
            return AGIEvalEvaluator().score([text], [gold[0]])["score"] > 0
        case "open":
            return NQEvaluator().score([text], [gold])["score"] > 0
    return BBHEvaluator().score([text], [gold[0]])["score"] > 0


def stock(path: str, filter_name: str) -> Judge:
    """lm-eval's own task file: its stop strings, one of its filters, its exact match."""
    config = load_yaml(TASKS / path)
    [steps] = [entry["filter"] for entry in config["filter_list"] if entry["name"] == filter_name]
    ensemble = build_filter_ensemble(
        filter_name,
        [[step["function"], {k: v for k, v in step.items() if k != "function"}] for step in steps],
    )
    settings = {k: v for k, v in config["metric_list"][0].items() if k.startswith(("ignore", "regexes"))}

    def judge(row: dict[str, Any]) -> bool:
        text = row["output"]
        for stop in config["generation_kwargs"]["until"]:
            text = text.split(stop)[0]
        listed = "\n".join(f"({k}) {v}" for k, v in zip(row["letters"], row["options"], strict=False))
        doc = {"input": f"{row['question']}\nOptions:\n{listed}"}
        request = Instance("generate_until", doc, (row["question"], {}), 0, resps=[text])
        ensemble.apply([request])
        answer = str(request.filtered_resps[filter_name])
        golds = [f"({gold})" for gold in row["gold"]] if "date_understanding" in path else row["gold"]
        return any(
            exact_match_fn(references=[gold], predictions=[answer], **settings)["exact_match"] > 0
            for gold in golds
        )

    return judge


def agieval_math(row: dict[str, Any]) -> bool:
    """lm-eval's agieval_math: `process_results` of tasks/agieval/utils.py, after its stop string."""
    process = load_yaml(TASKS / "agieval" / "math.yaml")["process_results"]
    return bool(process({"answer": row["gold"][0]}, [row["output"].split("Q:")[0]])["acc"])


def lm_eval_judges() -> dict[tuple[str, str], Judge]:
    """(kind, task name) to judge; labels are judged by the task whose words they are."""
    zero = "bbh/cot_zeroshot/{}.yaml"
    labels = {
        words: stock(zero.format(task), "flexible-extract")
        for words, task in {
            ("True", "False"): "boolean_expressions",
            ("Yes", "No"): "web_of_lies",
            ("valid", "invalid"): "formal_fallacies",
            ("yes", "no"): "sports_understanding",
        }.items()
    }
    return {
        ("choice", "mmlu_generative"): stock("mmlu/generative/_default_template_yaml", "get_response"),
        ("choice", "arc_challenge_chat"): stock("arc/arc_challenge_chat.yaml", "remove_whitespace"),
        ("choice", "bbh_cot_zeroshot"): stock(zero.format("date_understanding"), "flexible-extract"),
        ("label", "bbh_cot_zeroshot"): lambda row: labels[tuple(row["options"])](row),
        ("number", "bbh_cot_zeroshot"): stock(zero.format("object_counting"), "flexible-extract"),
        ("brackets", "bbh_cot_zeroshot"): stock(zero.format("dyck_languages"), "flexible-extract"),
        ("words", "bbh_cot_zeroshot"): stock(zero.format("word_sorting"), "flexible-extract"),
        ("math", "agieval_math"): agieval_math,
        ("open", "nq_open"): stock("nq_open/nq_open.yaml", "remove_whitespace"),
    }


def tables() -> str:
    """The two Markdown tables: counts of wrong verdicts, and examples of them."""
    rows = read_jsonl(OUTPUTS)
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row["kind"]].append(row)
    stocks = lm_eval_judges()
    lines = [
        "| kind | outputs (right) | rules | right rejected | not right accepted |",
        "|---|---|---|---|---|",
    ]
    examples = ["| kind | rules | output | deserved | given |", "|---|---|---|---|---|"]
    for kind, members in by_kind.items():
        judges: dict[str, Judge] = {"ours": ours, "OpenCompass": opencompass}
        judges |= {f"lm-eval `{task}`": judge for (of, task), judge in stocks.items() if of == kind}
        for name, judge in judges.items():
            rejected = [row for row in members if row["verdict"] == "right" and not judge(row)]
            accepted = [row for row in members if row["verdict"] != "right" and judge(row)]
            right = sum(row["verdict"] == "right" for row in members)
            counted = f"{len(members)} ({right})" if name == "ours" else ""
            first = kind if name == "ours" else ""
            lines.append(f"| {first} | {counted} | {name} | {len(rejected)} | {len(accepted)} |")
            for row in [*_telling(rejected), *_telling(accepted)] if name != "ours" else []:
                shown = json.dumps(row["output"], ensure_ascii=False)[1:-1].replace("|", "\\|")
                given = "right" if row in accepted else "not right"
                examples.append(f"| {kind} | {name} | `` {shown} `` | {row['verdict']} | {given} |")
    return "\n".join(
        [*lines, "", "Examples of their wrong verdicts (the longest under 110 characters):", "", *examples]
    )


def _telling(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two of the rows: long enough to show the point, short enough for a table."""
    return sorted((row for row in rows if len(row["output"]) < 110), key=lambda row: -len(row["output"]))[:2]


def library_table(python: str, cases: Path | None) -> str:
    """How often two libraries, in the environment of `python`, read what a reply states.

    The outputs and, if given, lines of JSON with `kind`, `options` (letter to text), `output` and `expected`
    (null: it states nothing).
    """
    rows = read_jsonl(OUTPUTS)
    replies = [
        {
            "kind": row["kind"],
            "options": row["letters"] or row["options"],
            "output": row["output"],
            "golds": row["gold"],
            "states": row["verdict"] == "right",
            "ours": ours(row),
        }
        for row in rows
    ]
    for case in read_jsonl(cases) if cases else []:
        read, expected = extract(case["output"], case["kind"], case["options"]), case["expected"]
        right = read == expected or (
            case["kind"] == "math" and read is not None and expected is not None and same(expected, read)
        )
        # a case that states nothing is missed by whoever reads any letter in it
        golds = [expected] if expected else list(case["options"])
        about = {
            "kind": case["kind"] + " (cases)",
            "states": expected is not None,
            "ours": right == (expected is not None),
        }
        replies.append(case | {"options": list(case["options"]), "golds": golds} | about)
    return _compared(replies, _library_verdicts(python, replies))


def _library_verdicts(python: str, replies: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The libraries' names and, for every row, their (right, what they read)."""
    lines = [json.dumps(row | {"kind": row["kind"].removesuffix(" (cases)")}) for row in replies]
    script = Path(__file__).parent / "extraction_library.py"
    done = subprocess.run(
        [python, str(script)], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    names, *verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    return names, verdicts


def _compared(replies: list[dict[str, Any]], verdicts: tuple[list[str], list[list[Any]]]) -> str:
    names, found = verdicts
    lines = [
        "| kind | outputs (right) | reader | right rejected | not right accepted |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(row["kind"] for row in replies):
        of_kind = [(row, says) for row, says in zip(replies, found, strict=True) if row["kind"] == kind]
        right = sum(row["states"] for row, _ in of_kind)
        readers = {"ours": [row["ours"] for row, _ in of_kind]}
        readers |= {name: [says[n][0] for _, says in of_kind] for n, name in enumerate(names)}
        for name, judged in readers.items():
            pairs = [
                (row["states"], says)
                for (row, _), says in zip(of_kind, judged, strict=True)
                if says is not None
            ]
            if not pairs:
                continue
            rejected = sum(states and not says for states, says in pairs)
            accepted = sum(says and not states for states, says in pairs)
            first = (kind, f"{len(of_kind)} ({right})") if name == "ours" else ("", "")
            lines.append(f"| {first[0]} | {first[1]} | {name} | {rejected} | {accepted} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables between this page's markers"
    )
    parser.add_argument(
        "--library", metavar="PYTHON", help="compare libraries in the environment of this Python"
    )
    parser.add_argument("--cases", type=Path, help="with --library: more replies, with what each states")
    args = parser.parse_args()
    name, found = (
        ("libraries", library_table(args.library, args.cases)) if args.library else ("extraction", tables())
    )
    if not args.write:
        print(found)
        return
    begin, end = BEGIN.format(name), END.format(name)
    before, _, rest = args.write.read_text("utf-8").partition(begin)
    args.write.write_text(f"{before}{begin}\n\n{found}\n\n{end}{rest.partition(end)[2]}", "utf-8")


if __name__ == "__main__":
    main()
