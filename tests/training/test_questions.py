"""The stage `questions`: sources, near-duplicates, decontamination, questions written from passages."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ske_models.embedded import FOLDER as EMBEDDED
from ske_models.errors import UserError
from ske_models.files import read_jsonl, write_jsonl
from ske_tasks.world import default_world
from ske_tasks.world import questions as world_questions
from training import engine
from training.data import sources
from training.data.asking import read_question
from training.data.overlap import NearDuplicates, words
from training.data.passages import cut, shuffled
from training.data.shots import load as load_shots
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.stages import questions

ROOT = Path(__file__).resolve().parents[2]


def make_run(
    folder: Path, sources: list[dict], rounds: int = 2, count: int = 8, **settings: dict
) -> RunFolder:
    """A run on the embedded model; `settings` are added to those of the recipe's sections."""
    questions_ = {"sources": sources} | settings.pop("questions", {})
    args = {"dtype": "float32", "device": "cpu", "batch_size": 16}
    generation = {"args": args, "max_reasoning_tokens": 24} | settings.pop("generation", {})
    content = {
        "name": "test",
        "prompts": "world",
        "model": {"checkpoint": "embedded"},
        "questions": questions_,
        "generation": generation,
        "judge": {"kind": "world"},
        "select": {},
        "sft": {},
        "rounds": [{"judge": "judge", "questions": count, "mix": {}}] * rounds,
        "evaluate": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    run = RunFolder(folder, Recipe.model_validate(content | settings))
    for n in range(rounds):
        run.checkpoint(n).symlink_to(EMBEDDED / "M0")
    return run


def local_questions(path: Path, texts: list[str]) -> dict:
    write_jsonl(path, [{"question": text} for text in texts])
    return {"source": "dataset", "path": str(path)}


def test_world_questions_are_spread_over_the_templates_and_new_in_every_round(tmp_path):
    run = make_run(tmp_path, [{"source": "world", "kinds": ["one_hop", "two_hop"]}], rounds=3, count=60)
    seen: list[str] = []
    for n in (1, 2, 3):
        counts = questions.run(run, n)
        assert counts["questions"] == 60
        assert counts["used_before"] == 60 * (n - 1)
        rows = read_jsonl(run.round(n) / "questions.jsonl")
        templates = Counter(row["id"].rsplit("-", 1)[0] for row in rows)
        assert max(templates.values()) - min(templates.values()) <= 1
        seen += [row["id"] for row in rows]
    assert len(set(seen)) == 180
    by_id = {row.id: row for row in world_questions.everything(default_world(), "rounds")}
    assert all(by_id[row["id"]].gold == row["gold"] for row in rows)
    assert {row["ending"] for row in rows} == {""}
    before = (run.round(3) / "questions.jsonl").read_bytes()
    questions.run(run, 3)
    assert (run.round(3) / "questions.jsonl").read_bytes() == before


def test_sources_give_equal_shares(tmp_path):
    texts = [f"How many legs does a spider of kind {number} have?" for number in range(20)]
    run = make_run(tmp_path, [{"source": "world"}, local_questions(tmp_path / "q.jsonl", texts)], count=9)
    counts = questions.run(run, 1)
    assert [source["taken"] for source in counts["sources"].values()] == [5, 4]
    assert questions.available(run.recipe) == {"1 world:rounds": 3760, f"2 dataset:{tmp_path}/q.jsonl": 20}


def test_near_duplicates_are_dropped_and_listed_earlier_rounds_included(tmp_path):
    text = "Which organ of the human body pumps the blood through the vessels to all of its parts"
    others = [
        f"Question {number}: what is {number} times {number + 1} in the decimal system?"
        for number in range(4)
    ]
    texts = [
        f"{text}?",
        f"{text} ...",
        f"{text} and back?",
        *others,
        "",
        "What is gravity?",
        "what is gravity",
    ]
    run = make_run(
        tmp_path,
        [local_questions(tmp_path / "q.jsonl", texts)],
        count=3,
        questions={"near_duplicate": 0.8},
    )
    kept, dropped = [], []
    for n in (1, 2):
        questions.run(run, n)
        kept += [row["question"] for row in read_jsonl(run.round(n) / "questions.jsonl")]
        dropped += read_jsonl(run.round(n) / "dropped.jsonl")
    assert len(kept) == 6
    assert sum(question.startswith(text) for question in kept) == 1
    assert {row["why"] for row in dropped} <= {"near-duplicate", "empty"}
    duplicates = [row for row in dropped if row["why"] == "near-duplicate"]
    assert duplicates
    for row in duplicates:
        assert row["of"] in kept
        assert row["question"] not in kept


def test_near_duplicates_are_exactly_those_of_the_jaccard_similarity():
    rng = random.Random(0)
    vocabulary = [f"w{number}" for number in range(12)]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(1, 9))) for _ in range(120)]
    texts += [f"{text} {rng.choice(vocabulary)}" for text in texts]

    def grams(text: str) -> set[tuple[str, ...]]:
        listed = words(text)
        return {tuple(listed[i : i + 3]) for i in range(len(listed) - 2)} or {tuple(listed)}

    for threshold in (0.5, 0.8, 1.0):
        near = NearDuplicates(threshold, texts)
        accepted: list[str] = []
        for text in texts:
            similar = [
                len(grams(text) & grams(other)) / len(grams(text) | grams(other)) for other in accepted
            ]
            best = max(similar, default=0.0)
            expected = accepted[similar.index(best)] if best >= threshold else None
            assert near.resembles(text) == expected
            if expected is None:
                near.accept(text)
                accepted.append(text)


