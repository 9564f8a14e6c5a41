"""Do all backends give the answers of transformers, at temperature 0 and in fp32?

    python benchmarks/backends.py world --save                      # TinyWorld, the embedded model
    HF_ENDPOINT=... python benchmarks/backends.py six --save        # the real benchmarks, a random model

Asks by `explicit`: in this process with backend=hf and backend=vllm, and over `transformers serve` and
`vllm serve`, which it starts. For every text that is not hf's it looks at the place where the two part: how
far apart are the logits of their tokens there?
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.report import VLLM, publish
from benchmarks.toy import toy
from ske_models import embedded
from ske_models.lm_eval.model import SKEExplicitLM
from ske_models.method import Message
from ske_models.records import Done, Engine, Request, Settings

BIN = Path(sys.executable).parent
TIE = (
    1e-3  # two logits that are closer are taken in either order: fp32 sums differ by the order of their terms
)
Text = tuple[str, str, int]  # step, task, doc_id


@dataclass(frozen=True)
class Setting:
    """A model and its questions. `limit`: of each task. `tokens`: limit of both steps. `room`: positions."""

    name: str
    model: Path
    prompts: str
    tasks: tuple[str, ...]
    limit: int
    tokens: int
    room: int


class Recorder:
    """An engine that keeps what it was asked and what it wrote."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.written: dict[Text, tuple[Any, str]] = {}  # prompt and text

    def render(self, messages: Sequence[Message], chat: bool) -> Any:
        return self.engine.render(messages, chat)

    def count_tokens(self, text: Any) -> int | None:
        return self.engine.count_tokens(text)

    def cut_to(self, request: Request) -> int | None:
        return self.engine.cut_to(request)

    def sampled(self, settings: Settings) -> bool:
        return self.engine.sampled(settings)

    def generate(self, requests: Sequence[Request], done: Done) -> list[str]:
        asked = list(requests)

        def note(index: int, text: str) -> Sequence[Request]:
            new = done(index, text)
            asked.extend(new)
            return new

        texts = self.engine.generate(requests, note)
        for request, text in zip(asked, texts, strict=False):
            key = request.step, request.origin.task_name, request.origin.doc_id
            self.written[key] = request.prompt, str(text)
        return texts


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """A server of the OpenAI API, started with `command` and a port; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                if process.poll() is not None:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} ended: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def ask(setting: Setting, **args: Any) -> dict[Text, tuple[Any, str]]:
    """What a backend is asked and writes in both steps."""
    print(f"{setting.name}: {args}", file=sys.stderr)
    model = SKEExplicitLM(prompts=setting.prompts, max_knowledge_toks=setting.tokens, store="none", **args)
    model.pipeline.engine = recorder = Recorder(model.pipeline.engine)
    lm_eval.simple_evaluate(
        model=model,
        tasks=list(setting.tasks),
        limit=setting.limit,
        apply_chat_template=True,
        bootstrap_iters=0,
        gen_kwargs={"max_gen_toks": setting.tokens},
    )
    return recorder.written


def runs(setting: Setting) -> Iterator[tuple[str, dict[Text, tuple[Any, str]]]]:
    """Each backend's name and texts, hf's first."""
    model, room = str(setting.model), {"max_length": setting.room}
    yield "hf", ask(setting, pretrained=model, dtype="float32", device="cpu", batch_size=32, **room)
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": setting.room}
    yield "vllm", ask(setting, backend="vllm", pretrained=model, **engine)
    command = (str(BIN / "transformers"), "serve", model, "--device", "cpu", "--dtype", "float32")
    with serving(*command) as url:
        served: dict[str, Any] = {"model": model, "base_url": url}
        yield (
            "local-chat-completions, transformers serve",
            ask(setting, backend="local-chat-completions", **served),
        )
        served |= {"tokenized_requests": False}  # it takes no token ids
        yield (
            "local-completions, transformers serve",
            ask(setting, backend="local-completions", **served, **room),
        )
    flags = ("--dtype", "float32", "--enforce-eager", "--max-model-len", str(setting.room))
    with serving(str(BIN / "vllm"), "serve", model, *flags) as url:
        served = {"model": model, "base_url": url}
        yield "local-chat-completions, vllm serve", ask(setting, backend="local-chat-completions", **served)
        yield "local-completions, vllm serve", ask(setting, backend="local-completions", **served, **room)


class Judge:
    """Says why a text is not the one that hf wrote."""

    def __init__(self, model: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

    def why(self, prompt: str, one: str, other: str) -> tuple[str, str]:
        """(kind of difference, what was found), for two texts after the same prompt."""
        start, *texts = (
            self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt, one, other)
        )
        # a text that ended before its limit ended in this token
        ids, theirs = ([*text, self.tokenizer.eos_token_id] for text in texts)
        pairs = enumerate(zip(ids, theirs, strict=False))
        place = next((i for i, (a, b) in pairs if a != b), None)
        if place is None:
            return "other", f"the same tokens, read as {one!r} and {other!r}"
        if "\ufffd" in (one + other):
            return "partial character", f"after {place} tokens"
        with torch.inference_mode():
            logits = self.model(torch.tensor([start + ids[:place]])).logits[0, -1]
        apart = (logits[ids[place]] - logits[theirs[place]]).item()
        tokens = " and ".join(repr(self.tokenizer.decode(t[place])) for t in (ids, theirs))
        said = f"after {place} tokens: {tokens}, whose logits are {apart:.1e} apart"
        return ("tie" if abs(apart) < TIE else "other"), said


def compare(
    name: str, hf: dict[Text, tuple[Any, str]], theirs: dict[Text, tuple[Any, str]], judge: Judge
) -> tuple[list[str], list[str]]:
    """A row of the table, and a line for each text that is not hf's."""
    kinds, lines = Counter[str](), []
    texts = {key: (hf[key][1], text) for key, (_, text) in theirs.items() if key in hf}
    unlike = {key for key, (one, other) in texts.items() if one != other}
    spaced = {key for key in unlike if texts[key][0].strip() == texts[key][1].strip()}
    for key in sorted(unlike - spaced):
        step, *item = key
        if step == "answer" and ("knowledge", *item) in unlike:
            kinds["follows a space" if ("knowledge", *item) in spaced else "follows"] += 1
            continue
        kind, said = judge.why(hf[key][0], *texts[key])
        kinds[kind] += 1
        lines.append(f"{name}, {item[0]} {item[1]}, {step}: {kind}, {said}")
    items = {key[1:] for key in hf}
    same, alike = (len(items - {key[1:] for key in keys}) for keys in (unlike, unlike - spaced))
    shown = ("tie", "follows", "follows a space", "partial character", "other")
    return [name, f"{len(items)}", f"{same}", f"{alike}", *(str(kinds[kind]) for kind in shown)], lines


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare the answers of all backends with those of hf.")
    parser.add_argument("questions", choices=("world", "six"))
    parser.add_argument("--items", type=int, default=204)
    parser.add_argument("--toy", type=Path, default=Path(tempfile.gettempdir()) / "ske-toy")
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    # vLLM for CPU, within this process: no other one to be started for it
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    if args.questions == "world":
        setting = Setting("world", embedded.path(), "world", ("ske_world_dev",), args.items, 64, 512)
    else:
        six = tuple(f"ske_quick_{name}" for name in ("mmlu", "agieval", "arc_e", "arc_c", "bbh", "nq"))
        setting = Setting("six", toy(args.toy), "default", six, args.items // 6, 32, 4096)
    rows, notes = [], []
    (_, hf), *others = runs(setting)
    judge = Judge(setting.model)
    for name, theirs in others:
        row, lines = compare(name, hf, theirs, judge)
        rows.append(row)
        notes += lines
    publish(
        f"backends_{args.questions}",
        "Do all backends give the answers of transformers, at temperature 0 and in fp32?",
        f"python benchmarks/backends.py {args.questions} --items {args.items} --save",
        [
            "backend",
            "items",
            "same",
            "but for outer spaces",
            "ties",
            "follow",
            "follow a space",
            "partial",
            "other",
        ],
        rows,
        [
            "same: both steps' texts are hf's to the letter; but for outer spaces: as many are with those "
            "taken away. The rest are texts, each of a kind: ties part where two logits are less than "
            f"{TIE} apart; answers that follow another knowledge, or one with a space before it (so another "
            "prompt); partial ones end within a character.",
            *notes,
        ],
        ["lm-eval", "transformers", "torch", VLLM],
        args.save,
    )


if __name__ == "__main__":
    main()
