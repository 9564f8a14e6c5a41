"""`ske_explicit` for lm-eval: any registered lm-eval model, prompted by one of the three methods.

    lm_eval --model ske_explicit --model_args backend=vllm,pretrained=ORG/NAME,method=explicit \\
            --tasks ske_mmlu --apply_chat_template --output_path out --log_samples

Ours are the arguments in `OURS` (`SKEExplicitLM` says what they are); everything else goes to the backend.
With backend=hf and no `pretrained` (nor `model`) the embedded TinyWorld model is used. Written against
lm-eval 0.4.13.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, TemplateLM
from lm_eval.api.registry import model_registry
from lm_eval.models.api_models import TemplateAPI
from lm_eval.utils import simple_parse_args_string

from ske_models import embedded
from ske_models.errors import UserError, at_least_one, one_of
from ske_models.files import encodable, file_digest, write_jsonl
from ske_models.fingerprint import digest, fingerprint
from ske_models.interrupt import ends_in_a_line
from ske_models.lm_eval import questions
from ske_models.lm_eval.backend import (
    TRANSFORMERS,
    backend_class,
    complete,
    end_loops,
    load,
    take_thought_end,
)
from ske_models.lm_eval.engine import LMEvalEngine, instance
from ske_models.lm_eval.questions import ChatStr
from ske_models.lm_eval.results import added_up
from ske_models.method import METHODS, answer_messages
from ske_models.pipeline import MAX_IN_FLIGHT, Pipeline
from ske_models.plugin import results_file
from ske_models.prompts import load as load_prompts
from ske_models.records import Answer, Item, StepCounts, StepOutput
from ske_models.reply import with_end
from ske_models.secrets import hide
from ske_models.setup import DEFAULT_STORE, Setup

OURS = (
    "backend",
    "method",
    "prompts",
    "layout",
    "store",
    "knowledge",
    "foreign_knowledge",
    "max_knowledge_toks",
    "window",
    "think",
    "stop_loops",
)


class SKEExplicitLM(LM):
    """An lm-eval model around an lm-eval model.

    backend: the name of any registered lm-eval model ("hf", "vllm", "local-chat-completions", ...).
    method: "direct", "cot" or "explicit" (ske_models/method.py).
    prompts: a prompt set by name, or a YAML file (ske_models/prompts).
    layout: "single" or "multiturn", how the two steps of `explicit` are prompted.
    store: a SQLite file for what the steps write, so that a killed run goes on where it was; "none" or None
        (which lm-eval makes of it): keep nothing. Without it, a file in ~/.cache/ske-learn, one per model.
    knowledge: a JSONL file with knowledge to use instead of asking for it (ske_models/knowledge.py);
        "shuffled" or "empty" for a control (ske_models/controls.py).
    foreign_knowledge: take such a file although another model or prompt set wrote it.
    max_knowledge_toks: the token limit of the knowledge step; without it, the prompt set's.
    window: how many questions are in step 1 at a time; without it, 4,096. A backend that takes new requests
        while it runs (vLLM) is given as many of them as its KV cache holds, and is never empty in between;
        vLLM with data_parallel_size loads its engines for every call, and so gets all questions at once.
    think: what a thought is told by, of models that think first (ske_models/reply.py): "default", "off", or
        two marks, as in "<plan>...</plan>". A thought is not shown to step 2; the store keeps it.
    stop_loops: end a text that only repeats itself (ske_models/loops.py): hf, vllm and vLLM's server can.

    Raises UserError for whatever a user can get wrong, most of it before the model is loaded.
    """

    def __init__(
        self,
        backend: str = "hf",
        method: str = "explicit",
        prompts: str | None = None,
        layout: str = "single",
        store: str | None = DEFAULT_STORE,
        knowledge: str | None = None,
        foreign_knowledge: bool = False,
        max_knowledge_toks: int | None = None,
        window: int | None = None,
        think: str | bool | None = "default",
        stop_loops: bool = False,
        **backend_args: Any,
    ) -> None:
        super().__init__()
        one_of("backend", backend, sorted(name for name in model_registry if name != "ske_explicit"))
        at_least_one("window", window)
        self.embedded = backend in TRANSFORMERS and not {"pretrained", "model"} & backend_args.keys()
        prompts = prompts or ("world" if self.embedded else "default")
        steps = max_knowledge_toks, think, foreign_knowledge, stop_loops
        setup = Setup(method, layout, prompts, store, knowledge, *steps)
        if self.embedded:
            backend_args = _embedded_args(setup, backend_args)
        backend_args = complete(backend, backend_args)
        model_class = backend_class(backend)
        served = issubclass(model_class, TemplateAPI)
        if served and not {"pretrained", "model"} & backend_args.keys():
            raise UserError(f"backend={backend}: name the model that the server has, with model=NAME")
        self._local = not served
        several = int(backend_args.get("data_parallel_size", 1)) > 1
        cuts_known = served or (backend == "vllm" and not several) or backend in TRANSFORMERS
        setup.bind(fingerprint(backend, backend_args, served, cuts_known))
        self.inner = load(model_class, backend, backend_args, OURS)
        if stop_loops:
            end_loops(self.inner, backend)
        thought_end = take_thought_end(self.inner, backend_args.get("think_end_token"))
        self.tokenizer = self.inner.tokenizer if isinstance(self.inner, TemplateLM) else None
        self.default_limit = int(backend_args.get("max_gen_toks", 256))  # 256: lm-eval's, for all backends
        self.engine = LMEvalEngine(self.inner, thought_end=thought_end)
        setup.marks = with_end(setup.marks, thought_end)
        greedy = {"do_sample": False, "temperature": 0.0, "until": [], "max_gen_toks": setup.knowledge_limit}
        in_flight = window or (sys.maxsize if several else MAX_IN_FLIGHT)
        self.pipeline = setup.pipeline(self.engine, greedy, in_flight, shared=self.inner.world_size > 1)
        self._worlds: set[str | None] = {None}  # of the questions so far, which the embedded model must know
        self.report: dict[str, Any] = {}
        self._lines: dict[str, dict[tuple, dict[str, Any]]] = {}  # of other people's tasks, by task

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> SKEExplicitLM:
        """lm-eval's way to make a model: its results must be writable, its keys are not to be printed."""
        results_file.check(arg_dict)
        args = dict(arg_dict)
        options = {name for name, value in (additional_config or {}).items() if value is not None}
        for name in sorted(args.keys() & options):
            raise UserError(f"{name}={args[name]}: lm-eval has an option of its own for it; use --{name}")
        hide(arg_dict)
        kept: list[Path | None] = []

        def how_to_go_on() -> str:
            if None in kept:
                return "nothing is kept, since store=none"
            where = f"what is finished is in {kept[0]}: " if kept else ""
            return f"{where}the same command goes on"

        ends_in_a_line(how_to_go_on)
        model = super().create_from_arg_obj(args, additional_config)
        kept.append(model.pipeline.store.path)
        return model

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> SKEExplicitLM:
        """As `create_from_arg_obj`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def ask_by(self, method: str) -> None:
        """Another method from here on, with the same loaded model; counts begin again at 0."""
        one_of("method", method, METHODS)
        counts = {step: StepCounts() for step in self.pipeline.counts}
        self.pipeline = replace(self.pipeline, method=method, counts=counts)
        self.report, self._lines = {}, {}

    # What lm-eval asks of a model -----------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        items = [self._item(request) for request in requests]
        answers = self.pipeline.run(items)
        self._note(items, answers, (answer.trace for answer in answers))
        if self.engine.thought_end is None:
            return list(answers)
        return [Answer(self.engine.spoken(answer), answer.trace) for answer in answers]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        if self.pipeline.method == "direct":
            return self.inner.loglikelihood(requests)
        if self.pipeline.method == "cot":
            raise UserError(
                f"method=cot writes an answer, but task {requests[0].task_name} scores options by "
                "log-likelihood; use method=direct or method=explicit for it"
            )
        return self.engine.score(self.informed(requests))

    def informed(self, requests: Sequence[Instance]) -> list[Instance]:
        """Log-likelihood requests with the knowledge of their questions, written once, in their contexts."""
        # The options of a question share its context. An empty one (an unconditional score) has no question.
        asked = {_context(r): r for r in requests if r.args[0] != ""}
        items = {context: self._item(r, scored=True) for context, r in asked.items()}
        known = dict(zip(items, self.pipeline.write_knowledge(list(items.values())), strict=True))
        traces = (self.pipeline.trace(one, None).trace() for one in known.values())
        self._note(items.values(), [None] * len(items), traces)
        contexts = {context: self._informed(item, known[context]) for context, item in items.items()}
        return [
            instance(r, "loglikelihood", (contexts[_context(r)], *r.args[1:])) if r.args[0] != "" else r
            for r in requests
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return self.inner.loglikelihood_rolling(requests)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A `ChatStr` (or, for chat-completions backends, lm-eval's `JsonChatStr`, which is the turns)."""
        if self.inner.chat_template(True) is None:
            raise UserError("the model has no chat template; leave out --apply_chat_template")
        turns = [turn | {"content": encodable(turn["content"])} for turn in chat_history]
        prompt = self.inner.apply_chat_template(turns, add_generation_prompt=add_generation_prompt)
        return ChatStr(prompt, turns) if isinstance(prompt, str) else prompt

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.inner.chat_template(chat_template)

    @property
    def tokenizer_name(self) -> str:
        return self.inner.tokenizer_name

    @property
    def rank(self) -> int:
        return self.inner.rank

    @property
    def world_size(self) -> int:
        return self.inner.world_size

    @property
    def device(self) -> Any:
        return self.inner.device

    def all_gather(self, tensor: Any) -> Any:
        return self.inner.all_gather(tensor)

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        return self.inner.gather_object(obj, dst)

    def barrier(self) -> None:
        self.inner.barrier()

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        raise UserError(
            "--use_cache knows neither the method nor the prompts, and would hand out another run's answers; "
            "leave it out: ske_explicit continues a killed run from its own store"
        )

    def get_model_info(self) -> dict[str, Any]:
        """Goes into `config` of lm-eval's results: what the run was, and what its steps cost."""
        # lm-eval asks every model in this way; not every backend has an answer
        info = self.inner.get_model_info() if hasattr(self.inner, "get_model_info") else {}
        return info | {"ske": self.report or self.pipeline.report()}

    # From lm-eval's requests to questions and back ------------------------------------------------

    def _item(self, request: Instance, scored: bool = False) -> Item:
        if self.embedded and request.doc.get("ske_world") not in self._worlds:
            embedded.verify(embedded.path(), request.doc["ske_world"])
            self._worlds.add(request.doc["ske_world"])
        settings = {} if scored else request.args[1]
        limit = questions.limit(questions.as_json(settings), self.default_limit)
        if limit < 1:
            raise UserError(f"max_gen_toks={limit}: at least 1 token is needed (task {request.task_name})")
        if self._local and "chat_template_kwargs" in settings:
            raise UserError(
                "--gen_kwargs chat_template_kwargs: for chat servers; a local model takes enable_thinking= "
                "in --model_args (hf also chat_template_args)"
            )
        context = request.args[0]
        if self.embedded and not isinstance(context, ChatStr):
            # The embedded model knows only chats, and a bare `lm_eval --model ske_explicit` shall work.
            context = self.apply_chat_template([{"role": "user", "content": context}])
        question = questions.question(context, request.doc, self.pipeline.layout, scored)
        return Item(question, settings, limit, request, questions.group(request))

    def _informed(self, item: Item, knowledge: StepOutput) -> Any:
        """The context of a question's options, with the knowledge in it."""
        p, q = self.pipeline, item.question
        return self.engine.render(answer_messages(q, p.prompts, p.method, p.layout, knowledge.reply), q.chat)

    # What a run leaves behind ---------------------------------------------------------------------

    def _note(self, items: Iterable[Item], answers: Iterable[Answer | None], traces: Iterable[dict]) -> None:
        """Gathers the counts of all processes, which items were edited, and the knowledge of other
        people's tasks, which goes to files; our own tasks have it in lm-eval's logged samples."""
        edited, lines = [], []
        for item, answer, trace in zip(items, answers, traces, strict=True):
            request = item.origin
            if trace["knowledge_source"] == "edited":
                edited.append(f"{request.task_name}/{request.doc_id}")
            if "ske_question" not in request.doc:
                prompt_hash = hashlib.sha256(request.args[0].encode("utf-8")).hexdigest()
                line = {"task": request.task_name, "doc_id": request.doc_id, "prompt_hash": prompt_hash}
                lines.append(line | {"answer": answer and str(answer)} | trace)
        gathered = self.gather_object((self.pipeline.report(), edited, lines))
        if self.rank != 0:
            return
        reports, all_edited, all_lines = zip(*gathered, strict=True)
        before = set(self.report.get("edited", ()))
        self.report = added_up(reports) | {"edited": sorted(before.union(*all_edited))}
        for line in (line for rank_lines in all_lines for line in rank_lines):
            # a request may come twice: lm-eval evens out the processes' shares with copies
            key = (line["doc_id"], line["prompt_hash"], line["answer"] or "")
            self._lines.setdefault(line["task"], {})[key] = line
        if self._lines and self.pipeline.store.path:
            folder = self.pipeline.store.path.with_suffix(".knowledge") / _kind(self.pipeline)
            for task, by_key in self._lines.items():
                path = folder / f"{task}.{self.pipeline.method}.jsonl"
                write_jsonl(path, [line for _, line in sorted(by_key.items())])
            self.report["knowledge_of_other_tasks"] = str(folder)


