"""What servers have written is kept text by text: a killed stage asks for nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import JudgeServer
from test_synthesize import world_run, written

from ske_models.errors import UserError
from ske_models.records import Completion, Request
from training.data.journal import Journal
from training.data.windows import delete_parts
from training.stages import synthesize


def request(prompt: str, step: str = "knowledge") -> Request:
    return Request(step, prompt, {"seed": 1}, 8, "", None)


def text_of(prompt: str) -> Completion:
    text = Completion(f"about {prompt}")
    text.tokens, text.truncated = len(prompt), False
    return text


class Writer:
    """Writes what follows at once, as a server does; `dies` after so many texts."""

    def __init__(self, dies: int | None = None) -> None:
        self.wrote: list[str] = []
        self.dies = dies

    def __call__(self, requests, done):
        queue, texts = list(requests), []
        for index, one in enumerate(queue):
            if len(self.wrote) == self.dies:
                raise KeyboardInterrupt
            self.wrote.append(one.prompt)
            texts.append(text_of(one.prompt))
            queue.extend(done(index, texts[-1]))
        return texts


def generate(folder: Path, writer: Writer) -> list[str]:
    """Three questions of two steps each; the order and the indices are the pipeline's."""
    given = [request(name) for name in "abc"]
    got: dict[int, str] = {}

    def done(index, text):
        got[index] = str(text)
        if given[index].step == "answer":
            return []
        given.append(request(f"{given[index].prompt}, {text}", "answer"))
        return given[-1:]

    texts = Journal(folder, "k").generate(writer, list(given), done)
    assert [got[index] for index in range(len(given))] == texts
    assert texts == [str(text_of(one.prompt)) for one in given]
    lengths = [text.tokens for text in texts if isinstance(text, Completion)]
    assert lengths == [len(one.prompt) for one in given]
    return sorted(texts)


@pytest.mark.parametrize("dies", range(1, 7))
def test_nothing_is_written_twice(tmp_path, dies):
    whole = generate(tmp_path / "whole", Writer())
    first, second = Writer(dies if dies < 6 else None), Writer()
    if dies < 6:
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "killed", first)
    else:
        generate(tmp_path / "killed", first)
    [file] = (tmp_path / "killed").glob("served.parts-k/*")
    file.write_bytes(file.read_bytes() + b'{"key": "cut off by a ki')
    assert generate(tmp_path / "killed", second) == whole
    assert len(first.wrote) + len(second.wrote) == 6
    assert not set(first.wrote) & set(second.wrote)
    assert generate(tmp_path / "killed", Writer(dies=0)) == whole


def test_a_text_that_was_filtered_is_requested_again(tmp_path):
    def filtered(requests, done):
        text = Completion("")
        text.filtered = True
        done(0, text)
        return [text]

    journal = Journal(tmp_path, "k")
    journal.generate(filtered, [request("a")], lambda *_: [])
    writer = Writer()
    Journal(tmp_path, "k").generate(writer, [request("a")], lambda *_: [])
    assert writer.wrote == ["a"]


def test_a_stage_whose_server_fails_asks_for_the_rest(tmp_path):
    def run(name: str, url: str):
        served = {"backend": "local-chat-completions", "endpoints": [url]}
        args = {"max_retries": 0, "max_wait": 1, "num_concurrent": 2}
        return world_run(tmp_path / name, **served, args=args)

    with JudgeServer(usage=False) as server:
        whole = run("whole", server.base_url)
        counts = synthesize.run(whole, 1)
        needed = len(server.calls)
    with JudgeServer(lambda call: "ok" if len(server.calls) < 15 else "status 400", usage=False) as server:
        killed = run("killed", server.base_url)
        with pytest.raises(UserError, match="the same command goes on"):
            synthesize.run(killed, 1)
        kept = sum(server.answered.values())
    with JudgeServer(usage=False) as server:
        other = run("killed2", server.base_url)  # the same questions, and the address of this server
        (killed.round(1) / "written.jsonl").unlink(missing_ok=True)
        killed.round(1).rename(tmp_path / "parts")
        other.round(1).rename(tmp_path / "unused")
        (tmp_path / "parts").rename(other.round(1))
        assert synthesize.run(other, 1) == counts
        assert 5 < len(server.calls) <= needed - kept + 2
    assert written(other) == written(whole)
    assert list(other.round(1).glob("served.parts-*"))
    delete_parts(other.round(1))
    assert not list(other.round(1).glob("*.parts-*"))
