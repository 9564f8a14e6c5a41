"""TinyWorld: the same world everywhere, questions with true answers, an oracle that scores as it says."""

import collections
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from ske_models import embedded, prompts
from ske_models.records import Answer
from ske_tasks.world import Fact, World, default_world, oracle, questions, task
from ske_tasks.world.facts import JOBS, RELATIONS, parse, parse_all
from training.tinyworld import corpus, lessons

WORLD = default_world()
PROMPTS = prompts.load("world")
ALL = {split: questions.everything(WORLD, split) for split in WORLD.splits}
ONE_OF_EACH = [
    questions.of_template(WORLD, template, WORLD.splits["dev"])[0] for template in questions.TEMPLATES
]


def test_same_in_another_process():
    code = (
        "from ske_tasks.world import *; from ske_tasks.world import task; "
        "from training.tinyworld import lessons; w = default_world();"
        "print(w.hash, __import__('hashlib').sha256(repr(["
        "task.load_test()['test'].to_list(), lessons.demonstrations(w, 50, 1)]).encode()).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
    assert runs.pop().startswith(WORLD.hash)


def test_hash_tells_worlds_apart():
    assert World(WORLD.seed).hash == WORLD.hash
    assert World(WORLD.seed + 1).hash != WORLD.hash


def test_splits_share_no_person_and_no_question():
    people = [person for split in WORLD.splits.values() for person in split]
    assert len(people) == len(set(people)) == len(WORLD.entities["person"])
    asked = [row.question for rows in ALL.values() for row in rows]
    assert len(asked) == len(set(asked))
    for split, rows in ALL.items():
        assert {person for row in rows for person in row.people} <= set(WORLD.splits[split])


def test_an_entity_is_one_word_of_one_kind():
    names = [name for names in WORLD.entities.values() for name in names]
    assert len(names) == len(set(names)) == len(WORLD.kind_of)
    assert all(name.isalpha() for name in names)


def test_every_phrase_of_every_fact_is_read_back():
    for fact in WORLD.facts:
        for phrase in range(len(RELATIONS[fact.relation].phrases)):
            assert parse(fact.text(phrase), WORLD) == fact
    assert len(set(corpus.sentences(WORLD, 0))) == sum(
        len(RELATIONS[fact.relation].phrases) for fact in WORLD.facts
    )


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=lambda row: row.template)
def test_true_knowledge_leads_to_the_gold_answer(row):
    reasoning, answer = oracle.read(row, row.facts)
    assert answer == row.gold
    assert oracle.is_right(row, reasoning)
    assert all(WORLD.is_true(fact) for fact in row.facts)
    assert parse_all(row.knowledge, WORLD) == (list(row.facts), [])
    assert task.process_results(task.to_doc(row), [reasoning])["acc"] == 1
    assert oracle.judge_knowledge(row, row.knowledge, WORLD).score == 10
    assert oracle.judge_reasoning(row, row.knowledge, reasoning, WORLD).score == 10


def test_comparisons_are_balanced_and_never_numeric():
    for rows in ALL.values():
        golds = collections.Counter(row.gold for row in rows if row.kind == "comparison")
        assert golds["yes"] == golds["no"] > 0


def test_options_hold_the_answer_under_its_letter():
    rows = [row for row in ALL["test"] if row.kind == "multiple_choice"]
    for row in rows:
        thing, letter = row.gold.rstrip(")").split(" (")
        assert row.options["ABCD".index(letter)] == thing
        assert len(set(row.options)) == 4
    letters = collections.Counter(row.gold[-2] for row in rows)
    assert min(letters.values()) > len(rows) / 6


def test_the_test_set_is_distinct_stratified_and_free_of_held_out_templates():
    docs = task.load_test()["test"].to_list()
    assert len({doc["ske_question"] for doc in docs}) == len(docs) == sum(task.SIZES["test"].values()) >= 1500
    assert collections.Counter(doc["kind"] for doc in docs) == task.SIZES["test"]
    held_out = {template.id for template in questions.TEMPLATES if template.held_out}
    assert not held_out & {doc["template"] for doc in docs}
    assert {person for doc in docs for person in doc["people"]} <= set(WORLD.splits["test"])
    with pytest.raises(ValueError, match="one_hop"):
        questions.sample(WORLD, "dev", {"one_hop": 10_000}, seed=0)


