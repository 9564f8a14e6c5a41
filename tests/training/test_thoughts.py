"""Models that think first: thoughts stay in written.jsonl, and are in no prompt of a judge and no example."""

from __future__ import annotations

from typing import Any

import pytest
from test_domain import recipe as sums_recipe
from test_domain import sums

from ske_models.files import read_jsonl, write_jsonl
from ske_models.prompts import PromptSet
from ske_models.reply import DEFAULT
from training import recipe
from training.data.texts import replies
from training.run_folder import RunFolder
from training.stages import judge, mix, questions, select, synthesize

__all__ = ["sums"]  # a fixture
THOUGHTS = [
    "<think>SECRET: is it {} or not?</think>\n\n{}",
    "<thinking>SECRET {}</thinking>{}",
    "[THINK]SECRET {}[/THINK] {}",
    "SECRET {}, so far\n</think>\n{}",  # the opening mark was in the prompt
    "<|channel|>analysis<|message|>SECRET {}<|end|><|start|>assistant<|channel|>final<|message|>{}",
    "{1}",
]


def made(sums: RunFolder, **mixed: Any) -> RunFolder:
    """A first round whose texts begin with thoughts; the last one's thought does not end."""
    first = {"judge": "judge", "questions": 6, "mix": {"general": 0} | mixed}
    folder = RunFolder(sums.path, recipe.Recipe.model_validate(sums_recipe(rounds=[first])))
    questions.run(folder, 1)
    rows = []
    for i, question in enumerate(read_jsonl(folder.round(1) / "questions.jsonl")):
        form = THOUGHTS[i % len(THOUGHTS)]
        rows.append(
            {
                "id": question["id"],
                "sample": 0,
                "question": question["question"],
                "ending": "",
                "knowledge": form.format("what to know", "Adding is counting on."),
                "reasoning": form.format("the answer is 7", f"So it is {question['gold']}"),
                "truncated": {"knowledge": False, "reasoning": False},
                "tokens": {"knowledge": 9, "reasoning": 9},
            }
        )
    rows[-1]["reasoning"] = "<think>SECRET and on, and on"
    write_jsonl(folder.round(1) / "written.jsonl", rows)
    return folder


def prompts_and_completions(folder: RunFolder) -> tuple[str, str]:
    rows = read_jsonl(folder.round(1) / "sft.jsonl")
    asked = [turn["content"] for row in rows for turn in row["prompt"]]
    return "\n".join(asked), "\n".join(row["completion"][0]["content"] for row in rows)


def test_no_thought_is_judged_or_trained_on(sums, monkeypatch):
    folder = made(sums)
    shown: list[str] = []
    prompt = judge.prompt

    def shows(prompts: PromptSet, judged: judge.Judged) -> str:
        shown.append(prompt(prompts, judged))
        return shown[-1]

    monkeypatch.setattr(judge, "prompt", shows)
    counts = judge.run(folder, 1)
    assert counts["scored"] == 10  # two each of five
    assert counts["skipped"] == 2  # the one whose thought did not end has no reply
    assert shown
    assert "SECRET" not in "".join(shown)
    assert select.run(folder, 1)["selected"] == 5
    whole = read_jsonl(folder.round(1) / "selected.jsonl")
    assert sum("SECRET" in row["knowledge"] for row in whole) == 5  # the file has the whole text
    assert mix.run(folder, 1)["examples"] == 5 + 5 + 5 + 5
    asked, learned = prompts_and_completions(folder)
    assert "SECRET" not in asked + learned
    assert "think" not in learned
    assert learned.count("Adding is counting on.") == 5


def test_thoughts_are_trained_on_only_where_the_recipe_says_so(sums):
    folder = made(sums, thoughts=True)
    judge.run(folder, 1)
    select.run(folder, 1)
    mix.run(folder, 1)
    asked, learned = prompts_and_completions(folder)
    assert learned.count("SECRET") == 10
    assert "SECRET" not in asked  # of step 2 and of the judge


def test_thoughts_are_counted(sums):
    folder = made(sums)
    rows = read_jsonl(folder.round(1) / "written.jsonl")
    counts = synthesize._counts([], rows, DEFAULT)
    assert (counts["knowledge"]["thoughts"], counts["knowledge"]["unfinished"]) == (5, 0)
    assert (counts["reasoning"]["thoughts"], counts["reasoning"]["unfinished"]) == (6, 1)
    assert (counts["knowledge"]["empty"], counts["reasoning"]["empty"]) == (0, 1)
    assert "5 unfinished" not in synthesize.STAGE.says(counts)
    assert "11 thoughts, 1 unfinished" in synthesize.STAGE.says(counts)


@pytest.mark.parametrize(
    ("think", "left"), [("off", "<plan>a</plan>b"), ("<plan>...</plan>", "b"), (None, "<plan>a</plan>b")]
)
def test_other_marks(sums, think, left):
    content = sums_recipe(generation={"think": think})
    folder = RunFolder(sums.path, recipe.Recipe.model_validate(content))
    row = {"knowledge": "<plan>a</plan>b", "reasoning": "c"}
    assert replies(row, folder.marks) == {"knowledge": left, "reasoning": "c"}
