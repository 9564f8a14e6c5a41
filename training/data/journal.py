"""What servers have written of a stage that is not done yet: a text per line, the moment it is finished.

    journal = Journal(folder.round(2), key)
    texts = journal.generate(engine.generate, requests, done)

So a killed stage generates nothing twice. Texts that a model writes in this process are kept by whole windows
only (`windows.py`): their last digits depend on what else is in the batch. A server puts its batches together
as calls come, so its texts are independent of the windows, and each can be kept by itself, sampled ones too:
their random numbers follow from the `seed` in their settings.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ske_models.files import parse_jsonl
from ske_models.records import Completion, Done, Request
from ske_models.store import step_key

FIELDS = ("tokens", "prompt_tokens", "cached_tokens", "truncated", "prompt_cut")


class Journal:
    """The texts of one checkpoint in one round. key: what they follow from, besides prompt and settings.

    Several engines may use it. `windows.delete_parts` deletes it when a stage is done.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"served.parts-{key}" / "texts.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.is_file():
            whole = self.path.read_bytes().rpartition(b"\n")[0]  # a kill may have cut the last line
            self.path.write_bytes(whole + b"\n" if whole else b"")
            self.known = {row["key"]: row for row in parse_jsonl(whole.decode(), self.path)}

    def generate(
        self,
        write: Callable[[Sequence[Request], Done], list[str]],
        requests: Sequence[Request],
        done: Done,
    ) -> list[str]:
        """As `ske_models.records.Engine.generate`: the texts that are known, and by `write` the others."""
        texts: list[str] = []
        written: list[int] = []  # by the index that `write` knows: the index of the same request here

        def new(given: Sequence[Request]) -> list[Request]:
            """Those of `given`, and of what follows them, that are not known."""
            waiting, unknown = deque(given), []
            while waiting:
                request = waiting.popleft()
                index, known = len(texts), self._get(request)
                texts.append("" if known is None else known)
                if known is None:
                    written.append(index)
                    unknown.append(request)
                else:
                    waiting.extend(done(index, known))
            return unknown

        first = new(requests)
        every = list(first)

        def finished(index: int, text: str) -> list[Request]:
            texts[written[index]] = text
            self._put(every[index], text)
            following = new(done(written[index], text))
            every.extend(following)
            return following

        if first:
            for index, text in enumerate(write(first, finished)):
                texts[written[index]] = text
        return texts

    def _get(self, request: Request) -> Completion | None:
        row = self.known.get(_key(request))
        if row is None:
            return None
        text = Completion(row["text"])
        for name in FIELDS:
            setattr(text, name, row[name])
        return text

    def _put(self, request: Request, text: str) -> None:
        if not isinstance(text, Completion) or text.filtered:
            return
        row = {"key": _key(request), "text": str(text)} | {name: getattr(text, name) for name in FIELDS}
        with self.lock, self.path.open("ab") as file:
            file.write(json.dumps(row).encode() + b"\n")


def _key(request: Request) -> str:
    return step_key(request.step, request.prompt, request.settings)
