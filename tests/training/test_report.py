"""The report: its numbers against a count of their own, for runs of any age; the analysis; the command."""

from __future__ import annotations

import base64
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import synthetic_run
from judge_server import JudgeServer
from rich.console import Console

from ske_models.errors import UserError
from ske_models.files import read_json, read_jsonl, write_json, write_jsonl
from ske_tasks.intervals import interval
from ske_tasks.world import default_world, oracle, questions
from training.reporting import analysis, report
from training.reporting.page_accuracy import NAMES
from training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """The tables of a page by id, as rows of texts, and all texts."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.html = file.read_text(encoding="utf-8")
        self.tables: dict[str, list[list[str]]] = {}
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.rows = self.tables[dict(attrs)["id"] or ""] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data

    def column(self, table: str, head: str) -> list[str]:
        rows = self.tables[table]
        return [row[rows[0].index(head)] for row in rows[1:]]


def samples(run: RunFolder, k: int, task: str, method: str) -> list[dict[str, Any]]:
    return read_jsonl(run.results(k) / f"{task}.{method}.samples.jsonl")


def made(run: RunFolder) -> Page:
    report.run(run)
    return Page(run.path / "report.html")


def test_accuracies_and_paired_steps_are_those_of_the_samples(tmp_path):
    run = synthetic_run.make(tmp_path)
    page = made(run)
    for method, head in {"direct": "direct", "cot": "CoT", "explicit": "explicit"}.items():
        for k, shown in enumerate(page.column("accuracy-made_up", head)):
            rows = samples(run, k, "made_up", method)
            found = interval([row["hit"] for row in rows], [row["cluster"] for row in rows])
            assert shown == f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
            assert float(shown.split()[0]) == pytest.approx(
                100 * sum(row["hit"] for row in rows) / len(rows), abs=0.051
            )
        for i, (k, before) in enumerate([(1, 0), (2, 1), (3, 2), (4, 3), (4, 0)]):
            late, early = samples(run, k, "made_up", method), samples(run, before, "made_up", method)
            points = [a["hit"] - b["hit"] for a, b in zip(late, early, strict=True)]
            found = interval(points, [row["cluster"] for row in late])
            gained = page.column("steps-made_up", head)[i]
            assert gained == f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
    ahead = [
        sum(a["hit"] - b["hit"] for a, b in zip(samples(run, k, "made_up", "explicit"), cot, strict=True))
        for k in range(5)
        for cot in [samples(run, k, "made_up", "cot")]
    ]
    column = page.column("over-made_up", "explicit - CoT")
    assert [float(text.split()[0]) for text in column] == pytest.approx(
        [100 * x / 40 for x in ahead], abs=0.051
    )
    extracted = [row["extraction"] for row in samples(run, 4, "made_up", "explicit")]
    column = page.column("accuracy-made_up", "knowledge right")
    assert float(column[4].split()[0]) == pytest.approx(100 * sum(extracted) / 40, abs=0.051)


def test_data_scores_truth_and_cost_are_those_of_the_stages(tmp_path):
    run = synthetic_run.make(tmp_path)
    page = made(run)
    for n in range(1, 5):
        counts = read_json(run.round(n) / "select.json")["counts"]
        assert page.column("data", f"M{n}")[-2:] == ["1,023", f"{1_053 + 2 * counts['selected']:,}"]
        assert str(counts["selected"]) in page.column("funnel", f"round {n}")
        row = next(row for row in page.tables["score-counts"] if row[0] == f"round {n}, knowledge")
        assert [int(cell) for cell in row[1:]] == counts["histogram"]["knowledge"]
    assert page.column("truth", "precision")[2:4] == ["88.0 %", "78.0 %"]
    assert page.column("agreement-shares", "same side of the threshold")[0] == "90.0 %"
    seconds = sum(read_json(file)["seconds"] for file in run.path.glob("round*/*.json"))
    assert page.column("cost-stages", "minutes")[-1] == f"{seconds / 60:.2f}"
    assert page.column("cost-stages", "tokens").count("13,023") == 8
    fates = [sample for sample in page.texts if sample.startswith(("Selected", "Not selected"))]
    assert fates.count("Selected") == 4
    assert "Not selected: unscored" in fates
    assert run.recipe.hash in " ".join(page.texts)
    assert run.prompts.hash in " ".join(page.texts)


def test_it_is_one_file_that_needs_nothing_from_outside_and_the_same_every_time(tmp_path):
    run = synthetic_run.make(tmp_path)
    page = made(run)
    pointers = re.findall(r"\b(?:src|href|srcset|action|data)\s*=\s*[\"']?([^\"'\s>]+)", page.html)
    assert pointers
    assert all(pointer.startswith(("#", "data:image/png;base64,")) for pointer in pointers)
    assert not re.search(r"<script|<link|@import|url\(|https?://", page.html)
    pictures = {
        name: (run.path / f"{name}.png").read_bytes() for name in ("accuracy", "scores", "agreement", "times")
    }
    inlined = [base64.b64decode(text) for text in re.findall(r"base64,([^\"]+)", page.html)]
    for content in pictures.values():
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
        assert content in inlined
    assert made(run).html == page.html


def test_what_a_model_wrote_is_text_and_not_markup(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=1)
    for name in ("written", "selected"):
        rows = read_jsonl(run.round(1) / f"{name}.jsonl")
        write_jsonl(
            run.round(1) / f"{name}.jsonl", [{**row, "knowledge": "<script>x()</script>"} for row in rows]
        )
    page = made(run)
    assert "<script" not in page.html
    assert "<script>x()</script>" in page.texts


def test_several_tasks_have_an_average_of_tasks(tmp_path):
    run = synthetic_run.make(tmp_path, tasks=("one", "two"))
    synthetic_run.evaluated(run, 4, "two", "explicit", 0.2, items=12)
    page = made(run)
    accuracies = [
        sum(row["hit"] for row in rows) / len(rows)
        for rows in (samples(run, 4, task, "explicit") for task in ("one", "two"))
    ]
    shown = page.column("accuracy-average", "explicit")[4]
    assert float(shown.split()[0]) == pytest.approx(50 * sum(accuracies), abs=0.051)
    low, high = (float(text) for text in re.findall(r"[\d.]+", shown)[1:])
    halves = []
    for task in ("one", "two"):
        each = [float(text) for text in re.findall(r"[\d.]+", page.column(f"accuracy-{task}", "explicit")[4])]
        halves.append((each[2] - each[1]) / 2)
    assert (high - low) / 2 == pytest.approx((halves[0] ** 2 + halves[1] ** 2) ** 0.5 / 2, abs=0.11)


def test_the_main_table_is_that_of_the_paper(tmp_path):
    six = [f"ske_quick_{name}" for name in ("mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq")]
    run = synthetic_run.make(tmp_path, tasks=tuple(six), items=20)
    page = made(run)
    # M0 direct, M0 CoT, M0 explicit, M1 direct, ...
    order = [(k, method) for k in range(5) for method in ("direct", "cot", "explicit")]
    accuracies = {
        task: [read_json(run.results(k) / f"{task}.{m}.json")["metrics"]["acc"] for k, m in order]
        for task in six
    }
    for task in six:
        shown = page.column("main", task.removeprefix("ske_quick_"))
        assert shown == [f"{100 * accuracy:.1f}" for accuracy in accuracies[task]]
    means = [sum(one) / 6 for one in zip(*accuracies.values(), strict=True)]
    assert page.column("main", "average") == [f"{100 * mean:.1f}" for mean in means]
    console = Console(width=80, record=True, highlight=False)
    console.print(report.summary_table(run))
    said = console.export_text()
    assert "…" not in said
    assert re.findall(r"M\d \w+", said) == [f"M{k} {NAMES[method]}" for k, method in order]
    (run.results(4) / "ske_quick_nq.explicit.json").unlink()
    assert made(run).column("main", "average")[-1] == "–"


@pytest.mark.parametrize(
    ("done", "lacking"), [(-1, [0, 1, 2, 3, 4]), (0, [1, 2, 3, 4]), (2, [3, 4]), (4, [])]
)
def test_at_any_time_of_a_run_what_is_missing_is_said(tmp_path, done, lacking):
    run = synthetic_run.make(tmp_path, rounds_done=done)
    page = made(run)
    text = " ".join(page.texts)
    for k in range(5):
        assert (f"M{k} is not evaluated yet." in text) == (k in lacking)
    assert ("accuracy-made_up" in page.tables) == (done >= 0)
    assert (run.path / "accuracy.png").exists() == (done >= 0)
    assert ("data" in page.tables) == (done > 0)
    assert (run.path / "agreement.png").exists() == (done >= 2)  # round 1 is the oracle's
    assert ("has been compared with the judge yet" in text) == (done < 2)
    assert "it follows the last round" in text
    assert report.summary_table(run).row_count == done + 1


def test_a_picture_of_an_earlier_state_is_not_left_behind(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=2)
    report.run(run)
    shutil.rmtree(run.path / "results")
    assert "M0 is not evaluated yet." in " ".join(made(run).texts)
    assert not (run.path / "accuracy.png").exists()


def test_a_task_or_method_that_is_missing_is_named_and_the_rest_is_shown(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=1, tasks=("one", "two"))
    (run.results(1) / "two.cot.json").unlink()
    page = made(run)
    assert "M1 is not evaluated yet: two by cot." in " ".join(page.texts)
    assert page.column("accuracy-two", "CoT")[1] == "–"
    assert page.column("accuracy-two", "explicit")[1] != "–"
    assert page.column("accuracy-average", "CoT")[1] == "–"


def test_a_drawn_selection_gives_no_score_as_the_reason(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=1)
    recipe = read_json(run.path / "recipe.json")
    recipe["select"]["by"] = "random"
    write_json(run.path / "recipe.json", recipe)
    texts = " ".join(made(RunFolder.open(run.path)).texts)
    assert "below 8" not in texts
    assert "Not selected: an equal text, the quota or the draw" in texts


def test_the_table_in_the_terminal_has_the_numbers_of_the_page(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=1)
    console = Console(width=140, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(report.summary_table(run))
    printed = console.export_text()
    page = made(run)
    for head in ("direct", "CoT", "explicit", "knowledge right"):
        for cell in page.column("accuracy-made_up", head):
            assert cell in printed


def test_the_command(tmp_path):
    run = synthetic_run.make(tmp_path / "run", rounds_done=1)
    command = [sys.executable, "-m", "training.reporting.report"]
    done = subprocess.run([*command, str(run.path)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "made_up" in done.stdout
    assert str(run.path / "report.html") in done.stdout
    refused = subprocess.run([*command, "nowhere"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "nowhere: no run here" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.fixture
def asked(tmp_path: Path) -> RunFolder:
    """M0 and M1 evaluated on questions of the world: M0 writes half of the knowledge, M1 all of it."""
    run = synthetic_run.make(tmp_path, rounds_done=-1)
    recipe = read_json(run.path / "recipe.json")
    recipe["analysis"]["items"] = 12
    write_json(run.path / "recipe.json", recipe)
    world = default_world()
    rows = questions.sample(world, "dev", {"two_hop": 20}, seed=0)
    for k in range(2):
        synthetic_run.evaluated(run, k, "made_up", "explicit", 0.5, len(rows))
        file = run.results(k) / "made_up.explicit.samples.jsonl"
        changed = []
        for row, question in zip(read_jsonl(file), rows, strict=True):
            knowledge = question.knowledge if k else question.facts[0].text()
            reasoning = oracle.read(question, question.facts)[0]
            row |= {"knowledge": knowledge, "answer": reasoning, "cluster": question.people[0]}
            row["doc"] = {"ske_question": question.question, "gold": question.gold, "kind": question.kind}
            changed.append(row)
        write_jsonl(file, changed)
    return RunFolder.open(run.path)


def test_the_analysis_judges_the_same_items_of_every_checkpoint(asked):
    counts = analysis.run(asked)
    rows = read_jsonl(asked.path / "analysis.jsonl")
    assert (counts["texts"], len(rows), counts["skipped"]) == (24, 48, {})
    drawn = [{row["doc_id"] for row in rows if row["checkpoint"] == k} for k in range(2)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 12
    means = analysis.means(rows)
    assert [means["made_up", "knowledge"][k].mean for k in range(2)] == pytest.approx([5, 10])
    assert [means["made_up", "reasoning"][k].mean for k in range(2)] == pytest.approx([2, 10])
    first = (asked.path / "analysis.jsonl").read_bytes()
    analysis.run(asked)
    assert (asked.path / "analysis.jsonl").read_bytes() == first
    page = made(asked)
    assert page.column("analysis-made_up", "knowledge") == ["5.00 [5.00, 5.00]", "10.00 [10.00, 10.00]"]
    assert page.column("analysis-high-made_up", "knowledge: 8 or more")[1] == "100.0 [100.0, 100.0]"
    assert (asked.path / "meta_skills.png").stat().st_size > 10_000


def test_the_analysis_tells_thoughts_as_the_recipe_does(asked):
    recipe = read_json(asked.path / "recipe.json")
    write_json(asked.path / "recipe.json", recipe | {"generation": {"think": "<plan>...</plan>"}})
    file = asked.results(0) / "made_up.explicit.samples.jsonl"
    rows = read_jsonl(file)
    write_jsonl(file, [row | {"answer": f"<plan>a</plan>{row['answer']}"} for row in rows])
    analysis.run(RunFolder.open(asked.path))
    assert not any("plan" in (row["reasoning"] or "") for row in read_jsonl(asked.path / "analysis.jsonl"))


def test_the_analysis_leaves_out_and_counts_what_cannot_be_judged(asked):
    file = asked.results(0) / "made_up.explicit.samples.jsonl"
    rows = read_jsonl(file)
    for row in rows[:5]:
        row["truncated"] = {"knowledge": True, "answer": False}
    for row in rows[5:10]:
        row["knowledge"] = " "
    for row in rows[10:15]:
        row["doc"]["ske_question"] = "Why?"
    write_jsonl(file, rows)
    counts = analysis.run(asked)
    assert set(counts["skipped"]) == {"truncated", "empty", "question_unknown"}
    assert counts["texts"] + sum(counts["skipped"].values()) == 24
    assert "truncated" in " ".join(made(asked).texts)


def test_an_analysis_in_which_nothing_can_be_judged_says_so(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=0)  # its questions are none of the world's
    assert analysis.run(run)["skipped"] == {"question_unknown": 40}
    assert (
        "No text of a checkpoint has a score. Left out: 0 unscored and 40 question unknown."
        in made(run).texts
    )


def test_an_analysis_before_any_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing to analyse"):
        analysis.run(synthetic_run.make(tmp_path, rounds_done=-1))


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Scores everything 9."""
    with JudgeServer(lambda call: "say It is well said.\nScore: 9") as server:
        yield server.base_url


