"""Keys that people give as arguments, so that none reaches a log, a result or a store.

from ske_models.secrets import masked
masked({"token": "hf_abc", "base_url": "http://me:pw@host/v1"})
# {"token": "<hidden>", "base_url": "http://<hidden>@host/v1"}
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "<hidden>"
# Arguments of lm-eval's, OpenCompass' and OpenAI's models whose values are keys, or hold one.
NAMES = frozenset(
    "api_key auth_token authorization header headers hf_token key openai_api_key org password proxy_key "
    "secret token use_auth_token".split()
)

_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")  # http://USER:PASSWORD@host
_NAME = "|".join(sorted(NAMES)).replace("_", "[_-]")
_ASSIGNED = re.compile(
    rf"""
    (?P<name>(?:\b|(?<=[?&])[\w-]{{1,40}}[_-])(?:{_NAME}))  # token; of an address, ?access_token, too
    (?P<is>['"]? \s{{0,9}} [=:] \s{{0,9}})
    (?: \{{ [^{{}}]* \}}          # header={{'Authorization': 'Bearer abc'}}
      | '[^']*' | "[^"]*"         # 'token': 'abc'
      | [^\s,;)}}\]]+             # token=abc
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)


def masked(value: Any) -> Any:
    """A copy of arguments (mappings, lists, text such as "token=abc,base_url=...") without the keys in them.

    False, True and None say whether a key is to be looked up, and stay.
    """
    if isinstance(value, dict):
        return {name: _masked_if_secret(name, inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(masked(inner) for inner in value)
    if isinstance(value, str):
        return _ASSIGNED.sub(rf"\g<name>\g<is>{HIDDEN}", _USER.sub(HIDDEN, value))
    return value


def _masked_if_secret(name: Any, value: Any) -> Any:
    if _secret(name) and value is not None and not isinstance(value, bool):
        return HIDDEN
    return masked(value)


def _secret(name: Any) -> bool:
    return str(name).lower().replace("-", "_") in NAMES


def is_secret(name: str) -> bool:
    """Whether what an address asks by that name ("access_token", "key") is a key."""
    return _ASSIGNED.search(f"?{name}=x") is not None


class Secret(str):
    """A key that is not shown where its holder is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


def hide(args: dict[str, Any]) -> None:
    """Makes the keys in a mapping print as `<hidden>`, for whoever prints it later. They still work."""
    for name, value in args.items():
        args[name] = _hidden(value, _secret(name))


def _hidden(value: Any, secret: bool) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(inner, secret or _secret(name)) for name, inner in value.items()}
    if isinstance(value, str) and (secret or masked(value) != value):
        return Secret(value)
    return value
