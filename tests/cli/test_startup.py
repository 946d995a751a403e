"""What starting costs: modules that must not be imported before they are needed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastnet import __version__
from tests.support.cli_process import DEADLINE_S, ENVIRONMENT, eventually, fastnet, finish, running

HEAVY = ["click", "rich", "logging", "asyncio", "http.server", "tomllib", "ctypes"]


@pytest.mark.parametrize(
    "code",
    [
        "import fastnet",
        "import sys; sys.argv = ['fastnet', '--version']; from fastnet.cli import main; main()",
    ],
    ids=["import", "version"],
)
def test_importing_fastnet_and_asking_its_version_load_nothing_heavy(code: str) -> None:
    tell = (
        f"; import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + tell],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_version_is_told() -> None:
    assert finish("--version").stdout == f"fastnet {__version__}\n"


UNUSED = [
    # only with --tls, a token, or another digest
    *("ssl", "hashlib", "_hashlib", "hmac", "secrets", "random"),
    *("concurrent.futures", "logging"),  # only for large files
    *("rich", "asyncio", "subprocess", "shutil", "tempfile", "pathlib", "urllib.parse"),
    *(
        "fastnet.apps.transfer.raw.session",
        "fastnet.apps.transfer.raw.send",
        "fastnet.apps.transfer.raw.receive",
        "fastnet.transport.tls",
    ),
]
"""What a transfer of small files without options has no use for: loading them takes longer than
sending a thousand files.
"""

OTHER_SIDE = {
    "send": "fastnet.apps.transfer.session.receiver",
    "recv": "fastnet.apps.transfer.session.sender",
}

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
        done = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=30
        )
        assert (done.returncode, listener.end(None)[0]) == (0, 0), done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert (tmp_path / "inbox" / "file").read_bytes() == b"content"


GROUPS = [[], ["dict"], ["exec"], ["chat"]]


@pytest.mark.parametrize("words", GROUPS, ids=lambda words: " ".join(["fastnet", *words]))
def test_a_command_that_needs_another_word_shows_its_help_as_lines(words: list[str]) -> None:
    done = finish(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: fastnet")
    assert "\nCommands:\n" in done.stderr
    assert "\\n" not in done.stderr


CLOSED = "cannot write to standard output: bad file descriptor"
FULL = "cannot write to standard output: no space left on device"


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["doctor"], ["exec", "key", "ada"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("output", "why"), [(">&-", CLOSED), (">/dev/full", FULL)], ids=["closed", "full"]
)
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    words: list[str], output: str, why: str
) -> None:
    if output == ">/dev/full" and not os.path.exists("/dev/full"):
        pytest.skip("this host has no /dev/full")
    done = in_shell(*words, redirection=output)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"fastnet: {why}.\n")


def test_a_server_without_standard_output_serves_all_the_same(tmp_path: Path) -> None:
    """Some service managers start programs so."""
    path = tmp_path / "echo.sock"
    server = subprocess.Popen(
        ["sh", "-c", f"exec {shlex.join(fastnet('echo', '--unix', path))} <&- >&- 2>&-"]
    )
    try:
        eventually(path.exists, "the socket of the server")
        assert finish("connect", f"unix:{path}", stdin=None, input="hello\n").stdout == "hello\n"
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("mode", [[], ["--raw"]], ids=["proven", "raw"])
def test_a_closed_standard_output_is_never_taken_for_the_connection(
    mode: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with running("send", tmp_path / "file", "--listen", 0, *mode) as sender:
        done = in_shell("recv", sender.endpoint(), *mode, "--output", "-", redirection=">&-")
        assert done.returncode == 5
        assert "cannot write standard output: bad file descriptor" in done.stderr
        code, out, _ = sender.end(None)
        assert code in (5, 6)
        assert "content" not in out


@pytest.mark.parametrize("mode", [[], ["--raw"]], ids=["proven", "raw"])
def test_a_closed_standard_input_is_sent_as_an_empty_stream(
    mode: list[str], tmp_path: Path
) -> None:
    with running("recv", "--listen", 0, *mode, "--output", tmp_path / "got") as receiver:
        done = in_shell("send", "-", receiver.endpoint(), *mode, redirection="<&-")
        assert (done.returncode, done.stderr) == (0, "")
        assert receiver.end(None)[0] == 0
    assert (tmp_path / "got").read_bytes() == b""


def in_shell(*arguments: object, redirection: str) -> subprocess.CompletedProcess[str]:
    line = f"exec {shlex.join(fastnet(*arguments))} {redirection}"
    return subprocess.run(
        ["sh", "-c", line],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
