"""`SKEExplicit` for OpenCompass: any OpenCompass model, asked by one of the three methods.

    models = [dict(type=SKEExplicit, abbr="llama3-explicit", method="explicit", batch_size=256,
                   llm=dict(type=HuggingFacewithChatTemplate, path="ORG/NAME", batch_size=16))]

in a config, then `opencompass CONFIG.py`; eval_configs/ske.py is a complete one. This module only
translates: OpenCompass' prompts to questions, its model classes to the pipeline's engine
(ske_models/opencompass/engine.py), answers back. Written against OpenCompass 0.5.4.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from opencompass.models.base import BaseModel
from opencompass.registry import MODELS
from opencompass.utils import get_logger
from opencompass.utils.prompt import PromptList

from ske_models import embedded
from ske_models.controls import SHUFFLED
from ske_models.errors import UserError, at_least_one
from ske_models.method import Message, Question
from ske_models.opencompass.engine import ROLES, engine_for, identity, model_class
from ske_models.records import Answer, Item
from ske_models.setup import DEFAULT_STORE, Setup

MAX_OUT_LEN = 1024  # tokens of an answer that nobody limits
OUR_ROLES = {theirs: ours for ours, theirs in ROLES.items()}
T = TypeVar("T")


@MODELS.register_module()
class SKEExplicit(BaseModel):
    """An OpenCompass model around an OpenCompass model.

    llm: the model config of the inner model, as it would stand in `models` by itself (`meta_template`,
        `max_seq_len`, `generation_kwargs` included). Its `batch_size` is what its class is given at once.
    method: "direct", "cot" or "explicit" (ske_models/method.py).
    prompts: a prompt set by name, or a YAML file (ske_models/prompts).
    layout: "single" or "multiturn", how the two steps of `explicit` are asked.
    ending: how `cot` and `explicit` are asked to end, where the dataset's prompt does not say it.
    store: a SQLite file for what the steps write; "none" or None: keep nothing. Without it, a file in
        ~/.cache/ske-learn, one per model.
    knowledge: a JSONL file with knowledge to use instead of asking for it (ske_models/knowledge.py);
        "empty" for a control (ske_models/controls.py).
    foreign_knowledge: take such a file although another model or prompt set wrote it.
    max_knowledge_toks: token limit of the knowledge step; without it, the prompt set's.
    max_reasoning_toks: token limit of an answer that reasons first (`cot`, `explicit`); a dataset's own
        `max_out_len` (50 for NQ) leaves no room for that, and holds only where it is larger.
        Other answers have the dataset's `max_out_len`; where it gives none (ARC), that of the model entry;
        else that of `llm`; else MAX_OUT_LEN.
    max_seq_len: handed to the inner model, if its config has none.
    think: what a thought is told by, of models that think first (ske_models/reply.py): "default", "off", or
        two marks, as in "<plan>...</plan>". A thought is not shown to step 2; the store keeps it.

    The entry's own `batch_size` is how many questions go through the steps at once. In the predictions
    of `cot` and `explicit` the last entry of `origin_prompt` has the role "SKE", the knowledge, and how
    the answer came about. Raises UserError for whatever a user can get wrong, before the model is loaded.
    """

    def __init__(
        self,
        llm: Mapping[str, Any],
        method: str = "explicit",
        prompts: str = "default",
        layout: str = "single",
        ending: str = "",
        store: str | None = DEFAULT_STORE,
        knowledge: str | None = None,
        foreign_knowledge: bool = False,
        max_knowledge_toks: int | None = None,
        max_reasoning_toks: int = MAX_OUT_LEN,
        max_seq_len: int | None = None,
        think: str | bool | None = "default",
    ) -> None:
        at_least_one("max_reasoning_toks", max_reasoning_toks)
        if knowledge == SHUFFLED:
            raise UserError(
                "knowledge=shuffled: OpenCompass hands over a few questions at a time; use lm-eval"
            )
        setup = Setup(method, layout, prompts, store, knowledge, max_knowledge_toks, think, foreign_knowledge)
        if str(llm.get("path")) == str(embedded.FOLDER / "M0"):
            embedded.verify(embedded.path("M0"))
        if max_seq_len is not None and llm.get("max_seq_len") is None:
            llm = {**llm, "max_seq_len": max_seq_len}
        # OpenCompass hands over a batch of one dataset at a time
        setup.bind(identity(llm), in_batches=True)
        self.engine = engine_for(llm)
        if layout == "multiturn" and not self.engine.chat:
            raise UserError("layout=multiturn needs a conversation; use a chat class of OpenCompass as llm")
        self.ending = ending
        self.max_reasoning_toks = max_reasoning_toks
        self.max_out_len = llm.get("max_out_len")
        self.pipeline = setup.pipeline(
            self.engine, {"max_out_len": setup.knowledge_limit, "stopping_criteria": []}
        )
        # What OpenCompass reads off a model. The parser is our own reference: its ChatInferencer
        # exchanges it, and the inner model may serve several methods.
        self.path = str(llm.get("path"))
        self.template_parser = self.inner.template_parser
        self.max_seq_len = self.inner.max_seq_len
        self.is_api = self.inner.is_api
        self.tokenizer_only = False
        self.generation_kwargs = dict(llm.get("generation_kwargs") or {})
        self.sync_rank = False
        self._parsed: tuple[Any, list[Any]] | None = None

    @property
    def inner(self) -> Any:
        """The OpenCompass model that does the work."""
        return self.engine.model

    # What OpenCompass asks of a model -------------------------------------------------------------

    def parse_template(self, prompt_template: Any, mode: str) -> Any:
        parsed = self.template_parser.parse_template(prompt_template, mode)
        batch = isinstance(parsed, list) and not isinstance(parsed, PromptList)
        if mode == "gen" and self.pipeline.method != "direct" and batch:
            # GenInferencer asks for a batch's prompts first, then for the answers, then saves both: what
            # is put into these lists meanwhile (`generate_from_template`) stands in the predictions.
            parsed = [
                PromptList([_human(prompt)]) if isinstance(prompt, str) else prompt for prompt in parsed
            ]
            self._parsed = (prompt_template, parsed)
        return parsed

    def generate_from_template(self, templates: Any, max_out_len: int | None, **kwargs: Any) -> list[str]:
        answers = self.generate(self.template_parser.parse_template(templates, "gen"), max_out_len, **kwargs)
        if self._parsed is not None and self._parsed[0] is templates:
            for prompt, answer in zip(self._parsed[1], answers, strict=True):
                prompt.append({"role": "SKE", "prompt": "", **answer.trace})
        self._parsed = None
        return list(answers)

    def generate(
        self,
        inputs: Sequence[Any],
        max_out_len: int | None,
        min_out_len: int | None = None,
        stopping_criteria: Sequence[str] = (),
    ) -> list[Answer]:
        """The answers to OpenCompass' prompts: lists of turns for a chat class, texts for the others.

        max_out_len: None where neither the dataset (ARC, say) nor the model entry gives one.
        """
        if threading.current_thread() is not threading.main_thread():
            raise UserError(
                "GenInferencer(multiround=True) and concurrent tasks ask from several threads at once, "
                "which ske_models.opencompass does not serve; use ChatInferencer for several rounds"
            )
        p = self.pipeline
        reasons = p.method != "direct" and self.engine.chat
        given = max_out_len if max_out_len is not None else self.max_out_len
        limit = max(given or 0, self.max_reasoning_toks) if reasons else given or MAX_OUT_LEN
        # A stop string such as "\n" ends an answer of one line, and would cut a reasoning.
        settings = {
            "max_out_len": limit,
            "min_out_len": min_out_len,
            "stopping_criteria": [] if reasons else list(stopping_criteria),
        }
        answers = p.run([Item(self._question(prompt), settings, limit) for prompt in inputs])
        get_logger().info(f"ske-learn, so far: {p.report()}, prompts cut: {self.engine.overlong}")
        return answers

    def get_token_len(self, prompt: Any) -> int:
        return self.inner.get_token_len(prompt)

    def get_ppl(self, inputs: list[str], mask_length: list[int] | None = None) -> Any:
        return self._scored(lambda: self.inner.get_ppl(inputs, mask_length))

    def get_ppl_tokenwise(self, inputs: list[str], *args: Any) -> Any:
        return self._scored(lambda: self.inner.get_ppl_tokenwise(inputs, *args))

    def get_loglikelihood(self, inputs: list[str], conts: list[str]) -> Any:
        return self._scored(lambda: self.inner.get_loglikelihood(inputs, conts))

    def _scored(self, score: Callable[[], T]) -> T:
        """`direct` passes through. OpenCompass' scored prompts do not tell the question from the option."""
        if self.pipeline.method != "direct":
            raise UserError(
                f"method={self.pipeline.method} writes an answer, but this dataset scores whole texts by "
                "perplexity; use its config with _gen in the name, or method=direct"
            )
        try:
            return score()
        except NotImplementedError as error:
            raise UserError(f"{model_class(self.engine.llm).__name__} cannot score texts: {error}") from error

    # From OpenCompass' prompts to questions -------------------------------------------------------

    def _question(self, prompt: Any) -> Question:
        if not self.engine.chat:
            return Question((), prompt, prompt, self.ending, chat=False)
        turns = [_human(prompt)] if isinstance(prompt, str) else prompt
        messages = [_message(turn) for turn in turns]
        prefix = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        *before, asked = messages[:-1] if messages[-1]["role"] == "assistant" else messages
        # OpenCompass puts a line break after the turn
        return Question(tuple(before), asked["content"], asked["content"].strip(), self.ending, prefix)


def _human(text: str) -> dict[str, str]:
    return {"role": "HUMAN", "prompt": text}


def _message(turn: Mapping[str, Any]) -> Message:
    """Ours, from OpenCompass' turn: {"role": "HUMAN", "prompt": ...} or {"role": "user", "content": ...}."""
    text = turn["content"] if "content" in turn else turn["prompt"]
    if not isinstance(text, str):
        raise UserError(f"a prompt has a {type(text).__name__} where text is needed; only text is supported")
    return {"role": OUR_ROLES.get(turn["role"], turn["role"]), "content": text}
