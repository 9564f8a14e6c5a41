"""Peer of benchmarks/peers.py: no library, but the `openai` client in an asyncio loop. The lower bound.

    python benchmarks/peers/openai_loop.py JOB.json          # in the peers' own environment

It has no log, no retries of its own, and keeps nothing: what the two steps cost a client at the least.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

from jinja2 import Template
from openai import AsyncOpenAI


async def answers(job: dict, rows: list[dict[str, str]]) -> list[str]:
    """Both steps of every row, `concurrent` rows at a time."""
    client = AsyncOpenAI(base_url=job["url"], api_key="none", timeout=600)
    room = asyncio.Semaphore(job["concurrent"])
    steps = [
        (Template(job["extract"]), job["knowledge_tokens"]),
        (Template(job["reason"]), job["answer_tokens"]),
    ]

    async def both(row: dict[str, str]) -> str:
        text = ""
        async with room:
            for template, limit in steps:
                reply = await client.chat.completions.create(
                    model=job["model"],
                    messages=[{"role": "user", "content": template.render(**row, knowledge=text)}],
                    max_tokens=limit,
                    temperature=0.0,
                )
                text = reply.choices[0].message.content or ""
        return text

    return await asyncio.gather(*map(both, rows))


def main() -> None:
    """Writes the answers, and the share of right ones."""
    job = json.loads(Path(sys.argv[1]).read_text())
    rows = [json.loads(line) for line in Path(job["items"]).read_text().splitlines()]
    texts = asyncio.run(answers(job, rows))
    found = [re.search(job["pattern"], text) for text in texts]
    right = sum(bool(match) and match[1] == row["gold"] for match, row in zip(found, rows, strict=True))
    print(f"{right} of {len(rows)}")
    by_id = {row["id"]: text for row, text in zip(rows, texts, strict=True)}
    (Path(job["folder"]) / "answers.json").write_text(json.dumps(by_id))


if __name__ == "__main__":
    main()