def test_lessons_ask_about_training_people_and_no_held_out_template():
    demos = lessons.demonstrations(WORLD, 300, 0)
    taught = [
        *lessons.direct(WORLD),
        *lessons.extraction(PROMPTS, demos),
        *lessons.chain_of_thought(PROMPTS, demos),
        *lessons.own_reading(PROMPTS, demos, 0),
        *lessons.reading(WORLD, PROMPTS, WORLD.splits["train"], 300, 0),
        *lessons.checking(WORLD, 300, 0),
    ]
    others = {person for split, people in WORLD.splits.items() if split != "train" for person in people}
    for lesson in taught:
        text = " ".join([*(turn["content"] for turn in lesson.messages), lesson.answer])
        assert not others & set(text.replace(".", " ").replace("?", " ").replace(",", " ").split())
    held_out = {template.id for template in questions.TEMPLATES if template.held_out}
    assert not held_out & {demo.question.template for demo in demos}


def test_cot_and_extraction_are_taught_with_the_same_facts():
    demos = lessons.demonstrations(WORLD, 300, 0)
    pairs = zip(lessons.extraction(PROMPTS, demos), lessons.chain_of_thought(PROMPTS, demos), strict=True)
    for demo, (extraction, cot) in zip(demos, pairs, strict=True):
        assert cot.answer.startswith(extraction.answer)
        assert oracle.answer_in(cot.answer) == oracle.read(demo.question, demo.facts)[1]
        assert parse_all(cot.answer, WORLD)[0] == list(demo.facts)


TWO_HOP = next(row for row in ONE_OF_EACH if row.kind == "two_hop" and row.chain[0] == "born")


@pytest.mark.parametrize(
    ("made_of", "score"),
    [
        ("AB", 10),
        ("BA", 10),
        ("ABB", 10),
        ("ABX", 7),
        ("A", 5),
        ("AX", 5),
        ("X", 2),
        ("", 2),
        ("ABF", 3),
        ("AF", 3),
        ("F", 1),
    ],
)
def test_knowledge_scores(made_of, score):
    """A, B: the needed facts; X: another true one; F: a false one."""
    first, second = TWO_HOP.facts
    person = TWO_HOP.people[0]
    parts = {
        "A": first,
        "B": second,
        "X": Fact(person, "job", WORLD.table[person, "job"]),
        "F": Fact(
            person, "lives", next(c for c in WORLD.entities["city"] if c != WORLD.table[person, "lives"])
        ),
    }
    judgement = oracle.judge_knowledge(TWO_HOP, " ".join(parts[part].text() for part in made_of), WORLD)
    assert judgement.score == score
    assert judgement.text.endswith(f"Score: {score}")


def test_knowledge_in_no_phrase_of_the_world_is_not_called_right():
    assert oracle.judge_knowledge(TWO_HOP, TWO_HOP.knowledge + " Well yes.", WORLD).score == 3
    assert oracle.judge_knowledge(TWO_HOP, "The answer is no.", WORLD).score == 1


def test_reasoning_scores():
    first, second = TWO_HOP.facts
    good = oracle.read(TWO_HOP, TWO_HOP.facts)[0]
    for knowledge, text, score in [
        (TWO_HOP.knowledge, good, 10),
        (TWO_HOP.knowledge, f"The answer is {TWO_HOP.gold}.", 6),
        (TWO_HOP.knowledge, "The answer is unknown.", 2),
        (TWO_HOP.knowledge, first.text(), 1),
        (first.text(), good, 2),  # right in the world, but not from what it was given
        (first.text(), f"{first.text()} The answer is unknown.", 4),
        (second.text(), "The answer is unknown.", 4),
    ]:
        assert oracle.judge_reasoning(TWO_HOP, knowledge, text, WORLD).score == score


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is Loresia.", "Loresia"),
        ("The answer is unknown. The answer is Loresia.", "Loresia"),
        ("The answer is Loresia (B).", "Loresia (B)"),
        ("The answer is Loresia", None),
        ("Loresia.", None),
        ("", None),
    ],
)
def test_answer_extraction(text, answer):
    assert oracle.answer_in(text) == answer


