"""The rivals benchmark still runs from end to end, and says so when a peer does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.contestant import DATAGRAM_RIVALS, STREAM_RIVALS

pytestmark = pytest.mark.native
"""The load is native, so that it does not hide the server."""

ROOT = Path(__file__).parents[2]
RIVALS = {"tcp": STREAM_RIVALS, "udp": DATAGRAM_RIVALS}


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.run", "--smoke", *options]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


def test_every_scenario_measures_every_rival_and_loses_no_byte(tmp_path: Path) -> None:
    file = tmp_path / "smoke.json"
    finished = bench("--peers", "rivals", "--json", str(file))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    document = json.loads(file.read_text())
    assert set(document["host"]) == {
        "kernel",
        "processors",
        "python",
        "compiler",
        "congestion control",
    }
    expected = sum(
        len(RIVALS[scenario["transport"]]) for scenario in document["scenarios"].values()
    )
    assert len(document["cells"]) == expected
    for cell in document["cells"]:
        assert bool(cell["turns"]) != bool(cell["note"])
        assert all(turn["requests_per_s"] > 0 and turn["cpu_us"] > 0 for turn in cell["turns"])
        assert f"{cell['row']}" in finished.stdout


def test_fastnet_itself_is_a_peer() -> None:
    finished = bench("--peers", "epoll-native,epoll-python", "--rows", "50x64")
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_an_unknown_peer_is_named() -> None:
    finished = bench("--peers", "absent")
    assert finished.returncode == 1
    assert "unknown: absent" in finished.stderr


def test_idle_connections_over_worker_processes_are_counted_and_still_echo() -> None:
    command = [
        sys.executable,
        "-m",
        "bench.idle_connections",
        "--connections",
        "700",
        "--workers",
        "2",
    ]
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert "connected             700 in" in finished.stdout
    assert "idle ones that echo   7 of 7" in finished.stdout
