"""Datagram client: address fallback, lost datagrams, retransmission timer."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from fastnet.transport.resolve import Address
from fastnet.udp.client import DatagramClient, RetransmissionTimer

DEADLINE_S = 10.0
REFUSED = OSError(errno.ECONNREFUSED, "refused")


def address(port: int) -> Address:
    return Address(socket.AF_INET, socket.SOCK_DGRAM, 0, ("127.0.0.1", port))


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    found = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in found:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
    yield found
    for sock in found:
        sock.close()


@pytest.fixture
def client(servers: list[socket.socket]) -> Iterator[DatagramClient]:
    ports = [sock.getsockname()[1] for sock in servers]
    found = DatagramClient(Endpoint("udp", "127.0.0.1", ports[0]), map(address, ports))
    yield found
    found.close()


def test_the_first_address_receives_the_first_datagram(
    client: DatagramClient, servers: list[socket.socket]
) -> None:
    assert client.send(b"hello")
    data, peer = servers[0].recvfrom(100)
    assert data == b"hello"
    assert client.receive(100) is None
    servers[0].sendto(b"reply", peer)
    assert client.wait(DEADLINE_S)
    assert client.receive(100) == b"reply"


def test_a_refusal_before_the_first_reply_moves_to_the_next_address(
    client: DatagramClient, servers: list[socket.socket]
) -> None:
    servers[0].close()
    client.send(b"hello")
    assert client.wait(DEADLINE_S)
    with pytest.raises(ConnectionRefusedError) as refused:
        client.receive(100)
    assert client.handle_error(refused.value)
    client.send(b"again")
    assert servers[1].recv(100) == b"again"


def test_a_refusal_by_the_last_address_is_an_error(client: DatagramClient) -> None:
    client.connect()
    assert client.handle_error(REFUSED)
    with pytest.raises(NetworkError, match="refused") as raised:
        client.handle_error(REFUSED)
    assert raised.value.errno == errno.ECONNREFUSED


def test_an_unreachable_host_is_an_error_although_an_address_is_left(
    client: DatagramClient,
) -> None:
    client.connect()
    with pytest.raises(NetworkError):
        client.handle_error(OSError(errno.EHOSTUNREACH, "unreachable"))


def test_an_error_after_the_first_reply_is_a_lost_datagram(client: DatagramClient) -> None:
    client.connect()
    client.has_received = True
    assert not client.handle_error(REFUSED)


def test_the_next_address_after_the_last_is_the_first(
    client: DatagramClient, servers: list[socket.socket]
) -> None:
    for server in (servers[0], servers[1], servers[0]):
        client.send(b"hello")
        assert server.recv(100) == b"hello"
        client.use_next_address()


def test_a_renewed_socket_keeps_the_address_and_misses_late_replies(
    client: DatagramClient, servers: list[socket.socket]
) -> None:
    client.send(b"first")
    _, old = servers[0].recvfrom(100)
    client.renew()
    client.send(b"second")
    servers[0].sendto(b"late", old)
    data, new = servers[0].recvfrom(100)
    assert data == b"second"
    servers[0].sendto(b"reply", new)
    assert client.wait(DEADLINE_S)
    assert client.receive(100) == b"reply"


def test_an_address_that_cannot_be_connected_to_is_skipped(servers: list[socket.socket]) -> None:
    port = servers[1].getsockname()[1]
    unreachable = Address(socket.AF_INET, socket.SOCK_DGRAM, 0, ("255.255.255.255", 9))
    client = DatagramClient(Endpoint("udp", "127.0.0.1", port), [unreachable, address(port)])
    client.send(b"hello")
    assert servers[1].recv(100) == b"hello"
    client.close()


def test_the_timeout_doubles_with_each_expiry_up_to_its_maximum() -> None:
    timer, timeouts = RetransmissionTimer(0.1, 1.0), []
    for _ in range(6):
        timeouts.append(timer.timeout_s())
        timer.back_off()
    assert timeouts == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    timer.reset()
    assert timer.timeout_s() == 0.1


def test_the_timeout_is_at_least_two_round_trips() -> None:
    timer = RetransmissionTimer(0.1, 1.0)
    timer.round_trip_s = 0.2
    assert timer.timeout_s() == 0.4


@pytest.mark.parametrize(("end", "expected"), [(0, 0.8), (1, 1.2)])
def test_jitter_moves_the_timeout_to_both_sides(end: int, expected: float) -> None:
    timer = RetransmissionTimer(1.0, jitter=0.2, uniform=lambda *ends: ends[end])
    assert timer.timeout_s() == pytest.approx(expected)
