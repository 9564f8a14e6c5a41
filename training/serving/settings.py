"""What a recipe says of servers that the run starts itself.

generation:
  serve: {data_parallel: 8, args: {dtype: bfloat16, max_model_len: 8192}}
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from training.settings.secret import is_secret, secret_in
from training.settings.strict import AtLeastOne, Strict

# Options of `vllm serve` that the run gives itself, and what to write instead.
OURS = {
    "model": "the run gives each checkpoint itself",
    "served_model_name": "it is M0, M1, ..., or the judge's model",
    "host": "servers listen on 127.0.0.1 only",
    "port": "a free one is taken",
    "uds": "servers listen on a port of 127.0.0.1",
    "data_parallel_size": "write data_parallel beside args",
    "tensor_parallel_size": "write tensor_parallel beside args",
}


def _options(args: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for an option that the run gives itself, a secret, or a number that is none."""
    named: dict[str, Any] = {}
    for given, value in args.items():
        name = given.replace("-", "_")
        if name in OURS:
            raise ValueError(f"`{given}` is set by the run itself ({OURS[name]}); leave it out")
        if is_secret(name) or secret_in(name, value):
            raise ValueError(
                f"`{given}` would be readable in the list of processes; a server has this command's "
                "environment: set a variable there, such as HF_TOKEN"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"`{given}` must be a finite number")
        if name in named:
            raise ValueError(f"`{given}` is there twice")
        named[name] = value
    return named


class Serve(Strict):
    """Servers of one model, which the run starts when it is prompted, and stops before a model is trained.

    data_parallel: copies of the model, each a server of its own; calls are shared among them.
    tensor_parallel: GPUs of each copy. args: options of `vllm serve`, as {max_model_len: 8192}.
    """

    engine: Literal["vllm"] = "vllm"
    data_parallel: AtLeastOne = 1
    tensor_parallel: AtLeastOne = 1
    args: Annotated[dict[str, Any], AfterValidator(_options)] = {}  # noqa: RUF012 (pydantic copies it)

    @property
    def gpus(self) -> int:
        """How many it needs, where there are any."""
        return self.data_parallel * self.tensor_parallel


def flags(args: dict[str, Any]) -> list[str]:
    """Options as a command line has them: {"max_model_len": 8192, "enforce_eager": True}."""
    import json

    line: list[str] = []
    for name, value in args.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            line.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            line += [f"--{flag}", *map(str, value)]
        else:
            line += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return line
