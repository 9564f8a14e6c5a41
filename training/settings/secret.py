"""Secrets in a recipe: they are named, never written, so that none reaches a record, a card or an upload.

    generation:
      endpoints: ["https://$JUDGE_USER:$JUDGE_PASSWORD@host/v1"]
      args: {auth_token: $MY_TOKEN}

A `$NAME` is read from the environment when the backend is loaded, in every process of a run by itself.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import urlsplit

from ske_models.errors import UserError

# Arguments of lm-eval's backends and of the libraries below them that hold a secret, at any depth.
_SECRET = re.compile(
    r"""
      (?: ^ | _ ) (?: api_?key | access_token | auth_token | credentials? | hf_token | password | secret ) $
    | ^ (?: authorization | token | use_auth_token | headers? | extra_headers ) $
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KEY = re.compile(r"\b (?: sk-[\w-]{16,} | hf_[A-Za-z0-9]{16,} )", re.VERBOSE)  # OpenAI's, Hugging Face's
_NAME = re.compile(r"\$(\w+)|\$\{(\w+)\}")


def secret_in(name: str, value: Any) -> str | None:
    """Why an argument must not be in a recipe as it is; None if it may. The message does not show it."""
    if isinstance(value, dict) and not _SECRET.search(name):
        found = (secret_in(str(key), entry) for key, entry in value.items())
        return next((why for why in found if why), None)
    texts = _texts(value)
    hidden = _SECRET.search(name) or any(_KEY.search(text) for text in texts)
    if hidden and any(not _NAME.search(text) for text in texts):
        return f"`{name}` is a secret; write $NAME, and set the environment variable NAME"
    if any("://" in text and _has_password(text) for text in texts):
        fix = "write $NAME for it, and set the environment variable NAME"
        return f"`{name}` has a password in its address; {fix}"
    return None


def revealed(value: Any) -> Any:
    """A value with every `$NAME` from the environment, at any depth. Raises UserError if one is not set."""
    if isinstance(value, dict):
        return {key: revealed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [revealed(entry) for entry in value]
    return _NAME.sub(_from_environment, value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether an argument of that name holds a secret."""
    return bool(_SECRET.search(name))


def _from_environment(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    if name not in os.environ:
        raise UserError(f"the recipe names ${name}, but the environment variable {name} is not set; set it")
    return os.environ[name]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for entry in value.values() for text in _texts(entry)]
    if isinstance(value, list):
        return [text for entry in value for text in _texts(entry)]
    return [value] if isinstance(value, str) and value else []


def _has_password(address: str) -> bool:
    try:
        password = urlsplit(address).password
    except ValueError:
        return False
    return bool(password) and not _NAME.fullmatch(password or "")
