"""lm-eval's `vllm` backend, with both steps of the method in one run of the engine.

    lm_eval --model ske_explicit --model_args backend=vllm,pretrained=ORG/NAME --tasks ske_mmlu

lm-eval (0.4.13) hands vLLM a list of prompts and waits for the last of them: before each call ends the
engine runs empty, straggler by straggler, and no text is known before all are. Here a question's second step
enters the engine the moment its first one leaves it, while the prefix cache still has its prompt. What is
sent, and how it is read, stays lm-eval's (`lm_eval.models.vllm_causallms.VLLM.generate_until`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lm_eval.models.utils import maybe_truncate, postprocess_generated_text
from lm_eval.models.vllm_causallms import VLLM
from tqdm import tqdm
from vllm import RequestOutput, SamplingParams, TokensPrompt
from vllm.config import VllmConfig
from vllm.sampling_params import RequestOutputKind

from ske_models.continuous import Continuous
from ske_models.pipeline import Done, Reply, Request


@dataclass(frozen=True)
class _Sent:
    """A request in the engine. until: its stop strings. size: tokens of the prompt and the text expected."""

    index: int
    step: str
    until: list[str]
    size: float


class ContinuousVLLM(VLLM, Continuous):
    """The backend, with lm-eval's arguments but `data_parallel_size`, whose engines live for one call."""

    def write(self, requests: Sequence[Request], done: Done, quiet: bool) -> list[str]:
        engine, room = self.model.llm_engine, _Room(self.model.llm_engine.vllm_config)
        asked = list(requests)
        fresh, following = deque(range(len(asked))), deque[int]()
        sent: dict[str, _Sent] = {}  # by the engine's name of the request
        texts: dict[int, str] = {}
        try:
            with tqdm(total=len(asked), desc="Running requests", disable=quiet or self.rank != 0) as bar:
                while fresh or following or sent:
                    while (following or fresh) and room.is_left():
                        index = (following or fresh).popleft()
                        name, one = self._add(index, asked[index], room)
                        sent[name] = one
                    for output in engine.step():
                        one = sent.pop(output.request_id)  # vLLM tells of finished texts only
                        texts[one.index] = reply = self._reply(output, one.until)
                        room.give_back(one, reply)
                        for request in done(one.index, reply):
                            (following if request.step == "answer" else fresh).append(len(asked))
                            asked.append(request)
                        bar.total = len(asked)
                        bar.update()
        finally:
            engine.abort_request(list(sent))  # there are some after an error or an interrupt only
        return [texts[index] for index in range(len(asked))]

    def _add(self, index: int, request: Request, room: _Room) -> tuple[str, _Sent]:
        eos = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        settings, until, limit = self.modify_gen_kwargs(
            dict(request.settings), eos=eos, default_max_gen_toks=self.max_gen_toks
        )
        tokens, limit = maybe_truncate(
            self.tok_encode(request.prompt), limit, self.max_length, side=self.truncation_side
        )
        # stop strings may stand in a text's thinking, which `_reply` takes away first
        stop = [text for text in until if text == eos] if self.think_end_token else until
        sampling = SamplingParams(max_tokens=limit, stop=stop, **settings)
        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        name = str(next(self.model.request_counter))
        prompt = TokensPrompt(prompt_token_ids=tokens)
        self.model.llm_engine.add_request(name, prompt, sampling, lora_request=self.lora_request)
        return name, _Sent(index, request.step, until, room.take(request.step, len(tokens), limit))

    def _reply(self, output: RequestOutput, until: list[str]) -> Reply:
        completion = output.outputs[0]
        reply = Reply(postprocess_generated_text(completion.text, until, self.think_end_token))
        reply.tokens = len(completion.token_ids)
        reply.prompt_tokens = len(output.prompt_token_ids or ())
        reply.cached_tokens = output.num_cached_tokens
        reply.truncated = completion.finish_reason == "length"
        return reply


class _Room:
    """How much the engine is given at a time: what it can run at once, and its KV cache can hold.

    What waited in the engine's own queue would stand before the second steps, and take the cached blocks of
    their prompts. A text is expected to be as long as those of its step so far were in the mean.
    """

    def __init__(self, config: VllmConfig) -> None:
        cache = config.cache_config
        self.requests = config.scheduler_config.max_num_seqs
        self.tokens = float((cache.num_gpu_blocks or 0) * cache.block_size)
        self.lengths: dict[str, tuple[int, int]] = {}  # step: texts, tokens in them
        self.busy = 0

    def is_left(self) -> bool:
        """Always for one request: whether the model has room for it is vLLM's to say."""
        return not self.busy or (self.requests > 0 and self.tokens > 0)

    def take(self, step: str, prompt: int, limit: int) -> float:
        """A request goes in; its expected size in tokens."""
        texts, tokens = self.lengths.get(step, (1, limit))
        size = prompt + min(tokens / texts, limit)
        self.busy += 1
        self.requests -= 1
        self.tokens -= size
        return size

    def give_back(self, sent: _Sent, reply: Reply) -> None:
        """It is finished."""
        texts, tokens = self.lengths.get(sent.step, (0, 0))
        self.lengths[sent.step] = texts + 1, tokens + (reply.tokens or 0)
        self.busy -= 1
        self.requests += 1
        self.tokens += sent.size