def test_a_judge_that_is_a_model_is_compared_with_self_given_scores(tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    run = synthetic_run.make(tmp_path, rounds_done=2)
    recipe = read_json(run.path / "recipe.json")
    recipe["judge"] = {"kind": "openai", "model": "m", "base_url": endpoint}
    recipe["questions"]["sources"] = [{"source": "dataset", "path": "questions.jsonl"}]
    recipe["analysis"]["items"] = 10
    write_json(run.path / "recipe.json", recipe)
    for n in (1, 2):
        record = read_json(run.round(n) / "select.json")
        del record["counts"]["truth"], record["counts"]["agreement"]
        write_json(run.round(n) / "select.json", record)
    run = RunFolder.open(run.path)
    counts = analysis.run(run)
    assert counts["texts"] == 3 * 10 + 10  # M0 to M2, and round 2, which M1 scored itself
    pairs = analysis.agreement(read_jsonl(run.path / "analysis.jsonl"))
    assert set(pairs) == {2}
    cells = pairs[2]["knowledge"]
    assert sum(texts for _, _, texts in cells) == 10
    assert {judged for _, judged, _ in cells} == {9}
    written = {
        (row["id"], row["sample"], row["kind"]): row["score"]
        for row in read_jsonl(run.round(2) / "scores.jsonl")
    }
    for row in read_jsonl(run.path / "analysis.jsonl"):
        assert "round" not in row or row["self"] == written[row["id"], row["sample"], row["kind"]]
    page = made(run)
    assert page.tables["agreement-shares"][1][:2] == ["round 2, knowledge", "10"]
    assert "truth" not in page.tables
    assert "sk-test" not in page.html


def test_intervals_are_over_what_belongs_together(tmp_path):
    run = synthetic_run.make(tmp_path, rounds_done=0, items=400)
    rows = samples(run, 0, "made_up", "explicit")
    rng = random.Random(0)
    luck = {row["cluster"]: float(rng.random() < 0.5) for row in rows}
    write_jsonl(
        run.results(0) / "made_up.explicit.samples.jsonl",
        [{**row, "hit": luck[row["cluster"]]} for row in rows],
    )
    low, high = (
        float(text) for text in re.findall(r"[\d.]+", made(run).column("accuracy-made_up", "explicit")[0])[1:]
    )
    assert high - low > 17  # of independent items it would be 9.8
