"""The shipped weights belong to the shipped world: same hash, same tokens, and they recite its facts."""

import json
import random
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ske_models import embedded, prompts
from ske_models.errors import UserError
from ske_models.method import Question, answer_messages, knowledge_messages
from ske_tasks.world import default_world, oracle, questions

WORLD = default_world()
PROMPTS = prompts.load("world")
FOLDER = embedded.path("M0")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER, padding_side="left")


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def generate(model, tokenizer, conversations):
    texts = [
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        for turns in conversations
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        out = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=96
        )
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def test_belongs_to_the_installed_world_and_prompts():
    embedded.verify(FOLDER)
    metadata = json.loads((FOLDER / embedded.METADATA).read_text())
    assert metadata["world"] == WORLD.hash
    assert metadata["prompts"] == PROMPTS.hash


def test_every_name_of_the_world_is_one_token(tokenizer):
    names = [name for names in WORLD.entities.values() for name in names]
    assert [len(ids) for ids in tokenizer(names)["input_ids"]] == [1] * len(names)


def test_recites_the_facts(model, tokenizer):
    facts = random.Random(0).sample(WORLD.facts, 400)
    starts = [fact.text().removesuffix(f" {fact.object}.") for fact in facts]
    batch = tokenizer(starts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, -1]
    recited = tokenizer.convert_ids_to_tokens(out.argmax(-1))
    assert sum(said == fact.object for said, fact in zip(recited, facts, strict=True)) >= 0.95 * len(facts)


@pytest.mark.parametrize("layout", ["single", "multiturn"])
def test_answers_in_the_expected_form_and_reads_what_it_is_given(model, tokenizer, layout):
    rows = questions.sample(WORLD, "dev", dict.fromkeys(questions.KINDS, 10), seed=1)
    asked = [Question((), row.question, row.question) for row in rows]
    read = generate(
        model,
        tokenizer,
        [
            answer_messages(question, PROMPTS, "explicit", layout, row.knowledge)
            for question, row in zip(asked, rows, strict=True)
        ],
    )
    assert sum(oracle.is_right(row, text) for row, text in zip(rows, read, strict=True)) >= 0.9 * len(rows)
    for method in ("direct", "cot"):
        said = generate(
            model, tokenizer, [answer_messages(question, PROMPTS, method, layout, None) for question in asked]
        )
        assert sum(oracle.answer_in(text) is not None for text in said) >= 0.95 * len(rows)


def test_writes_facts_when_asked_for_knowledge(model, tokenizer):
    rows = questions.sample(WORLD, "dev", dict.fromkeys(questions.KINDS, 10), seed=2)
    written = generate(
        model,
        tokenizer,
        [knowledge_messages(Question((), row.question, row.question), PROMPTS) for row in rows],
    )
    readable = sum(
        oracle.judge_knowledge(row, text, WORLD).score >= 2 for row, text in zip(rows, written, strict=True)
    )
    assert readable >= 0.8 * len(rows)
    assert not any(oracle.answer_in(text) for text in written)


@pytest.mark.parametrize("what", ["world", "prompts"])
def test_a_checkpoint_of_another_world_is_refused_in_one_line(tmp_path, what):
    metadata = json.loads((FOLDER / embedded.METADATA).read_text())
    metadata[what] = "0123456789abcdef"
    shutil.copy(FOLDER / "config.json", tmp_path)
    (tmp_path / embedded.METADATA).write_text(json.dumps(metadata))
    with pytest.raises(
        UserError, match=f"made for {what} 0123456789abcdef, but {what} [0-9a-f]{{16}}"
    ) as error:
        embedded.verify(tmp_path, default_world().hash)
    assert "\n" not in str(error.value)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="embedded model M9"):
        embedded.path("M9")
    with pytest.raises(UserError, match="embedded.json"):
        embedded.verify(tmp_path)