def test_a_planted_overlap_with_a_test_set_is_dropped_and_listed(tmp_path):
    world = default_world()
    row = next(row for row in world_questions.everything(world, "test") if len(words(row.question)) >= 13)
    short = next(row for row in world_questions.everything(world, "dev") if len(words(row.question)) < 13)
    thirteen = " ".join(words(row.question)[-13:])
    twelve = " ".join(words(row.question)[-12:])
    texts = [f"Please tell me now: {thirteen.upper()}, will you?", f"Say: {twelve}!", short.question.upper()]
    run = make_run(
        tmp_path,
        [local_questions(tmp_path / "q.jsonl", texts)],
        count=3,
        questions={"decontaminate": ["world"]},
    )
    counts = questions.run(run, 1)
    assert counts["dropped"] == {"contaminated": 2}
    assert [kept["question"] for kept in read_jsonl(run.round(1) / "questions.jsonl")] == [texts[1]]
    dropped = {row["question"]: row["of"] for row in read_jsonl(run.round(1) / "dropped.jsonl")}
    assert dropped[texts[2]] == f"world: {short.question}"
    assert thirteen in " ".join(words(dropped[texts[0]]))


def test_a_test_split_with_its_options_is_dropped_whole(tmp_path):
    """A test item is known without options; a question of fewer than 13 words is found by its stem only."""
    rows = world_questions.everything(default_world(), "test")[:200]
    assert min(len(words(row.question)) for row in rows) < 13
    path = tmp_path / "test.jsonl"
    write_jsonl(
        path,
        [{"question": row.question, "choices": [row.gold, "none of them"], "answer": 0} for row in rows]
        + [{"question": "Which one is new?", "choices": ["this", "that"], "answer": 0}],
    )
    source = {"source": "dataset", "path": str(path), "choices": "choices", "answer": "answer"}
    run = make_run(tmp_path / "run", [source], count=500, questions={"decontaminate": ["world"]})
    counts = questions.run(run, 1)
    assert counts["dropped"] == {"contaminated": 200}
    assert [row["stem"] for row in read_jsonl(run.round(1) / "questions.jsonl")] == ["Which one is new?"]


def test_chinese_text_has_words_too():
    assert words("水的沸点是 100 °C。") == ["水", "的", "沸", "点", "是", "100", "c"]


