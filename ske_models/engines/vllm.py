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
from vllm.sampling_params import RequestOutputKind

from ske_models.engines.room import Room, Sent
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
        room = self._room()
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
                    room.give_back(one, reply.tokens or 0)
                    for request in done(one.index, reply):
                        index = len(texts) + len(asked)
                        asked[index] = request
                        if request.step == "answer":
                            answers.append(index)
                            room.hold(index, (reply.prompt_tokens or 0) + (reply.tokens or 0))
                        else:
                            fresh.append(index)
                    bar.total = len(texts) + len(asked)
                    bar.update()
        finally:
            engine.abort_request(list(sent))  # there are some after an error or an interrupt only
        return [texts[index] for index in range(len(texts))]

    def _room(self) -> Room:
        config = self.llm.llm_engine.vllm_config
        blocks, size = config.cache_config.num_gpu_blocks, config.cache_config.block_size
        # no number of blocks: a model without a KV cache
        return Room(config.scheduler_config.max_num_seqs, blocks * size if blocks else math.inf)

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
