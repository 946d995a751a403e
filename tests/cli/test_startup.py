"""What starting costs: modules that must not be imported before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastnet import __version__
from tests.commands import ENVIRONMENT, finish, running

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


UNUSED = [
    *("ssl", "hashlib", "_hashlib", "hmac", "secrets", "random"),  # only with --tls, a token, or another digest
    *("concurrent.futures", "logging"),  # only for large files
    *("rich", "asyncio", "subprocess", "shutil", "tempfile", "pathlib", "urllib.parse"),
    *("fastnet.transfer.raw", "fastnet.transfer.raw_send", "fastnet.transfer.raw_recv", "fastnet.transfer.tls"),
]
"""What a transfer of small files without options has no use for: loading them takes longer than sending a thousand files."""

OTHER_SIDE = {"send": "fastnet.transfer.receiver", "recv": "fastnet.transfer.sender"}

RUN = """
import json, sys
from fastnet.cli.main import run
code = run(sys.argv[2:])
print(json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]), flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize("role", ["send", "recv"])
def test_a_plain_transfer_loads_only_what_it_uses(role: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    watched = [sys.executable, "-c", RUN, json.dumps([*UNUSED, OTHER_SIDE[role]])]
    sends = ["send", str(tmp_path / "file")]
    other = sends if role == "recv" else ["recv", "--into", str(tmp_path / "inbox")]
    mine = sends if role == "send" else ["recv", "--into", str(tmp_path / "inbox")]
    with running(*other, "--listen", 0) as listener:
        command = [*watched, *mine, str(listener.endpoint())]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, listener.end(None)[0]) == (0, 0), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert (tmp_path / "inbox" / "file").read_bytes() == b"content"
