"""Reading a reply of OpenAI's protocol, as servers really send it. Chat completions and plain ones.

    reply = read(json.loads(body))      # .text, .thought, .finish, .prompt_tokens, .completion_tokens

Servers that copy the protocol leave fields out, so the official client's types (which require `id`,
`created`, `object`) would refuse good replies, and the client itself checks nothing. Here a reply counts if
it holds one message; whatever else is missing or odd is unknown. What holds no message is a failed call,
never an empty text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ske_models.engines.faults import RetryableError, Said, refusal
from ske_models.files import encodable

MOST = 10**9  # tokens; what says it has more has none that can be believed
TEXTS = {"text", "output_text"}  # types of content parts
THOUGHTS = {"thinking", "reasoning"}  # Mistral's and others'


@dataclass(frozen=True)
class Reply:
    """A completion. thought: what the server gives apart from the text. finish: its `finish_reason`.

    The tokens are None where the server does not say them, or says what cannot be.
    """

    text: str
    thought: str = ""
    finish: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def filtered(self) -> bool:
        """Whether a content filter kept the text back, or cut it."""
        return self.finish == "content_filter"

    @property
    def truncated(self) -> bool | None:
        """Whether it reached its token limit; None: the server does not say."""
        return None if self.finish is None else self.finish == "length"


def read(outputs: Any) -> Reply:
    """The only completion of a reply, the JSON of which is `outputs`. Raises as `choices`."""
    found = choices(outputs)
    # we ask for one; some servers leave its index out, or send it as text
    choice = found[0] if len(found) == 1 else next((c for c in found if c.get("index") == 0), None)
    if choice is None or choice.get("finish_reason") == "error":
        raise malformed("no completion", outputs)
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) else None
    text, thought = _written(choice, outputs, finish == "content_filter")
    usage = outputs.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    return Reply(
        encodable(text),
        encodable(thought),
        finish,
        tokens(usage.get("prompt_tokens")),
        tokens(usage.get("completion_tokens")),
        tokens(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def choices(outputs: Any) -> list[dict[str, Any]]:
    """The `choices` of a reply, at least one.

    Raises RetryableError: there is none; and what `refusal` makes of an error that is there instead.
    """
    if isinstance(outputs, dict) and outputs.get("error") and not outputs.get("choices"):
        error = outputs["error"]
        code = str(error.get("code")) if isinstance(error, dict) else ""
        if re.fullmatch("[45][0-9][0-9]", code):
            raise refusal(Said(int(code), json.dumps(outputs)))
        raise malformed("an error in the reply", outputs)
    found = outputs.get("choices") if isinstance(outputs, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(choice, dict) for choice in found):
        raise malformed("no completion", outputs)
    return found


def malformed(what: str, outputs: Any) -> RetryableError:
    """The fault of a reply that came, and may have been paid for, but holds nothing."""
    return RetryableError("malformed", f"{what} in the reply: {json.dumps(outputs)[:100]}", charged=True)


def with_thought(reply: Reply, text: str) -> str:
    """A text with the reply's thought before it, in the marks that most models use themselves.

    The closing mark is left out where the thought has reached the token limit.
    """
    if not reply.thought.strip() or text.lstrip().startswith("<think>"):
        return text
    if not text.strip() and reply.finish == "length":
        return f"<think>\n{reply.thought}"
    return f"<think>\n{reply.thought}\n</think>\n\n{text}"


def tokens(said: Any) -> int | None:
    """A number of tokens; None for whatever is not one (null, text, a fraction, below zero, 10**30)."""
    return said if isinstance(said, int) and not isinstance(said, bool) and 0 <= said <= MOST else None


def _written(choice: Mapping[str, Any], outputs: Any, filtered: bool) -> tuple[str, str]:
    """(text, thought) of a choice. Raises RetryableError if it has no message."""
    if isinstance(choice.get("text"), str):
        return choice["text"], ""
    message = choice.get("message")
    if not isinstance(message, dict):
        if filtered and message is None:
            return "", ""
        raise malformed("no message", outputs)
    # vLLM, SGLang and DeepSeek say `reasoning_content`, OpenRouter and Ollama `reasoning`; some send both
    said = [message.get(name) for name in ("reasoning_content", "reasoning")]
    thought = next((one for one in said if isinstance(one, str) and one.strip()), "")
    content = message.get("content")
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"]
    if content is None and ("content" in message or thought or filtered):
        content = ""
    if isinstance(content, str):
        return content, thought
    if not isinstance(content, list):
        raise malformed("no text", outputs)
    texts: list[str] = []
    thoughts = [thought]
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in THOUGHTS:
            thoughts.append(_joined(part.get(kind)))
        else:
            raise malformed(f"a part that is no text ({kind or type(part).__name__})", outputs)
    return "".join(texts), "".join(thoughts)


def _joined(said: Any) -> str:
    """The text of a thinking part: a text, or parts of its own (Mistral)."""
    if isinstance(said, list):
        return "".join(str(part.get("text") or "") for part in said if isinstance(part, dict))
    return said if isinstance(said, str) else ""
