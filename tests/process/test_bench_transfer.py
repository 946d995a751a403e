"""The transfer benchmark still runs from end to end, and no way loses a byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.transfer", "--smoke", *options]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )


def test_every_way_is_measured_or_says_why_not(tmp_path: Path) -> None:
    file = tmp_path / "smoke.json"
    finished = bench("--json", str(file))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    cells = json.loads(file.read_text())["cells"]
    assert {cell["case"] for cell in cells} == {
        "memory-file",
        "disk-file",
        "memory-tree",
        "disk-tree",
    }
    for cell in cells:
        assert bool(cell["turns"]) != bool(cell["note"])
        assert not cell["failed"]
        assert all(turn["wall_s"] > 0 for turn in cell["turns"])
        assert cell["way"] in finished.stdout


def test_an_unknown_way_is_named() -> None:
    finished = bench("--ways", "pigeon")
    assert finished.returncode == 1
    assert "unknown: pigeon" in finished.stderr
