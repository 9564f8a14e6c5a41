"""The table by subset, and of the knowledge, of a finished run."""

from __future__ import annotations

import json

from ske_tasks.six.subsets import samples


def test_a_line_is_what_json_says_not_what_unicode_does(tmp_path):
    """MMLU's management/test/6986 holds U+2028, which lm-eval writes as it is."""
    rows = [{"doc": {"ske_question": f"a{end}b", "subset": "s"}} for end in "\u2028\u2029\u0085"]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "samples_ske_mmlu_2026-01-01T00-00-00.000001.jsonl").write_text(text, encoding="utf-8")
    assert samples(tmp_path) == {"ske_mmlu": rows}
