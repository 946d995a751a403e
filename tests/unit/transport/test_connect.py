"""dial(): from an endpoint to a connected socket, or to a sentence that says why not."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError
from fastnet.transport import happy_eyeballs
from fastnet.transport.connect import dial
from fastnet.transport.resolve import resolve
from tests.support.connect_peers import echo, free_port, listen, peer


@pytest.fixture
def full_listener() -> Iterator[int]:
    """The port of a listener whose backlog is full, so that the kernel drops further SYNs."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield listener.getsockname()[1]
        for filler in fillers:
            filler.close()


def answers(*names: tuple[str, int]) -> object:
    """A name server that knows one name."""

    def getaddrinfo(host: str | None, port: int, type: int = 0, flags: int = 0) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        return [(socket.AF_INET, type, 0, "", name) for name in names]

    return getaddrinfo


@pytest.mark.parametrize("transport", ["tcp", "tcp6", "unix", "abstract"])
def test_dial_returns_a_blocking_socket_connected_to_the_endpoint(
    transport: str, tmp_path: Path
) -> None:
    with (
        peer(echo, transport, tmp_path / "echo.sock") as server,
        dial(Endpoint.parse(server.endpoint)) as sock,
    ):
        assert sock.gettimeout() is None
        assert os.get_blocking(sock.fileno())
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b"hello"


def test_an_empty_host_is_this_hosts_loopback() -> None:
    listener, _ = listen("tcp")
    with listener, dial(Endpoint("tcp", "", listener.getsockname()[1])) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"


def test_a_refused_address_hands_over_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listener, _ = listen("tcp")
    port = listener.getsockname()[1]
    monkeypatch.setattr(
        socket, "getaddrinfo", answers(("127.0.0.1", free_port()), ("127.0.0.1", port))
    )
    with listener, dial(Endpoint("tcp", "both.example", 7)) as sock:
        assert sock.getpeername()[1] == port


def test_a_silent_address_does_not_use_up_the_time_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch, full_listener: int
) -> None:
    listener, _ = listen("tcp")
    port = listener.getsockname()[1]
    monkeypatch.setattr(
        socket, "getaddrinfo", answers(("127.0.0.1", full_listener), ("127.0.0.1", port))
    )
    started = monotonic()
    with listener, dial(Endpoint("tcp", "both.example", 7), timeout_s=20) as sock:
        assert sock.getpeername()[1] == port
    assert monotonic() - started < 10


def test_the_losers_of_the_race_are_closed(
    monkeypatch: pytest.MonkeyPatch, full_listener: int
) -> None:
    listener, _ = listen("tcp")
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        answers(("127.0.0.1", full_listener), ("127.0.0.1", listener.getsockname()[1])),
    )
    before = len(os.listdir("/proc/self/fd"))
    with listener:
        dial(Endpoint("tcp", "both.example", 7)).close()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # the listener


def test_a_silent_address_is_given_up_at_the_time_out(full_listener: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NetworkError, match=r"no answer within 0\.2 s.*--timeout") as caught:
        dial(Endpoint("tcp", "127.0.0.1", full_listener), timeout_s=0.2)
    assert caught.value.errno == errno.ETIMEDOUT
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_slow_name_server_is_given_up_at_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_now = threading.Event()

    def getaddrinfo(host: str | None, port: int, type: int = 0, flags: int = 0) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "a name")
        answer_now.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(
            NetworkError, match=r"the name lookup took longer than 0\.1 s"
        ) as caught:
            dial(Endpoint("tcp", "slow.example", 7), timeout_s=0.1)
        assert caught.value.errno == errno.ETIMEDOUT
    finally:
        answer_now.set()
        for thread in threading.enumerate():
            if thread.name == "fastnet-resolve":
                thread.join(20)


def test_two_addresses_that_fail_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(socket, "getaddrinfo", answers(("127.0.0.1", port), ("127.0.0.2", port)))
    with pytest.raises(
        NetworkError, match=r"connection refused \(tried 127\.0\.0\.1, 127\.0\.0\.2\)"
    ):
        dial(Endpoint("tcp", "both.example", 7))


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (socket.EAI_NONAME, "no host is called 'who.example'. Check the spelling"),
        (socket.EAI_AGAIN, "no name server answers. Check the network"),
        (socket.EAI_FAIL, "non-recoverable failure. Check the name"),
    ],
    ids=["unknown", "no-server", "other"],
)
def test_a_name_without_address_is_a_network_error(
    monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    def getaddrinfo(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(code, "Non-recoverable failure")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(NetworkError) as caught:
        dial(Endpoint("tcp", "who.example", 7))
    assert sentence in str(caught.value)


def test_a_refused_port_is_said_with_its_hint() -> None:
    with pytest.raises(NetworkError, match=r"connection refused\. Nothing listens there") as caught:
        dial(Endpoint("tcp", "127.0.0.1", free_port()))
    assert caught.value.errno == errno.ECONNREFUSED
    assert isinstance(caught.value, OSError)


def test_an_unreachable_network_is_said_with_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.ENETUNREACH)
    with pytest.raises(
        NetworkError, match=r"network is unreachable\. Check the address and the route"
    ):
        dial(Endpoint("tcp", "127.0.0.1", 7))


def test_a_missing_socket_file_is_said_with_its_hint(tmp_path: Path) -> None:
    with pytest.raises(
        NetworkError, match=r"no such file or directory\. The server creates the socket file"
    ):
        dial(Endpoint("unix", path=str(tmp_path / "none.sock")))


def test_a_socket_file_without_server_is_called_a_left_over(tmp_path: Path) -> None:
    listener, endpoint = listen("unix", tmp_path / "old.sock")
    listener.close()
    with pytest.raises(NetworkError, match=r"connection refused\. No server has it open"):
        dial(Endpoint.parse(endpoint))


def test_a_forbidden_socket_file_is_said_with_its_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # root may do everything, so no file mode would do
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(NetworkError, match=r"permission denied\. It needs write permission"):
        dial(Endpoint("unix", path="/run/any.sock"))


def test_a_unix_server_that_does_not_accept_is_given_up_at_the_time_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as filler:
        listener.bind(str(tmp_path / "full.sock"))
        listener.listen(0)
        filler.connect(listener.getsockname())
        with pytest.raises(
            NetworkError, match=r"no answer within 0\.1 s\. The server does not accept"
        ):
            dial(Endpoint("unix", path=str(tmp_path / "full.sock")), timeout_s=0.1)


def test_port_0_cannot_be_connected_to() -> None:
    with pytest.raises(ConfigError, match="no server has port 0"):
        dial(Endpoint("tcp", "127.0.0.1", 0))


@pytest.mark.parametrize("host", ["a" * 64, "x\0y", "a..b"])
def test_a_host_that_cannot_be_a_name_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a host name"):
        dial(Endpoint("tcp", host, 7))


def test_a_socket_connected_to_itself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happy_eyeballs, "connected_to_itself", lambda _: True)
    listener, endpoint = listen("tcp")
    with listener, pytest.raises(NetworkError, match="connection refused"):
        dial(Endpoint.parse(endpoint))


def test_a_simultaneous_open_with_oneself_is_recognised() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert happy_eyeballs.connected_to_itself(sock)


def test_addresses_are_listed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        socket, "getaddrinfo", answers(("127.0.0.1", 7), ("127.0.0.1", 7), ("127.0.0.2", 7))
    )
    assert [str(address) for address in resolve(Endpoint("udp", "twice.example", 7))] == [
        "127.0.0.1",
        "127.0.0.2",
    ]
