"""Raw transfers with nc, socat, ncat and textbook programs, in all four directions.

fastnet listens and sends       fastnet connects and receives
fastnet connects and sends      fastnet listens and receives
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.interop.test_connect import listening, needs
from tests.support.cli_process import finish, running
from tests.support.connect_peers import free_port

SIZES = (0, 1, 29, 30, 31, 1_000_003)
LARGE = 384 * 1024 * 1024
HUGE = 5 * 1024 * 1024 * 1024 + 17
TIMEOUT_S = 1500.0

Ways = dict[str, Callable[[int, Path], list[str]]]


def shell(line: str) -> list[str]:
    return ["sh", "-c", line]


SENDS_BY_CONNECTING: Ways = {
    "nc": lambda port, file: shell(f"nc -N 127.0.0.1 {port} < '{file}'"),
    "ncat": lambda port, file: shell(f"ncat --send-only 127.0.0.1 {port} < '{file}'"),
    "socat": lambda port, file: ["socat", "-u", f"FILE:{file}", f"TCP:127.0.0.1:{port}"],
}
RECEIVES_BY_CONNECTING: Ways = {
    "nc": lambda port, file: shell(f"nc -d 127.0.0.1 {port} > '{file}'"),
    "ncat": lambda port, file: shell(f"ncat --recv-only 127.0.0.1 {port} > '{file}'"),
    "socat": lambda port, file: ["socat", "-u", f"TCP:127.0.0.1:{port}", f"CREATE:{file}"],
}
SENDS_BY_LISTENING: Ways = {
    "nc": lambda port, file: shell(f"exec nc -N -l 127.0.0.1 {port} < '{file}'"),
    "ncat": lambda port, file: shell(f"exec ncat --send-only -l 127.0.0.1 {port} < '{file}'"),
    "socat": lambda port, file: [
        "socat",
        "-u",
        f"FILE:{file}",
        f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr",
    ],
}
RECEIVES_BY_LISTENING: Ways = {
    "nc": lambda port, file: shell(f"exec nc -d -l 127.0.0.1 {port} > '{file}'"),
    "ncat": lambda port, file: shell(f"exec ncat --recv-only -l 127.0.0.1 {port} > '{file}'"),
    "socat": lambda port, file: [
        "socat",
        "-u",
        f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr",
        f"CREATE:{file}",
    ],
}

tools = pytest.mark.parametrize(
    "tool", [pytest.param(tool, marks=needs(tool)) for tool in SENDS_BY_CONNECTING]
)
sizes = pytest.mark.parametrize("size", SIZES, ids="{}B".format)


@pytest.fixture(scope="session")
def textbook(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The C program with the 30-byte buffers."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = tmp_path_factory.mktemp("textbook") / "textbook_file"
    subprocess.run(
        [compiler, "-o", str(binary), str(Path(__file__).with_name("textbook_file.c"))], check=True
    )
    return str(binary)


@contextmanager
def sample(folder: Path, size: int) -> Iterator[tuple[Path, Path]]:
    """A file to send, sparse where it is large, and a place to receive it; both are removed."""
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        noise = os.urandom(min(size, 1_000_003))
        file.write(noise)
        if size > len(noise):
            file.truncate(size)
            file.seek(size - len(noise))
            file.write(noise)
    try:
        yield source, target
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def same(source: Path, target: Path) -> bool:
    return filecmp.cmp(source, target, shallow=False)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def fastnet_listens_and_sends(tool: str, source: Path, target: Path) -> None:
    with running("send", source, "--listen", 0, "--raw") as command:
        done = run(RECEIVES_BY_CONNECTING[tool](command.endpoint().port, target))
        assert done.returncode == 0, done.stderr
        assert command.process.wait(TIMEOUT_S) == 0, command.end(None)


def fastnet_listens_and_receives(tool: str, source: Path, target: Path) -> None:
    with running("recv", "--listen", 0, "--raw", "--output", target) as command:
        done = run(SENDS_BY_CONNECTING[tool](command.endpoint().port, source))
        assert done.returncode == 0, done.stderr
        assert command.process.wait(TIMEOUT_S) == 0, command.end(None)


def fastnet_connects_and_sends(tool: str, source: Path, target: Path) -> None:
    port = free_port()
    with listening(*RECEIVES_BY_LISTENING[tool](port, target), port=port) as process:
        done = finish("send", source, f"127.0.0.1:{port}", "--raw", timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        assert process.wait(TIMEOUT_S) == 0


def fastnet_connects_and_receives(tool: str, source: Path, target: Path) -> None:
    port = free_port()
    with listening(*SENDS_BY_LISTENING[tool](port, source), port=port) as process:
        done = finish("recv", f"127.0.0.1:{port}", "--raw", "--output", target, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        process.stdin.close()
        assert process.wait(TIMEOUT_S) == 0


DIRECTIONS = (
    fastnet_listens_and_sends,
    fastnet_listens_and_receives,
    fastnet_connects_and_sends,
    fastnet_connects_and_receives,
)
directions = pytest.mark.parametrize("direction", DIRECTIONS, ids=lambda each: each.__name__)


@tools
@directions
@sizes
def test_every_byte_arrives(direction, tool, size, tmp_path) -> None:
    with sample(tmp_path, size) as (source, target):
        direction(tool, source, target)
        assert same(source, target)


@directions
@pytest.mark.parametrize("tool", [pytest.param("socat", marks=needs("socat"))])
def test_every_byte_of_a_large_file_arrives(direction, tool, tmp_path) -> None:
    with sample(tmp_path, LARGE) as (source, target):
        direction(tool, source, target)
        assert same(source, target)


@pytest.mark.soak
@directions
@tools
def test_every_byte_of_a_file_beyond_32_bits_arrives(direction, tool, tmp_path) -> None:
    with sample(tmp_path, HUGE) as (source, target):
        direction(tool, source, target)
        assert same(source, target)


@sizes
def test_a_textbook_client_gets_the_file_and_its_thanks_are_shown(textbook, size, tmp_path) -> None:
    with (
        sample(tmp_path, size) as (source, target),
        running("send", source, "--listen", 0, "--raw") as command,
    ):
        done = run([textbook, "recv", "connect", str(command.endpoint().port), str(target)])
        assert done.returncode == 0
        code, out, err = command.end(None)
        assert code == 0, err
        assert same(source, target)
        assert "message from client: Thank you\n" in out


@sizes
def test_a_textbook_client_sends_the_file_and_reads_our_message(textbook, size, tmp_path) -> None:
    with sample(tmp_path, size) as (source, target):
        with running(
            "recv", "--listen", 0, "--raw", "--output", target, "--thanks", "Thank you"
        ) as command:
            done = run([textbook, "send", "connect", str(command.endpoint().port), str(source)])
            assert (done.returncode, done.stdout) == (0, "Thank you")
            assert command.end(None)[0] == 0
        assert same(source, target)


@contextmanager
def textbook_server(*command: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The C program as a listener, and the port it picked."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[1]
        finally:
            if process.poll() is None:
                process.kill()


@sizes
def test_a_textbook_server_sends_the_file_and_reads_our_message(textbook, size, tmp_path) -> None:
    with sample(tmp_path, size) as (source, target):
        with textbook_server(textbook, "send", "listen", "0", str(source)) as (server, port):
            done = finish(
                "recv", f"127.0.0.1:{port}", "--raw", "--output", target, "--thanks", "Thank you"
            )
            assert done.returncode == 0, done.stderr
            assert server.communicate()[0] == "Thank you"
            assert server.returncode == 0
        assert same(source, target)


@sizes
def test_a_textbook_server_gets_the_file_and_its_thanks_are_shown(textbook, size, tmp_path) -> None:
    with sample(tmp_path, size) as (source, target):
        with textbook_server(textbook, "recv", "listen", "0", str(target)) as (server, port):
            done = finish("send", source, f"127.0.0.1:{port}", "--raw")
            assert done.returncode == 0, done.stderr
            assert server.wait() == 0
        assert same(source, target)
        assert "message from server: Thank you\n" in done.stdout
