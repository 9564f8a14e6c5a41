"""The three methods as plain data over role messages. No harness and no engine is known here.

    direct    a = M(q)                              the harness' own prompt, untouched
    cot       a = M(q, p_cot)                       reasons, then answers
    explicit  k = M(q, p_extract)                   writes the knowledge down (paper, section "Method"),
              a = M(q, k, p_reason)                 then reasons with it

Two layouts of `explicit`: `single` asks each step in a conversation of its own; `multiturn` lets the
second step continue the first one's conversation, so that a prefix cache holds all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ske_models.prompts import PromptSet

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
Layout = Literal["single", "multiturn"]
LAYOUTS: tuple[Layout, ...] = ("single", "multiturn")


@dataclass(frozen=True)
class Step:
    """One generation. `template`: the prompt set's template of its user turn; None: the harness' own turn."""

    name: Literal["knowledge", "answer"]
    template: str | None


METHODS: dict[str, tuple[Step, ...]] = {
    "direct": (Step("answer", None),),
    "cot": (Step("answer", "cot"),),
    "explicit": (Step("knowledge", "extract"), Step("answer", "reason")),
}


@dataclass(frozen=True)
class Question:
    """A question as a harness asks it.

    before: the turns before it (system instruction, few-shot examples).
    asked: its own user turn, to the letter, as `direct` sends it.
    text: what the steps of the method are shown: the question without `ending`.
    ending: how the answer must end ("" where the harness' task says so within the question).
    prefix: the start of the assistant's answer, where the task gives one.
    chat: False where the harness uses no chat template and `asked` is its whole plain context.
    scored: a continuation is scored by log-likelihood right after `asked`.
    """

    before: tuple[Message, ...]
    asked: str
    text: str
    ending: str = ""
    prefix: str = ""
    chat: bool = True
    scored: bool = False

    @property
    def verbatim(self) -> bool:
        """Whether `asked` must close the prompt to the letter; knowledge is then put before it."""
        return self.scored or not self.chat


def knowledge_messages(question: Question, prompts: PromptSet) -> list[Message]:
    """The conversation of step 1: ends with a user turn that asks for the knowledge."""
    return [*question.before, _user(prompts.render("extract", question=question.text))]


def answer_messages(
    question: Question, prompts: PromptSet, method: str, layout: Layout, knowledge: str | None
) -> list[Message]:
    """The conversation of the answering step: ends with a user turn, or with the answer's given prefix.

    `knowledge` is None for the methods that have none.
    """
    template = METHODS[method][-1].template
    turns = list(question.before)
    if template == "reason" and layout == "multiturn":
        assert knowledge is not None
        turns = [*knowledge_messages(question, prompts), {"role": "assistant", "content": knowledge}]
        reason = prompts.render("reason_multiturn", ending=question.ending)
        turns.append(_user(question.asked if question.verbatim else reason))
    elif template == "reason":
        assert knowledge is not None
        if question.verbatim:
            turns.append(_user(prompts.render("given", question=question.asked, knowledge=knowledge)))
        else:
            variables = {"question": question.text, "ending": question.ending, "knowledge": knowledge}
            turns.append(_user(prompts.render("reason", **variables)))
    elif template == "cot":
        turns.append(_user(prompts.render("cot", question=question.text, ending=question.ending)))
    else:
        turns.append(_user(question.asked))
    if question.prefix:
        turns.append({"role": "assistant", "content": question.prefix})
    return turns


def _user(content: str) -> Message:
    return {"role": "user", "content": content}
