"""`fastnet` as a real process: started, read with a deadline, and never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fastnet.endpoint import Endpoint
from fastnet.transport.resolve import unix_address

DEADLINE_S = 30.0

ROOT = Path(__file__).resolve().parents[2]

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("FASTNET_") and name != "PYTHONUNBUFFERED"
} | {"PYTHONWARNINGS": ""}
"""The environment of a user's shell, where output into a pipe or a file is buffered."""


def fastnet(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastnet", *map(str, arguments)]


def finish(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    options = {
        "env": ENVIRONMENT,
        "cwd": ROOT,
        "timeout": DEADLINE_S,
        "stdin": subprocess.DEVNULL,
    } | more
    return subprocess.run(
        fastnet(*arguments), capture_output=True, text=True, check=False, **options
    )


def eventually(true: Callable[[], Any], what: str) -> Any:
    """Wait for a condition that another process brings about; its value."""
    end_s = time.monotonic() + DEADLINE_S
    while not (value := true()):
        assert time.monotonic() < end_s, f"waited {DEADLINE_S:g} s for {what}"
        time.sleep(0.005)
    return value


class Running:
    """A serving command.

    lines: what it has said on standard output and standard error, by "out" and "err".
    """

    def __init__(self, *arguments: object, **more: Any) -> None:
        options = {"env": ENVIRONMENT, "cwd": ROOT, "stdin": subprocess.DEVNULL} | more
        self.process = subprocess.Popen(
            fastnet(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **options,
        )
        self.pid = self.process.pid
        self._files = {"out": self.process.stdout, "err": self.process.stderr}
        self._text = {"out": b"", "err": b""}

    def line(self, stream: str = "out", containing: str = "") -> str:
        """The next line of a stream that contains a text.

        Fails at the deadline, or when the stream has ended.
        """
        end_s = time.monotonic() + DEADLINE_S
        while True:
            head, newline, self._text[stream] = self._text[stream].partition(b"\n")
            if newline:
                text = head.decode()
                if containing in text:
                    return text
                continue
            self._text[stream] = head + self._read(stream, end_s - time.monotonic(), containing)

    def _read(self, stream: str, timeout_s: float, containing: str) -> bytes:
        file = self._files[stream]
        assert file is not None
        ready, _, _ = select.select([file], [], [], max(0.0, timeout_s))
        data = os.read(file.fileno(), 65536) if ready else b""
        if not data:
            self.process.kill()
            rest = self.process.communicate()
            raise AssertionError(
                f"no line with {containing!r}; it said {self._text} and then {rest}"
            )
        return data

    def event(self) -> dict[str, Any]:
        """The next event of a command with --json."""
        found: dict[str, Any] = json.loads(self.line())
        return found

    def endpoint(self) -> Endpoint:
        """Where it listens, from its next ready line."""
        return Endpoint.parse(self.line(containing="listening on ").split()[2])

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal, wait for the end.

        Returns the exit code and what was said and not read yet.
        """
        if number is not None:
            self.send(number)
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return (
            self.process.returncode,
            (self._text["out"] + out).decode(),
            (self._text["err"] + err).decode(),
        )


@contextlib.contextmanager
def running(*arguments: object, **more: Any) -> Iterator[Running]:
    """A serving command, killed at the end if it is still there."""
    command = Running(*arguments, **more)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate()


@contextlib.contextmanager
def daemon(pidfile: Path, *arguments: object, **more: Any) -> Iterator[tuple[int, str]]:
    """A daemon that writes this pidfile: its pid and what its launcher printed.

    Killed at the end if it is still there.
    """
    started = finish(*arguments, "--daemon", "--pidfile", pidfile, **more)
    assert started.returncode == 0, started.stderr
    pid = int(pidfile.read_text())
    try:
        yield pid, started.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not is_alive(pid), f"the end of {pid}")


def is_alive(pid: int) -> bool:
    """Whether a process that is not our child runs.

    One that its parent has not waited for does not.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    """Processes forked by any thread of pid."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def connect(endpoint: Endpoint) -> socket.socket:
    """A connection with a deadline on everything."""
    if endpoint.transport == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(DEADLINE_S)
        sock.connect(unix_address(endpoint.path))
        return sock
    return socket.create_connection((endpoint.host, endpoint.port), timeout=DEADLINE_S)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer's end."""
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


def read_exactly(sock: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = sock.recv(n - len(data))
        assert part, f"the peer ended after {len(data)} of {n} bytes"
        data += part
    return data


def echoes(sock: socket.socket, data: bytes) -> bool:
    """Whether what is sent comes back."""
    sock.sendall(data)
    return read_exactly(sock, len(data)) == data
