"""The demo as `make demo` runs it, on the first questions only."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_demo_shows_the_table_and_items_and_can_be_given_again(tmp_path):
    command = [sys.executable, "-m", "ske_tasks.world.demo", "--limit", "60", "--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("$ lm_eval --model ske_explicit") == 3
    [folder] = tmp_path.iterdir()
    [total] = re.findall(r"│ all +│ +60 │(.*)", first.stdout)
    shown = [float(mean) for mean in re.findall(r"([\d.]+) \[", total)]
    for method, percent in zip(("direct", "cot", "explicit"), shown, strict=True):
        [samples] = (folder / method).rglob("samples_*.jsonl")
        hits = [json.loads(line)["acc"] for line in samples.read_text().splitlines()]
        assert percent == pytest.approx(100 * sum(hits) / 60, abs=0.05)
    assert re.search(r"explicit - cot, multi-hop.* points", first.stdout)
    for word in ("truth:", "direct:", "cot:", "knowledge:", "explicit:"):
        assert word in first.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"│ seconds +│ +│( +all stored │){3}", again.stdout)
    timing = re.compile(r"│ seconds.*")
    assert timing.sub("", again.stdout) == timing.sub("", first.stdout)
