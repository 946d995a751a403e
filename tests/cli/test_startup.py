"""What starting costs: modules that must not be imported before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fastnet import __version__
from tests.commands import ENVIRONMENT, finish

HEAVY = ["click", "rich", "logging", "asyncio", "http.server", "tomllib", "ctypes"]


@pytest.mark.parametrize(
    "code",
    ["import fastnet", "import sys; sys.argv = ['fastnet', '--version']; from fastnet.cli import main; main()"],
    ids=["import", "version"],
)
def test_importing_fastnet_and_asking_its_version_load_nothing_heavy(code: str) -> None:
    tell = f"; import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", code + tell], env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=30
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_version_is_told() -> None:
    assert finish("--version").stdout == f"fastnet {__version__}\n"
