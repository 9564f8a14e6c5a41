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
from urllib.parse import parse_qsl, urlsplit

from ske_models.errors import UserError

# Arguments of lm-eval's backends and of the libraries below them that hold a secret, at any depth. The tokens
# of a text (eos_token, think_end_token) are none.
_SECRET = re.compile(
    r"""
      (?: ^ | _ ) (?: api_?key | (?: access | private | proxy | secret ) _key | auth | bearer | credentials?
                    | passw(?:or)?d | secret ) $
    | ^ (?: authorization | key | key_env | headers? | extra_headers ) $
    | (?: ^ | (?<! bos | eos | pad | unk | sep | cls | end ) (?<! mask | stop )
                (?<! start | image | audio | video ) _ ) token $
    """,
    re.VERBOSE | re.IGNORECASE,
)
_IN_QUERY = re.compile(r"code|sig|signature", re.IGNORECASE)  # of an address; besides _SECRET
# Keys of OpenAI, Hugging Face, Google, GitHub and GitLab.
_KEY = re.compile(r"\b(?:sk-[\w-]{16,}|hf_[A-Za-z0-9]{16,}|AIza[\w-]{16,}|gh[a-z]_\w{16,}|glpat-[\w-]{8,})")
_NAME = re.compile(r"\$(\w+)|\$\{(\w+)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BESIDE = re.compile(r"(?:basic|bearer|token)?[\s:]*", re.IGNORECASE)  # what a secret may have beside $NAME


def secret_in(name: str, value: Any) -> str | None:
    """Why an argument must not be in a recipe as it is; None if it may. The message does not show it."""
    if not is_secret(name) and isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else ((name, entry) for entry in value)
        found = (secret_in(str(key), entry) for key, entry in inside)
        return next((why for why in found if why), None)
    texts = _texts(value)
    if any((is_secret(name) or _KEY.search(text)) and not _is_named(text) for text in texts):
        return f"`{name}` is a secret; write $NAME, and set the environment variable NAME"
    what = next(filter(None, map(_in_address, texts)), None)
    fix = "write $NAME for it, and set the environment variable NAME"
    return f"`{name}` has a {what} in its address; {fix}" if what else None


def variable(name: str) -> str:
    """The name of an environment variable. Raises ValueError, without showing it, for what may be a key."""
    digits = sum(letter.isdigit() for letter in name)
    like_a_key = len(name) >= 20 and digits > 2 and name != name.upper()
    if not _VARIABLE.fullmatch(name) or _KEY.search(name) or like_a_key:
        raise ValueError("the name of an environment variable is needed, as in OPENAI_API_KEY, not the key")
    return name


def revealed(value: Any) -> Any:
    """A value with every `$NAME` from the environment, at any depth. Raises UserError if one is not set."""
    if isinstance(value, dict):
        return {key: revealed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [revealed(entry) for entry in value]
    return _NAME.sub(_from_environment, value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether an argument of that name holds a secret."""
    return bool(_SECRET.search(name.replace("-", "_")))


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


def _is_named(text: str) -> bool:
    """Whether it is $NAME, perhaps with a word that says how it is used."""
    return bool(_NAME.search(text) and _BESIDE.fullmatch(_NAME.sub("", text).strip()))


def _in_address(text: str) -> str | None:
    """What secret is in an address, or in one of several; None if there is none."""
    for address in re.split(r"[;,\s]+", text):
        try:
            parts = urlsplit(address) if "://" in address else urlsplit("")
            user, password = parts.username, parts.password
        except ValueError:
            continue
        if password and not _is_named(password):
            return "password"
        if user and not password and not _is_named(user):
            return "token"
        for name, value in parse_qsl(parts.query):
            if (is_secret(name) or _IN_QUERY.fullmatch(name)) and not _is_named(value):
                return "key"
    return None