def test_no_question_left_is_an_error_with_the_counts_and_too_few_a_warning(tmp_path, caplog):
    source = local_questions(tmp_path / "q.jsonl", ["Is it?", "is IT", ""])
    run = make_run(tmp_path, [source], count=5)
    assert questions.run(run, 1)["questions"] == 1
    assert "only 1 of 5 questions" in caplog.text
    assert "1 near-duplicate" in caplog.text
    assert "1 empty" in caplog.text
    with pytest.raises(UserError, match=r"no question survives.*1 were used before.*dropped\.jsonl"):
        questions.run(run, 2)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"source": "world", "kinds": ["five_hop"]}, "questions.sources.kinds=five_hop: unknown"),
        ({"source": "dataset", "path": "nowhere.jsonl"}, "nowhere.jsonl: cannot be read"),
        ({"source": "dataset", "path": "nowhere.parquet"}, "nowhere.parquet: cannot be read"),
        ({"source": "dataset", "path": "empty.jsonl"}, "empty.jsonl: empty"),
        ({"source": "dataset", "path": "broken.jsonl"}, "broken.jsonl, line 2: not JSON"),
        ({"source": "dataset", "path": "other.jsonl"}, "no column 'question' \\(found text\\)"),
    ],
)
def test_bad_sources_are_named(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    Path("broken.jsonl").write_text('{"question": "a?"}\n{"question": \n')
    write_jsonl(Path("other.jsonl"), [{"text": "a"}])
    with pytest.raises(UserError, match=message):
        questions.run(make_run(tmp_path / "run", [source]), 1)


def test_chats_of_both_forms_and_what_is_none(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path = tmp_path / "chats.jsonl"
    chats = [
        turns,
        [
            {"from": "system", "value": "Be kind."},
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Ho"},
        ],
        turns[:1],
        [*turns, turns[0]],
        [turns[0], {"role": "assistant", "content": ""}],
        [{"role": "tool", "content": "x"}, turns[1]],
        "text",
    ]
    write_jsonl(path, [{"messages": chat} for chat in chats])
    kept, dropped = sources.chats(str(path), None, "train", "messages", None)
    assert kept == [
        turns,
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Ho"},
        ],
    ]
    assert sum(dropped.values()) == 5
    write_jsonl(path, [{"messages": chat} for chat in chats[2:]])
    with pytest.raises(UserError, match="no row is a chat"):
        sources.chats(str(path), None, "train", "messages", None)


# Passages --------------------------------------------------------------------------------------


def test_passages_end_where_a_paragraph_or_a_sentence_does():
    sentences = [f"Sentence number {number} says something about the matter at hand." for number in range(20)]
    text = "Title\n\n" + "\n\n".join([" ".join(sentences[:3]), " ".join(sentences[3:])]) + "\n\n" + "x" * 700
    passages = cut(text, 300)
    assert all(50 <= len(passage) <= 300 for passage in passages)
    assert passages[0].startswith("Title\n\nSentence number 0")
    assert all(passage.endswith(".") for passage in passages if "x" * 10 not in passage)
    together = " ".join(passages)
    assert all(sentence in together for sentence in sentences)
    assert together.count("x" * 100) == 7
    assert cut("Too short.", 300) == []


def test_every_text_gives_a_passage_before_one_gives_a_second():
    texts = [
        " ".join([f"Text {t} has a sentence {s} that is long enough to stay." for s in range(9)])
        for t in range(5)
    ]
    order = list(shuffled(texts, 70, "seed"))
    assert len(order) == len(set(order)) == 45
    assert len({passage[:6] for passage in order[:5]}) == 5
    assert order == list(shuffled(texts, 70, "seed"))
    assert order != list(shuffled(texts, 70, "other"))


@pytest.mark.parametrize(
    ("text", "truncated", "expected"),
    [
        (" **Question:** Why is the sky blue? ", False, ("Why is the sky blue?", None)),
        ("Why is the sky", True, ("Why is the sky", "truncated")),
        ("  ", False, ("", "empty")),
        ("The sky is blue.", None, ("The sky is blue.", "no question")),
        ("Why?\nAnswer: because", None, ("Why?\nAnswer: because", "with its answer")),
    ],
)
def test_what_counts_as_a_question(text, truncated, expected):
    assert read_question(text, truncated) == expected


def corpus(path: Path, texts: int = 60) -> dict:
    people = default_world().splits["train"]
    facts = default_world().facts
    rows = [
        {"text": " ".join(fact.text() for fact in facts if fact.subject == people[number])}
        for number in range(texts)
    ]
    write_jsonl(path, rows)
    return {"source": "passages", "path": str(path), "passage_chars": 120}


def asking_run(folder: Path) -> RunFolder:
    generation = {"window": 2, "max_question_tokens": 20, "temperature": 0.8}
    source = corpus(folder.parent / "corpus.jsonl")
    return make_run(folder, [source, {"source": "world"}], count=4, generation=generation)


def test_questions_from_passages_continue_window_by_window(tmp_path, monkeypatch):
    """The embedded model has not learned to ask; what it writes is dropped and counted all the same."""
    whole = asking_run(tmp_path / "whole")
    counts = questions.run(whole, 1)
    files = sorted(whole.round(1).glob("asked-*.jsonl"))
    rows = [row for file in files for row in read_jsonl(file)]
    assert len({row["passage_id"] for row in rows}) == len(rows) > 2
    written = Counter(read_question(row["text"], row["truncated"])[1] for row in rows)
    own = counts["sources"][f"1 passages:{tmp_path}/corpus.jsonl"]
    assert own["taken"] <= written.pop(None, 0)
    assert all(counts["dropped"][why] == count for why, count in written.items())

    killed = asking_run(tmp_path / "killed")
    generate, calls = engine.CheckpointEngine.generate, []

    def dies_once(self, requests, done):
        calls.append(len(requests))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, requests, done)

    monkeypatch.setattr(engine.CheckpointEngine, "generate", dies_once)
    with pytest.raises(KeyboardInterrupt):
        questions.run(killed, 1)
    assert not (killed.round(1) / "questions.jsonl").exists()
    assert questions.run(killed, 1) == counts
    assert sum(calls) - calls[1] == len(rows), "a window that was done has been asked again"
    for name in ("questions.jsonl", "dropped.jsonl"):
        assert (killed.round(1) / name).read_bytes() == (whole.round(1) / name).read_bytes()

    questions.run(killed, 2)
    later = [row for file in killed.round(2).glob("asked-*.jsonl") for row in read_jsonl(file)]
    assert later
    assert not {row["passage_id"] for row in later} & {row["passage_id"] for row in rows}