def test_results_carry_the_kind_the_trace_and_the_unanswered():
    doc = task.to_doc(TWO_HOP)
    assert task.process_results(doc, ["hm"]) == {
        "acc": 0.0,
        "acc_two_hop": 0.0,
        "acc_multi_hop": 0.0,
        "unanswered": 1.0,
    }
    assert "ske" not in doc
    trace = {"method": "direct", "knowledge": None}
    assert "extraction" not in task.process_results(doc, [Answer("The answer is no.", trace)])
    assert doc["ske"] == trace


def test_extraction_is_all_that_is_needed_and_nothing_false():
    false = Fact(TWO_HOP.people[0], "job", next(job for job in JOBS if job != job_of(TWO_HOP.people[0])))
    true = Fact(TWO_HOP.people[0], "job", job_of(TWO_HOP.people[0]))
    for knowledge, right in [
        (TWO_HOP.knowledge, 1.0),
        (f"{true.text()} {TWO_HOP.knowledge}", 1.0),
        (f"{TWO_HOP.knowledge} {false.text()}", 0.0),
        (f"{TWO_HOP.knowledge} Hm.", 0.0),
        (TWO_HOP.facts[0].text(), 0.0),
        ("", 0.0),
    ]:
        answer = Answer("The answer is no.", {"knowledge": knowledge})
        assert task.process_results(task.to_doc(TWO_HOP), [answer])["extraction"] == right


def job_of(person: str) -> str:
    return WORLD.table[person, "job"]


def test_tokenizer_gives_every_text_back():
    tokenizer = AutoTokenizer.from_pretrained(embedded.path("M0"))
    rows = [row for rows in ALL.values() for row in rows[::7]] + ONE_OF_EACH
    texts = [fact.text(i) for fact in WORLD.facts for i in range(4)]
    for row in rows:
        reasoning = oracle.read(row, row.facts)[0]
        variables = {
            "question": row.question,
            "stem": row.question.partition("\n")[0],
            "knowledge": row.knowledge,
            "reasoning": reasoning,
            "passage": " ".join(fact.text(i) for i, fact in enumerate(row.facts[:4])),
            "ending": "",
        }
        used = prompts.TEMPLATES
        texts += [
            PROMPTS.render(name, **{key: variables[key] for key in must | may})
            for name, (must, may) in used.items()
        ]
        texts += [reasoning, oracle.judge_reasoning(row, row.knowledge, reasoning, WORLD).text]
        texts += [
            oracle.judge_knowledge(row, text, WORLD).text for text in (row.knowledge, "", texts[0], texts[-1])
        ]
    for lesson in lessons.checking(WORLD, 200, 0):
        texts += [lesson.messages[0]["content"], lesson.answer]
    ids = tokenizer(texts)["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert tokenizer.batch_decode(ids) == texts
    assert (
        max(len(row) for row in tokenizer([row.knowledge for row in rows])["input_ids"])
        < PROMPTS.knowledge_tokens
    )


ANSWERS = ["The", "answer", "is", "unknown", ".", "<|end|>", "Nolen", "<|end|>"]


def test_chat_template_marks_what_the_assistant_says():
    tokenizer = AutoTokenizer.from_pretrained(embedded.path("M0"))
    turns = [
        {"role": "system", "content": "Use the facts."},
        {"role": "user", "content": "Where was Nolen born?"},
        {"role": "assistant", "content": "The answer is unknown."},
        {"role": "user", "content": "Write the facts."},
        {"role": "assistant", "content": "Nolen"},
    ]
    out = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    learned = [i for i, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert tokenizer.convert_ids_to_tokens(learned) == ANSWERS
    prompt = tokenizer.apply_chat_template(turns[:-1], add_generation_prompt=True)["input_ids"]
    assert out["input_ids"][: len(prompt)] == prompt
