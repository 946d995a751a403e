"""The benchmark of the dictionary runs from end to end and finds every answer right."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.native


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_every_server_answers_every_question_rightly() -> None:
    command = [sys.executable, "-m", "bench.dictionary", "--smoke"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("native", "handler", "python"):
        assert any(
            line.startswith(name) and line.split()[-2:] == ["0", "0"]
            for line in done.stdout.splitlines()
        )
