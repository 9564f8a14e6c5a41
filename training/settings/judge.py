"""The section `judge` of a recipe, for a judge that is a language model behind an API.

judge: {kind: openai, model: gpt-4-0125-preview, usd_per_million: {input: 10.0, output: 30.0}}
judge: {kind: openai, model: ORG/NAME, serve: {tensor_parallel: 8}}    # which the run serves itself
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from training.domain import JudgeSettings
from training.serving.settings import Serve
from training.settings.secret import variable
from training.settings.strict import Address, AtLeastOne, Count, Text

OPENAI = "https://api.openai.com/v1"
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Usd = Annotated[float, Field(ge=0, le=1e9)]


class OpenAIJudge(JudgeSettings):
    """Any OpenAI-compatible chat endpoint. The key is read from the environment variable `key_env` only."""

    kind: Literal["openai"]
    model: Text
    base_url: Address = OPENAI
    serve: Serve | None = None  # of `model`, by servers that the run starts itself; then no base_url
    key_env: Annotated[str, AfterValidator(variable)] = "OPENAI_API_KEY"
    concurrency: AtLeastOne = 16
    timeout_s: Seconds = 120.0  # of one call
    max_retries: Count = 8
    deadline_s: Seconds | None = None  # of a whole stage
    max_tokens: AtLeastOne = 512  # of a verdict; what a model thinks before it counts, too
    temperature: Annotated[float, Field(ge=0)] = 0.0  # left out if the model takes none
    usd_per_million: dict[Literal["input", "output"], Usd] | None = None
    max_usd: Annotated[Usd, Field(gt=0)] | None = None  # of a whole run; needs usd_per_million

    @model_validator(mode="after")
    def _priced(self) -> OpenAIJudge:
        if self.max_usd is not None and set(self.usd_per_million or ()) != {"input", "output"}:
            raise ValueError("max_usd needs usd_per_million: {input: ..., output: ...}")
        if self.serve and self.base_url != OPENAI:
            raise ValueError("give `serve` (servers that the run starts) or `base_url`, one of them")
        return self
