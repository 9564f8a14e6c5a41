"""Any of lm-eval's backends (hf, vllm, every OpenAI-compatible server, ...) as the pipeline's engine.

Used by the lm-eval adapter, and by whatever else generates with lm-eval's model registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, CacheHook, TemplateLM
from lm_eval.api.registry import get_model
from lm_eval.models.api_models import TemplateAPI

from ske_models.errors import UserError
from ske_models.lm_eval.continuous import Continuous, SharesContexts
from ske_models.lm_eval.served import served
from ske_models.method import Message
from ske_models.records import Done, Request, Settings


class _StepHook(CacheHook):
    """lm-eval's backends tell their cache of every text the moment it is finished: we listen there."""

    def __init__(self, done: Callable[[Any, str], None]) -> None:
        super().__init__(None)
        self._done = done

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        if attr == "generate_until" and res is not None:
            self._done(req[0], res)


class LMEvalEngine:
    """lm-eval's backend as the pipeline sees it (`ske_models.records.Engine`).

    quiet: without the backend's own progress bar.
    """

    def __init__(self, inner: LM, quiet: bool = False) -> None:
        self.inner = inner
        self.quiet = quiet

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        if not chat:
            return messages[-1]["content"]
        continues = messages[-1]["role"] == "assistant"
        return self.inner.apply_chat_template(list(messages), add_generation_prompt=not continues)

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        if isinstance(self.inner, Continuous) and self.inner.suits(requests):
            return self.inner.write(requests, done, self.quiet)
        by_prompt: dict[Any, list[int]] = {}
        for index, request in enumerate(requests):
            by_prompt.setdefault(request.prompt, []).append(index)

        def finished(prompt: Any, text: str) -> None:
            if len(by_prompt[prompt]) == 1:  # else it cannot be told whose it is; it is stored at the end
                done(by_prompt[prompt][0], text)

        self.inner.set_cache_hook(_StepHook(finished))
        texts = self.inner.generate_until(
            [instance(r.origin, "generate_until", (r.prompt, dict(r.settings))) for r in requests],
            **({"disable_tqdm": True} if self.quiet else {}),
        )
        self.inner.set_cache_hook(CacheHook(None))
        return texts

    def score(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """lm-eval's `loglikelihood`, with a context of several options read once where the backend can."""
        if isinstance(self.inner, SharesContexts):
            return self.inner.score(requests)
        return self.inner.loglikelihood(list(requests))

    def count_tokens(self, text: Any) -> int | None:
        if (
            not isinstance(text, str)
            or not isinstance(self.inner, TemplateLM)
            or self.inner.tokenizer is None
        ):
            return None
        return len(self.inner.tok_encode(text, add_special_tokens=False))

    def cut_to(self, request: Request) -> int | None:
        return self.inner.cut_to(request) if isinstance(self.inner, Continuous) else None

    def sampled(self, settings: Settings) -> bool:
        return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0


def instance(origin: Instance, request_type: Any, arguments: tuple) -> Instance:
    """A request of our own on behalf of one of the harness'."""
    return Instance(request_type, origin.doc, arguments, origin.idx, metadata=origin.metadata)


def backend_class(backend: str) -> type[LM]:
    """lm-eval's class of that name. Raises UserError if a package that it needs is not installed."""
    try:
        return get_model(backend)
    except ImportError as error:
        extra = "; pip install 'ske-learn[vllm]'" if backend == "vllm" else ""
        raise UserError(f"backend={backend}: cannot be imported ({error}){extra}") from error


def load(model_class: type[LM], backend: str, args: dict[str, Any], ours: Sequence[str]) -> LM:
    """The backend with its model in it; servers as in `lm_eval_served`, vLLM as in `lm_eval_vllm`.

    Raises UserError if the model or vLLM cannot be had, an argument is unknown, or vLLM refuses its value.

    ours: the arguments that whoever calls this takes itself, to be named with an unknown one.
    """
    where = args.get("pretrained") or args.get("model")
    if issubclass(model_class, TemplateAPI):
        model_class = served(model_class)
    if backend == "vllm" and int(args.get("data_parallel_size", 1)) == 1:
        from ske_models.lm_eval.vllm import ContinuousVLLM

        model_class = ContinuousVLLM
    if backend == "hf":
        from ske_models.lm_eval.hf import ContinuousHF

        model_class = ContinuousHF
    try:
        return model_class.create_from_arg_obj(args)
    except ImportError as error:
        raise UserError(f"backend={backend}: {error}") from error
    except OSError as error:
        raise UserError(f"backend={backend}: cannot load {where}: {str(error).splitlines()[0]}") from error
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise UserError(f"backend={backend}: {error}; ours are: {', '.join(ours)}") from error
    except (ValueError, RuntimeError) as error:
        if backend != "vllm":
            raise
        from ske_models.lm_eval.vllm import refusal

        reason = refusal(error)
        if reason is None:
            raise
        raise UserError(f"backend=vllm: cannot load {where}: {reason}") from error
