"""What every setting of a recipe has in common: its class, and the ranges of its numbers and names.

from training.settings.strict import Count, Strict
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ske_models.engines.servers import checked
from ske_models.errors import UserError
from training.settings.secret import secret_in

MANY = 10**9  # no count of this project is larger; what is, is a slip of the keyboard

Count = Annotated[int, Field(ge=0, le=MANY)]
AtLeastOne = Annotated[int, Field(gt=0, le=MANY)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy takes no larger one
Temperature = Annotated[float, Field(ge=0, le=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f\x7f]*$")]
# A name becomes part of a file's name and of a model card: no path, no markup, no hidden file, and at most
# 255 bytes with what is added to it.
Name = Annotated[str, StringConstraints(max_length=60, pattern=r"^\w[\w .+-]*$")]
TaskName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_ .:+-]*$")]


def _address(url: str) -> str:
    try:
        if why := secret_in("the address", url):
            raise ValueError(why)
        return url if "$" in url else checked("server", url)  # $NAME is filled in later (secret.py)
    except UserError:
        raise ValueError("no server's address; write one as in http://localhost:8000/v1") from None


Address = Annotated[str, AfterValidator(_address)]


class Strict(BaseModel):
    """No unknown key, no silent conversion, no infinite number, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
