"""One run of vLLM's engine over requests that come while it runs. No harness is known here.

    texts = VLLMRun(llm, prepare, cut).write(requests, done, bar)     # as the pipeline's Engine.generate

vLLM's `LLM.generate` takes a list of prompts and waits for the last of them: before each call ends the engine
runs empty, straggler by straggler, and no text is known before all are. Here second steps enter the engine
while first ones still run, and before the prefix cache would lose their prompts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm
from vllm import LLM, RequestOutput, SamplingParams, TokensPrompt
from vllm.config import VllmConfig
from vllm.sampling_params import RequestOutputKind

from ske_models.records import Completion, Done, Request


@dataclass(frozen=True)
class VLLMRun:
    """How requests are sent and read.

    prepare: a request's prompt as tokens, and its sampling parameters.
    cut: what is kept of the text of a request.
    lora: a LoRARequest, or None.
    """

    llm: LLM
    prepare: Callable[[Request], tuple[list[int], SamplingParams]]
    cut: Callable[[Request, str], str]
    lora: Any = None

    def write(self, requests: Sequence[Request], done: Done, bar: tqdm) -> list[str]:
        """As `ske_models.records.Engine.generate`.

        First steps go first, so that the run does not end in a few questions with both steps before them; but
        only while the cache holds the prompts of the second steps that wait meanwhile.
        """
        engine = self.llm.llm_engine
        room = Room(engine.vllm_config)
        asked = dict(enumerate(requests))  # what is not finished
        fresh, answers = deque(asked), deque[int]()
        sent: dict[str, Sent] = {}  # by the engine's name of the request
        texts: dict[int, str] = {}
        bar.total = len(asked)
        try:
            while fresh or answers or sent:
                while (answers or fresh) and room.is_left():
                    first = fresh and (not answers or room.can_hold())
                    index = fresh.popleft() if first else answers.popleft()
                    room.release(index)
                    tokens, sampling = self.prepare(asked[index])
                    name = self._add(tokens, sampling)
                    step = asked[index].step
                    sent[name] = Sent(index, step, room.take(step, len(tokens), sampling.max_tokens or 0))
                for output in engine.step():
                    one = sent.pop(output.request_id)  # only finished texts are told of
                    texts[one.index] = reply = self._reply(asked.pop(one.index), output)
                    room.give_back(one, reply)
                    for request in done(one.index, reply):
                        index = len(texts) + len(asked)
                        asked[index] = request
                        if request.step == "answer":
                            answers.append(index)
                            room.hold(index, reply)
                        else:
                            fresh.append(index)
                    bar.total = len(texts) + len(asked)
                    bar.update()
        finally:
            engine.abort_request(list(sent))  # there are some after an error or an interrupt only
        return [texts[index] for index in range(len(texts))]

    def _add(self, tokens: list[int], sampling: SamplingParams) -> str:
        sampling.output_kind = RequestOutputKind.FINAL_ONLY
        name = str(next(self.llm.request_counter))
        prompt = TokensPrompt(prompt_token_ids=tokens)
        self.llm.llm_engine.add_request(name, prompt, sampling, lora_request=self.lora)
        return name

    def _reply(self, request: Request, output: RequestOutput) -> Completion:
        completion = output.outputs[0]
        reply = Completion(self.cut(request, completion.text))
        reply.tokens = len(completion.token_ids)
        reply.prompt_tokens = len(output.prompt_token_ids or ())
        reply.cached_tokens = output.num_cached_tokens
        reply.truncated = completion.finish_reason == "length"
        reply.looped = completion.finish_reason == "repetition"
        return reply


@dataclass(frozen=True)
class Sent:
    """A request in the engine. size: tokens of its prompt, and of its text as expected."""

    index: int
    step: str
    size: float


class Room:
    """How much the engine is given at a time: what it can run at once, and its KV cache can hold.

    What waited in the engine's own queue would stand before the second steps, and take the cached blocks of
    their prompts. A text is expected to be as long as those of its step so far were in the mean.

    tokens: room in the KV cache beside what runs. held: tokens that a second step shall find there, by index.
    """

    def __init__(self, config: VllmConfig) -> None:
        cache = config.cache_config
        self.requests = config.scheduler_config.max_num_seqs
        # no number of blocks: a model without a KV cache
        self.tokens = float(cache.num_gpu_blocks * cache.block_size) if cache.num_gpu_blocks else math.inf
        self.lengths: dict[str, tuple[int, int]] = {}  # step: texts, tokens in them
        self.busy = 0
        self.held: dict[int, int] = {}
        self.holds = 0

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

    def can_hold(self) -> bool:
        """Whether what waits for its second step stays in the cache if something else goes in now."""
        return self.tokens > self.holds

    def hold(self, index: int, reply: Completion) -> None:
        """A request waits that continues what was just written."""
        self.held[index] = (reply.prompt_tokens or 0) + (reply.tokens or 0)
        self.holds += self.held[index]

    def release(self, index: int) -> None:
        """It waits no longer; nothing happens for a first step."""
        self.holds -= self.held.pop(index, 0)

    def give_back(self, sent: Sent, reply: Completion) -> None:
        """It is finished."""
        texts, tokens = self.lengths.get(sent.step, (0, 0))
        self.lengths[sent.step] = texts + 1, tokens + (reply.tokens or 0)
        self.busy -= 1
        self.requests += 1
        self.tokens += sent.size
