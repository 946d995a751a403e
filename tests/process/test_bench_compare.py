"""The comparison of two builds runs from end to end and reports every unit it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.native
def test_a_build_compared_with_itself_has_a_ratio_for_every_unit(tmp_path: Path) -> None:
    out = tmp_path / "compare.json"
    rows = ["--rows", "epoll-64,round-trip,file", "--smoke", "--json", str(out)]
    command = [sys.executable, "-m", "bench.compare", sys.executable, sys.executable, *rows]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(out.read_text())["rounds"]
    assert set(rounds) == {"epoll-64 CPU us", "round-trip p50 us", "file wall s", "file CPU s"}
    assert all(turn["old"] > 0 and turn["new"] > 0 for turns in rounds.values() for turn in turns)
