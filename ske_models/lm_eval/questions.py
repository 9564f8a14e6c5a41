"""From lm-eval's requests to the method's questions.

question(context, doc, layout="single", scored=False)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.utils import normalize_gen_kwargs

from ske_models.errors import UserError
from ske_models.lm_eval.engine import check_settings
from ske_models.method import Message, Question

as_json = json.JSONEncoder(sort_keys=True).encode  # one for all: each call of `dumps` makes an encoder


class ChatStr(str):
    """A rendered chat prompt that still knows its turns. lm-eval logs, hashes and pickles it as a `str`."""

    messages: list[Message]

    def __new__(cls, text: str, messages: list[Message] | None = None) -> ChatStr:
        prompt = super().__new__(cls, text)
        prompt.messages = messages or []
        return prompt


def question(context: Any, doc: Any, layout: str, scored: bool) -> Question:
    """What a request is about. context: its prompt, as `apply_chat_template` or lm-eval made it.

    Raises UserError if the layout needs a conversation, and there is none.
    """
    if isinstance(context, ChatStr):
        turns = context.messages
    elif isinstance(context, JsonChatStr):
        turns = json.loads(context.prompt)
    elif layout == "multiturn":
        raise UserError("layout=multiturn needs a conversation; add --apply_chat_template")
    else:
        text, ending, stem = _split_own(context, doc)
        return Question((), context, text, ending, chat=False, scored=scored, stem=stem)
    prefix = turns[-1]["content"] if turns[-1]["role"] == "assistant" else ""
    *before, own = turns[:-1] if prefix else turns
    text, ending, stem = _split_own(own["content"], doc)
    own_turn = own["content"]
    return Question(tuple(before), own_turn, text, ending, prefix, scored=scored, stem=stem, rendered=context)


@lru_cache
def limit(settings: str, default: int) -> int:
    """The token limit in a task's settings, given as JSON: lm-eval copies them for each of its requests.

    Raises UserError for a setting that cannot be meant: this is where they are read first.
    """
    given = json.loads(settings)
    check_settings(given)
    return normalize_gen_kwargs(given, default)["max_gen_toks"]


def group(request: Instance) -> tuple[str, str]:
    """The task, and the subset where our tasks' docs name one."""
    subset = request.doc.get("subset") if isinstance(request.doc, Mapping) else None
    return _one_group(str(request.task_name), str(subset or ""))


@lru_cache
def _one_group(task: str, subset: str) -> tuple[str, str]:
    """The same object for all questions of a group."""
    return task, subset


def _split_own(own: str, doc: Any) -> tuple[str, str, str]:
    """(question for the method's steps, how the answer must end, the question without its options), from a
    user turn or a plain context.

    Our own tasks say all of it in their docs (the last one is "" where a task does not); what comes before
    them (few-shot examples in one turn) stays.
    """
    if isinstance(doc, Mapping) and "ske_question" in doc:
        text, ending = doc["ske_question"], doc["ske_ending"]
        full = f"{text}\n\n{ending}" if ending else text
        if own.endswith(full):
            before = own[: len(own) - len(full)]
            stem = doc.get("ske_stem", "")
            return before + text, ending, stem and before + stem
    return own, "", ""
