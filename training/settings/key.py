"""The section `judge` of a recipe whose judge is an answer key (training/judges/key.py).

judge: {kind: key, samples: 4}
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from training.domain import JudgeSettings
from training.settings.strict import AtLeastOne


class KeyJudge(JudgeSettings):
    """The answer key, for questions from sources with an `answer`."""

    kind: Literal["key"]
    samples: AtLeastOne = 4  # answers with each knowledge, whose share of right ones is its score
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.7  # of these answers