def _kind(run: Pipeline) -> str:
    """The folder of a run's knowledge, which its controls, and runs by other prompts, leave alone."""
    file, control = (run.report().get(name) for name in ("knowledge_file", "knowledge_control"))
    settings = [run.prompts.hash, run.knowledge_limit, run.stop_loops, run.store.model]
    settings += [file and file_digest(Path(file)), run.marks.pairs and run.marks.pairs.pattern]
    whose = control or ("file" if file else "own")
    return f"{Path(run.prompts.name).stem[:40]}.{run.layout}.{whose}.{digest(settings)[:8]}"


def _embedded_args(setup: Setup, args: dict[str, Any]) -> dict[str, Any]:
    """The backend's arguments for the embedded model. Raises UserError if the prompts are not its own."""
    if setup.prompts.hash != load_prompts("world").hash:
        raise UserError(
            f"prompts={setup.prompts.name}: the embedded model knows only `world`; name a pretrained="
        )
    embedded.verify(embedded.path())
    args = args | {"pretrained": str(embedded.path()), "dtype": "float32"}
    if not torch.cuda.is_available():
        # without a device, `simple_evaluate` takes CUDA for granted; the command does not
        args.setdefault("device", "cpu")
    if str(args.get("batch_size", 1)) == "1":
        args["batch_size"] = 64
    return args


def _context(request: Instance) -> tuple[str | None, Any]:
    return request.task_name, request.args[0]
