"""The three methods as plain data over role messages. No harness and no engine is known here.

    direct    a = M(q)                              the harness' own prompt, untouched
    cot       a = M(q, p_cot)                       reasons, then answers
    explicit  k = M(q, p_extract)                   writes the knowledge down (paper, section "Method"),
              a = M(q, k, p_reason)                 then reasons with it

Two layouts of `explicit`: in `single` each step is a conversation of its own; in `multiturn` the second step
continues the first one's conversation, so that a prefix cache holds all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

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
class Shot:
    """A worked example of both steps of `explicit`.

    reasoning: ends in the answer, in the way that the `ending` of the question at hand asks for.
    """

    question: str
    knowledge: str
    reasoning: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question as a harness asks it.

    before: the turns before it (system instruction, few-shot examples).
    asked: its own user turn, to the letter, as `direct` sends it.
    text: what the steps of the method are shown: the question without `ending`.
    stem: `text` without its options, for prompt sets that show that in step 1; "": the task does not tell
        them apart, and `text` is shown.
    ending: how the answer must end ("" where the harness' task says so within the question).
    prefix: the start of the assistant's answer, where the task gives one.
    chat: False where the harness uses no chat template and `asked` is its whole plain context.
    scored: a continuation is scored by log-likelihood right after `asked`.
    shots: examples of the steps of `explicit`, shown as turns before each step in that step's own form.
    rendered: its conversation as the harness has rendered it, which `direct` sends; None: it has not.
    """

    before: tuple[Message, ...]
    asked: str
    text: str
    ending: str = ""
    prefix: str = ""
    chat: bool = True
    scored: bool = False
    shots: tuple[Shot, ...] = ()
    stem: str = ""
    rendered: Any = None

    @property
    def verbatim(self) -> bool:
        """Whether `asked` must close the prompt to the letter; knowledge is then put before it."""
        return self.scored or not self.chat


def knowledge_messages(question: Question, prompts: PromptSet) -> list[Message]:
    """The conversation of step 1: ends with a user turn that asks for the knowledge."""
    turns = list(question.before)
    for shot in question.shots:
        turns += [_extract_turn(prompts, shot.question, ""), _assistant(shot.knowledge)]
    return [*turns, _extract_turn(prompts, question.text, question.stem)]


def answer_messages(
    question: Question, prompts: PromptSet, method: str, layout: Layout, knowledge: str | None
) -> list[Message]:
    """The conversation of the answering step: ends with a user turn, or with the answer's given prefix.

    `knowledge` is None for the methods that have none.
    """
    template = METHODS[method][-1].template
    turns = list(question.before)
    if template == "reason":
        assert knowledge is not None
        for shot in question.shots:
            # an example has the form of the question at hand, whatever ending the harness wants for its own
            example = Question((), shot.question, shot.question, question.ending)
            turns += _reason_turns(example, prompts, layout, shot.knowledge)
            turns.append(_assistant(shot.reasoning))
        turns += _reason_turns(question, prompts, layout, knowledge)
    elif template == "cot":
        turns.append(_user(prompts.render("cot", question=question.text, ending=question.ending)))
    else:
        turns.append(_user(question.asked))
    if question.prefix:
        turns.append(_assistant(question.prefix))
    return turns


def _reason_turns(question: Question, prompts: PromptSet, layout: Layout, knowledge: str) -> list[Message]:
    """The turns of one question that ask for the reasoning; those before it are left out."""
    if layout == "multiturn":
        extract = _extract_turn(prompts, question.text, question.stem)
        reason = prompts.render("reason_multiturn", question=question.text, ending=question.ending)
        last = question.asked if question.verbatim else reason
        return [extract, _assistant(knowledge), _user(last)]
    if question.verbatim:
        return [_user(prompts.render("given", question=question.asked, knowledge=knowledge))]
    variables = {"question": question.text, "ending": question.ending, "knowledge": knowledge}
    return [_user(prompts.render("reason", **variables))]


def _extract_turn(prompts: PromptSet, question: str, stem: str) -> Message:
    return _user(prompts.render("extract", question=question, stem=stem or question))


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
