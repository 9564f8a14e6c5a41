"""What benchmarks/turns.py makes of the requests that a server has noted.

pytest -q tests/core/test_turns.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.turns import _seen, _sent

JOB = {
    "extract": "{{ question }}\nWrite knowledge.",
    "reason": "{{ question }}\n{{ knowledge }}\n{{ ending }}",
}


def note(prompt: str, text: str, came: float, went: float, limit: int = 8) -> dict[str, Any]:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}}
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_completion_tokens": limit,
        "temperature": 0,
    }
    reply = {"choices": [{"message": {"content": text}}], "usage": usage}
    return {"came": came, "went": went, "status": 200, "body": json.dumps(body), "reply": json.dumps(reply)}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    rows = [{"id": str(n), "question": f"Q{n}", "ending": "End."} for n in range(2)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return JOB | {"items": str(tmp_path / "items.jsonl"), "knowledge_tokens": 8, "answer_tokens": 8}


def test_requests_count_where_they_are_to_the_letter(job: dict[str, Any]) -> None:
    first = [note(f"Q{n}\nWrite knowledge.", f"K{n} ", 0, 1) for n in range(2)]
    second = [note(f"Q{n}\nK{n} \nEnd.", "A", 1, 2) for n in range(2)]
    assert _sent([*first, *second], job) == {"sent": 4, "step1": 2, "step2": 2}
    stripped = note("Q1\nK1\nEnd.", "A", 1, 2)
    assert _sent([*first, second[0], stripped], job) == {"sent": 4, "step1": 2, "step2": 1}
    longer = note("Q1\nWrite knowledge.", "K1 ", 0, 1, limit=9)
    assert _sent([first[0], longer, *second], job) == {"sent": 4, "step1": 1, "step2": 1}


def test_time_without_a_request_is_not_generating() -> None:
    notes = [note("a", "", 10, 12), note("b", "", 11, 13), note("c", "", 15, 16)]
    assert _seen(notes, began=7) == {
        "before": 3,
        "generating": 4,  # 10 to 13, 15 to 16
        "flight": 5 / 4,
        "prompt_tokens": 30,
        "cached_tokens": 18,
        "output_tokens": 12,
    }