def test_shots_are_checked(tmp_path, monkeypatch):
    shots = load_shots("shots.yaml")
    assert len(shots.steps) == 3
    assert shots.ask
    assert load_shots(None).steps == []
    path = tmp_path / "mine.yaml"
    path.write_text("steps:\n  - question: a?\n    knowledge: b\n")
    with pytest.raises(UserError, match=r"mine\.yaml, line 2: steps\.0\.reasoning is missing"):
        load_shots(str(path))
    with pytest.raises(UserError, match="no such file"):
        load_shots("nowhere.yaml")
    path.rename(tmp_path / "shots.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="shots.yaml, line 2"):  # the file that is here, not the project's
        load_shots("shots.yaml")


# The hub ---------------------------------------------------------------------------------------

ON_THE_HUB = """
import json, sys
from pathlib import Path
from training.data import sources
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.stages import questions

run = RunFolder(Path(sys.argv[1]), Recipe.model_validate(json.loads(sys.argv[2])))
print(json.dumps([questions.available(run.recipe), questions.run(run, 1)]))
kept, dropped = sources.chats("local/instruct", None, "train", "messages", 100)
assert len(kept) == 100 and not dropped
passages = sources.rows("local/stem_corpus", None, "train", "text", None)
assert len(passages) == 390 and all(isinstance(text, str) for text in passages)
try:
    sources.rows("local/stem_corpus", None, "train", "passage", None)
except SystemExit as error:
    assert "no column 'passage' (found text, title, source, licence)" in str(error), error
"""


def test_questions_of_a_hub_dataset_are_cleared_of_arc_test_items(tmp_path, hub):
    from_test = tmp_path / "planted.jsonl"
    planted = (
        "An astronomer observes that a planet rotates faster after a meteorite impact. Which is the most "
        "likely effect of this increase in rotation?"
    )
    write_jsonl(from_test, [{"question": f"Tell me. {planted}"}])
    run = make_run(
        tmp_path / "run",
        [
            {"source": "dataset", "path": "local/stem_questions", "rows": 500},
            {"source": "dataset", "path": str(from_test)},
        ],
        count=900,
        questions={"decontaminate": ["arc_c"]},
    )
    recipe = run.recipe.model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", ON_THE_HUB, str(run.path), recipe],
        env=hub.env,
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    available, counts = json.loads(done.stdout.splitlines()[-1])
    assert available["1 dataset:local/stem_questions"] == 500
    assert counts["test_items"] > 1_000
    assert counts["sources"][f"2 dataset:{from_test}"]["taken"] == 0
    contaminated = [row for row in read_jsonl(run.round(1) / "dropped.jsonl") if row["why"] == "contaminated"]
    assert contaminated[-1]["question"] == f"Tell me. {planted}"
    assert contaminated[-1]["of"] == f"arc_c: {planted}"
    assert 400 < counts["questions"] <= 450
