"""`fastnet connect` with the tools people already have at the other end.

Nc, socat and ncat.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.support.connect_peers import DEADLINE_S, client, free_port, read_until, run

EVERY_BYTE = bytes(range(256)) * 4000

SOCAT = ("socat", "-t", "20")
"""Waits 20 seconds, not half of one, for the rest after a half-close. Its address PIPE would not do
for streams: socat writes 8 KiB to a pipe that is ready for 4, and then waits for itself."""


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@contextmanager
def listening(
    *command: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    port: int = 0,
    path: Path | None = None,
):  # type: ignore[no-untyped-def]
    """A foreign server, once the kernel shows its listening socket."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, bufsize=0, **streams) as process:
        try:
            deadline = monotonic() + DEADLINE_S
            while not (path.exists() if path else is_bound(kind, port)):
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
                assert monotonic() < deadline, f"{command[0]} does not listen"
                os.sched_yield()
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def is_bound(kind: socket.SocketKind, port: int) -> bool:
    """Looks into the kernel's tables.

    A connection made to find out would be the only one that a server serves.
    """
    names = ("tcp", "tcp6") if kind == socket.SOCK_STREAM else ("udp", "udp6")
    state = "0A" if kind == socket.SOCK_STREAM else "07"
    for name in names:
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == state:
                return True
    return False


@pytest.fixture
def port() -> Iterator[int]:
    return free_port()


@needs("socat")
def test_socat_echoes_everything_over_tcp(port: int) -> None:
    with listening(*SOCAT, f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", "EXEC:cat", port=port):
        done = run("127.0.0.1", str(port), input=EVERY_BYTE)
    assert (done.returncode, done.stdout) == (0, EVERY_BYTE)


@needs("socat")
def test_socat_echoes_everything_over_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "socat.sock"
    with listening(*SOCAT, f"UNIX-LISTEN:{path}", "EXEC:cat", path=path):
        done = run(f"unix:{path}", input=EVERY_BYTE)
    assert (done.returncode, done.stdout) == (0, EVERY_BYTE)


@needs("socat")
def test_socat_echoes_datagrams() -> None:
    port = free_port(socket.SOCK_DGRAM)
    with listening(
        "socat", f"UDP-LISTEN:{port},bind=127.0.0.1", "PIPE", port=port, kind=socket.SOCK_DGRAM
    ):
        done = run("--udp", "127.0.0.1", str(port), "--timeout", "3", input=b"one\ntwo\nthree")
    assert (done.returncode, done.stdout) == (0, b"one\ntwo\nthree")


@needs("nc")
@pytest.mark.parametrize(
    "client_ends_first", [True, False], ids=["client-ends-first", "server-ends-first"]
)
def test_nc_exchanges_everything_both_ways(port: int, client_ends_first: bool) -> None:
    with listening("nc", "-N", "-l", "127.0.0.1", str(port), port=port) as nc:
        with client("127.0.0.1", str(port)) as process:
            for source, target in ((process, nc), (nc, process)):
                source.stdin.write(b"from one side")
                assert read_until(target.stdout.fileno(), b"side") == b"from one side"
            if client_ends_first:
                process.stdin.close()
                assert nc.stdout.read() == b""
                nc.stdin.close()
            else:
                nc.stdin.close()
                process.stdin.write(b"still here")
                assert read_until(nc.stdout.fileno(), b"here") == b"still here"
                process.stdin.close()
            assert process.wait(DEADLINE_S) == 0


# ncat --exec ends as soon as its client does, whatever its program has yet to send: so these
# read first and then end.


@needs("ncat")
def test_ncat_runs_a_filter_over_tcp(port: int) -> None:
    with listening("ncat", "-l", "127.0.0.1", str(port), "--exec", "/bin/cat", port=port):
        with client("127.0.0.1", str(port)) as process:
            converse(process)


@needs("ncat")
def test_ncat_runs_a_filter_over_a_socket_file(tmp_path: Path) -> None:
    path = tmp_path / "ncat.sock"
    with listening("ncat", "-l", "-U", str(path), "--exec", "/bin/cat", path=path):
        with client(f"unix:{path}") as process:
            converse(process)


def converse(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    for words in (b"hello", EVERY_BYTE[:30_000] + b"the end"):
        process.stdin.write(words)
        assert read_until(process.stdout.fileno(), words[-7:]) == words
    process.stdin.close()
    assert process.wait(DEADLINE_S) == 0
