"""Controls: which knowledge a question is given, that only that differs, and what a report says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_pipeline import OWNER, InstantEngine, pipeline

from ske_models.controls import EmptyKnowledge, with_donors
from ske_models.errors import UserError
from ske_models.knowledge import KnowledgeFile
from ske_models.method import Question
from ske_models.records import Item
from ske_models.setup import Setup
from ske_models.store import Store

SUBSETS = {"law": 4, "physics": 3, "art": 1}


def items():
    names = [f"{subset} {n}?" for subset, size in SUBSETS.items() for n in range(size)]
    return [Item(Question((), name, name), {}, 8, group=("mmlu", name.split()[0])) for name in names]


def test_shuffled_gives_each_question_the_knowledge_of_another_one_of_its_subset_once():
    given = with_donors(items())
    own = {item.question.text for item in given}
    donors = [item.donor.text for item in given if item.donor]
    assert all(item.donor and item.donor.text != item.question.text for item in given)
    in_subset = [item for item in given if item.group[1] != "art"]
    assert all(item.donor.text.split()[0] == item.group[1] for item in in_subset if item.donor)
    assert len({item.donor.text for item in in_subset if item.donor}) == len(in_subset)
    assert set(donors) <= own
    assert [item.donor for item in with_donors(items())] == [item.donor for item in given]
    assert with_donors(items()[::-1]) == given[::-1]


def test_the_same_question_twice_is_one_question_and_a_single_one_is_refused():
    twice = [*items(), *items()]
    assert all(item.donor and item.donor.text != item.question.text for item in with_donors(twice))
    with pytest.raises(UserError, match="mmlu has one question, 2 are needed"):
        with_donors([items()[0], items()[0]])


def test_the_same_question_in_two_tasks_has_a_donor_in_each():
    def task(name, *texts):
        return [Item(Question((), text, text), {}, 8, group=(name, text[0])) for text in texts]

    whole = task("mmlu", "a0", "a1", "a2", "a3", "a4", "a5", "b0")
    quick = task("quick", "a0", "a2", "a4", "a9", "b0")
    for both in (whole + quick, quick + whole):
        given = with_donors(both)
        for alone in (whole, quick):
            mine = [item for item in given if item.group[0] == alone[0].group[0]]
            assert mine == with_donors(alone)
            donors = [item.donor.text for item in mine if item.donor and item.group[1] == "a"]
            assert sorted(donors) == [item.question.text for item in alone if item.group[1] == "a"]
            # `b0` is alone in its subset
            assert {item.donor.text for item in mine if item.donor} <= {item.question.text for item in alone}


def test_shuffled_costs_no_knowledge_and_changes_nothing_but_the_knowledge(tmp_path):
    store = Store(tmp_path / "s.sqlite", OWNER)
    own = pipeline(InstantEngine(), store).run(items())
    engine = InstantEngine()
    control = pipeline(engine, store, shuffled=True)
    shuffled = control.run(items())
    by_text = {
        item.question.text: answer.trace["knowledge"] for item, answer in zip(items(), own, strict=True)
    }
    expected = [by_text[item.donor.text] for item in with_donors(items()) if item.donor]
    assert [answer.trace["knowledge"] for answer in shuffled] == expected
    assert engine.calls == [["answer"] * len(own)]
    assert all(item.question.text in prompt for item, prompt in zip(items(), engine.prompts, strict=True))
    assert control.report()["knowledge_control"] == "shuffled"
    assert "knowledge_control" not in pipeline(engine, store).report()


def test_empty_asks_step_2_alone_with_an_empty_text(tmp_path):
    engine = InstantEngine()
    control = pipeline(engine, Store(None, OWNER), knowledge_file=EmptyKnowledge())
    answers = control.run(items())
    assert engine.calls == [["answer"] * len(answers)]
    assert {(answer.trace["knowledge"], answer.trace["knowledge_source"]) for answer in answers} == {
        ("", "empty")
    }
    report = control.report()
    assert (report["knowledge_control"], report["knowledge_file"]) == ("empty", None)
    assert report["steps"]["knowledge"]["from_file"] == 0


def test_another_models_knowledge_needs_to_be_allowed_and_is_named(tmp_path):
    path = tmp_path / "k.jsonl"
    path.write_text('{"question": "law 0?", "knowledge": "k", "model": "other", "prompts": "p"}\n')
    with pytest.raises(UserError, match="add foreign_knowledge=True"):
        KnowledgeFile(path, OWNER, "mine")
    known = KnowledgeFile(path, OWNER, "mine", foreign=True)
    control = pipeline(InstantEngine(), Store(None, OWNER), knowledge_file=known)
    assert control.run(items())[0].trace["knowledge"] == "k"
    assert control.report()["knowledge_models"] == ["other"]


@pytest.mark.parametrize("knowledge", [None, "shuffled", "empty"])
def test_the_setup_knows_the_controls_and_refuses_the_switch_without_a_file(knowledge):
    setup = Setup("explicit", "single", "default", None, knowledge, None)
    setup.bind(OWNER)
    assert setup.pipeline(InstantEngine(), {}).shuffled == (knowledge == "shuffled")
    assert isinstance(setup.knowledge_file, EmptyKnowledge) == (knowledge == "empty")
    with pytest.raises(UserError, match="give the file with knowledge=FILE"):
        Setup("explicit", "single", "default", None, knowledge, None, foreign_knowledge=True)


def test_a_question_without_a_stem_is_counted_where_the_set_wants_one(tmp_path):
    engine = InstantEngine()
    base = pipeline(engine, Store(None, OWNER))
    templates = base.prompts.templates | {"extract": "{{ stem }} List facts."}
    stem = replace(base, prompts=replace(base.prompts, templates=templates))
    with_stem = [replace(item, question=replace(item.question, stem="Stem")) for item in items()[:3]]
    stem.run([*with_stem, *items()[3:]])
    assert stem.report()["steps"]["knowledge"]["without_stem"] == 5
