"""One set-up for both harnesses: the method's arguments become prompts, knowledge, a store and a pipeline.

    setup = Setup("explicit", "single", "default", store="default", knowledge=None, max_knowledge_toks=None)
    setup.bind(fingerprint)                     # still before the model is loaded
    pipeline = setup.pipeline(engine, settings) # after it is

Whatever can be wrong in an argument is found before a model is loaded. The store belongs to a model from its
first text on, so a run that fails to load (a typo in an argument) does not claim it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from ske_models.controls import CONTROLS, EMPTY, SHUFFLED, EmptyKnowledge
from ske_models.errors import UserError, at_least_one, one_of
from ske_models.files import cache_folder, user_path
from ske_models.fingerprint import digest
from ske_models.knowledge import KnowledgeFile
from ske_models.method import LAYOUTS, METHODS, Layout
from ske_models.pipeline import MAX_IN_FLIGHT, Pipeline
from ske_models.prompts import load as load_prompts
from ske_models.records import Engine, Settings
from ske_models.reply import marks_of
from ske_models.store import Store

DEFAULT_STORE = "default"  # a file in the cache folder, one per model


class Setup:
    """The arguments that both adapters take, checked.

    method: "direct", "cot" or "explicit". layout: "single" or "multiturn".
    prompts: a prompt set by name, or a YAML file.
    store: "default", a path, or None or "none" (in any case) for nothing on disk. lm-eval turns the word
        "none" of its command line into None, so None must not mean the default.
    knowledge: a JSONL file with knowledge to use instead of prompting for it, or None; "shuffled" or "empty"
        for a control (ske_models/controls.py).
    foreign_knowledge: take such a file although another model or prompt set wrote it.
    max_knowledge_toks: token limit of the knowledge step, or None for the prompt set's.
    think: "default", "off" or two marks: what a thought is told by (ske_models/reply.py).
    stop_loops: end a text that only repeats itself (ske_models/loops.py).
    Raises UserError for a value that is unknown or does not go with the others.
    """

    def __init__(
        self,
        method: str,
        layout: str,
        prompts: str,
        store: str | Path | None,
        knowledge: str | Path | None,
        max_knowledge_toks: int | None,
        think: str | bool | None = "default",
        foreign_knowledge: bool = False,
        stop_loops: bool = False,
    ) -> None:
        one_of("method", method, METHODS)
        one_of("layout", layout, LAYOUTS)
        at_least_one("max_knowledge_toks", max_knowledge_toks)
        if knowledge and method != "explicit":
            raise UserError(
                f"knowledge={knowledge}: method={method} has no knowledge step; use method=explicit"
            )
        if foreign_knowledge and (not knowledge or knowledge in CONTROLS):
            raise UserError("foreign_knowledge=True: give the file with knowledge=FILE")
        if not isinstance(stop_loops, bool):
            raise UserError(f"stop_loops={stop_loops}: True or False is needed")
        self.foreign_knowledge, self.stop_loops = foreign_knowledge, stop_loops
        self.marks = marks_of(think)
        self.method = method
        self.layout = cast("Layout", layout)
        self.prompts = load_prompts(prompts)
        self.knowledge_limit = max_knowledge_toks or self.prompts.knowledge_tokens
        self._store_argument = store
        self._knowledge_argument = knowledge

    def bind(self, fingerprint: Mapping[str, Any], in_batches: bool = False) -> None:
        """Opens the store and reads the knowledge for the model with this fingerprint (fingerprint.py).

        in_batches: the harness hands over a few questions at a time, which need not be in the knowledge file.
        Raises UserError if the store cannot be used or is another model's, or the knowledge file is faulty.
        """
        self.store = Store(store_path(self._store_argument, fingerprint), fingerprint)
        self.knowledge_file: KnowledgeFile | EmptyKnowledge | None = None
        if self._knowledge_argument == EMPTY:
            self.knowledge_file = EmptyKnowledge()
        elif self._knowledge_argument and self._knowledge_argument != SHUFFLED:
            name = str(self._knowledge_argument)
            path, foreign = user_path(name, f"knowledge={name}"), self.foreign_knowledge
            self.knowledge_file = KnowledgeFile(path, fingerprint, self.prompts.hash, in_batches, foreign)

    def pipeline(
        self,
        engine: Engine,
        knowledge_settings: Settings,
        max_in_flight: int = MAX_IN_FLIGHT,
        shared: bool = False,
    ) -> Pipeline:
        """The method over a loaded model. knowledge_settings: of step 1, in the engine's own words.

        shared: several processes have a part of the questions each.
        Raises UserError for knowledge=shuffled then: who is whose donor depends on all of them.
        """
        shuffled = self._knowledge_argument == SHUFFLED
        if shared and shuffled:
            raise UserError("knowledge=shuffled: needs all questions in one process; start one")
        if shared and isinstance(self.knowledge_file, KnowledgeFile):
            self.knowledge_file.in_batches = True
        return Pipeline(
            engine=engine,
            method=self.method,
            layout=self.layout,
            prompts=self.prompts,
            store=self.store,
            knowledge_settings=knowledge_settings,
            knowledge_limit=self.knowledge_limit,
            knowledge_file=self.knowledge_file,
            max_in_flight=max_in_flight,
            marks=self.marks,
            shuffled=shuffled,
            stop_loops=self.stop_loops,
        )


def store_path(store: str | Path | None, fingerprint: Mapping[str, Any]) -> Path | None:
    """The file that a `store` argument means; None: nothing on disk."""
    if store is None or str(store).lower() == "none":
        return None
    if store == DEFAULT_STORE:
        return cache_folder() / f"{digest(dict(fingerprint))}.sqlite"
    return user_path(str(store), f"store={store}")
