"""A Python function as a datagram service (S10, D8, D9), on native and pure loops."""

from __future__ import annotations

import gc
import logging
import socket
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastnet
from fastnet.engine.datagram import DATAGRAMS
from fastnet.errors import ConfigError
from fastnet.limits import DATAGRAM_BYTES_MAX, UNVALIDATED_REPLY_BYTES_MAX
from fastnet.registry import BACKENDS
from fastnet.server.server import Server
from tests.contract.test_datagram import Client, counts, each_way, reaches
from tests.support.clients import eventually, pattern


def shout(data: memoryview, peer: Any) -> bytes:
    return bytes(data).upper()


def echo(data: memoryview, peer: Any) -> memoryview:
    return data


def reaches_failures(server: Server, expected: int) -> None:
    eventually(lambda: server.statistics().handler_errors == expected, why=server.statistics)


@pytest.fixture
def udp(serve) -> Any:
    return lambda handler, host="127.0.0.1", **options: serve(
        handler, f"udp://[{host}]:0" if ":" in host else f"udp://{host}:0", **options
    )


@each_way
def test_what_a_handler_returns_goes_back_and_none_does_not(engine, backend, udp) -> None:
    """S10."""
    server = udp(lambda data, peer: None if data == b"quiet" else bytes(data).upper())
    with Client(server) as client:
        client.send(b"quiet")
        assert client.ask(b"loud") == b"LOUD"
        assert client.ask(b"") == b""
    reaches(server, messages=3, replies=2)
    assert server.statistics().handler_errors == 0


@each_way
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_handler_is_told_the_address_that_recvfrom_would_give(engine, backend, udp, host) -> None:
    """S10. Also when the same peer comes again, and when others come in between."""
    told = []
    server = udp(lambda data, peer: told.append(peer) or b"ok", host)
    clients = [Client(server) for _ in range(3)]
    for client in [*clients, *clients]:
        client.ask(b"?")
    for client, first, again in zip(clients, told[:3], told[3:], strict=True):
        name = client.sock.getsockname()
        assert first == again == ((host, name[1]) if host == "127.0.0.1" else (host, name[1], 0, 0))
        client.sock.close()


@each_way
def test_a_handler_error_loses_one_datagram_and_is_logged_at_a_bounded_rate(
    engine, backend, udp, caplog
) -> None:
    """D9. SystemExit and a text instead of bytes are its failures like any other."""

    def fragile(data: memoryview, peer: Any) -> Any:
        match bytes(data):
            case b"raise":
                raise ValueError("no\nsuch thing")
            case b"exit":
                raise SystemExit(3)
            case b"text":
                return "a text"
            case b"number":
                return 7
        return data

    server = udp(fragile)
    with caplog.at_level(logging.ERROR, "fastnet"), Client(server) as client:
        for word in (b"raise", b"exit", b"text", b"number") * 50:
            client.send(word)
            assert client.ask(b"fine") == b"fine"
    reaches_failures(server, 200)
    reaches(server, messages=400, replies=200)
    lines = [record.getMessage() for record in caplog.records]
    assert "the handler failed on a datagram from 127.0.0.1 port" in lines[0]
    assert "ValueError: no\nsuch thing" in lines[0]
    assert len(lines) < 50, "once a second, not once a datagram"


@each_way
def test_a_burst_with_failures_in_it_is_answered_in_order(engine, backend, udp) -> None:
    """D2, D9. One call of the service has answers, failures and silence in it."""

    def third(data: memoryview, peer: Any) -> bytes | None:
        number = int(bytes(data))
        if number % 3 == 1:
            raise RuntimeError(number)
        return None if number % 3 == 2 else b"%d" % (number * 10)

    server = udp(third, rcvbuf=1 << 20)
    with Client(server) as client:
        for number in range(300):
            client.send(b"%d" % number)
        assert [client.read() for _ in range(100)] == [
            b"%d" % (number * 10) for number in range(0, 300, 3)
        ]
    reaches(server, messages=300, replies=100)
    reaches_failures(server, 100)


@each_way
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview], ids=lambda kind: kind.__name__)
def test_a_reply_may_be_anything_with_bytes(engine, backend, udp, kind) -> None:
    server = udp(lambda data, peer: kind(bytes(data)))
    with Client(server) as client:
        for size in (0, 1, 1472, 9000, DATAGRAM_BYTES_MAX):
            assert client.ask(pattern(size)) == pattern(size)


@each_way
def test_a_reply_longer_than_a_datagram_is_counted_and_not_fatal(engine, backend, udp) -> None:
    """D5."""
    server = udp(lambda data, peer: bytes(DATAGRAM_BYTES_MAX + len(data)), answer_any_size=True)
    with Client(server) as client:
        client.send(b"x")
        assert len(client.ask(b"")) == DATAGRAM_BYTES_MAX
    reaches(server, messages=2, replies=1, unsent=1)


@each_way
def test_an_unvalidated_address_gets_at_most_its_request_or_512_bytes(engine, backend, udp) -> None:
    """D8. The source address may be forged."""
    answer = {"bytes": UNVALIDATED_REPLY_BYTES_MAX}
    server = udp(lambda data, peer: bytes(answer["bytes"]))
    with Client(server) as client:
        assert len(client.ask(b"x")) == UNVALIDATED_REPLY_BYTES_MAX
        answer["bytes"] += 1
        client.send(b"x")
        reaches(server, messages=2, replies=1, unsent=0)
        eventually(lambda: server.statistics().amplification_blocked == 1, why=server.statistics)
        assert (
            len(client.ask(bytes(UNVALIDATED_REPLY_BYTES_MAX + 1)))
            == UNVALIDATED_REPLY_BYTES_MAX + 1
        )
        answer["bytes"] = 60_000
        client.target = (lambda trusting: (trusting.endpoint.host, trusting.endpoint.port))(
            udp(lambda data, peer: bytes(60_000), answer_any_size=True)
        )
        assert len(client.ask(b"x")) == 60_000


@each_way
def test_an_echo_suffix_is_no_amplifier_either(engine, backend, serve) -> None:
    """D8, for every service."""
    server = serve("echo", "udp://127.0.0.1:0", suffix="!" * 1000)
    with Client(server) as client:
        client.send(b"x")
        eventually(lambda: server.statistics().amplification_blocked == 1, why=server.statistics)
    reaches(server, messages=1, replies=0)


@each_way
def test_a_datagram_is_the_handlers_to_keep(engine, backend, udp) -> None:
    """What it kept stays as it was, however many come after it and after the server is gone."""
    kept: list[memoryview] = []
    server = udp(lambda data, peer: kept.append(data[1:]) or b"ok")
    with Client(server) as client:
        for i in range(500):
            client.ask(b"x%d" % i)
    server.close(drain_s=1)
    assert [bytes(data) for data in kept] == [b"%d" % i for i in range(500)]


@each_way
def test_replies_and_handler_are_let_go(engine, backend, udp) -> None:
    """Nothing of a server outlives it but what its handler kept."""

    class Once:
        def __call__(self, data: memoryview, peer: Any) -> bytes:
            return bytes(data)

    handler = Once()
    gone = weakref.ref(handler)
    with (
        fastnet.serve(handler, "udp://127.0.0.1:0", engine=engine, backend=backend) as server,
        Client(server) as client,
    ):
        assert client.ask(b"x") == b"x"
    del handler, server
    gc.collect()
    assert gone() is None


@each_way
def test_a_train_joined_on_the_way_is_one_call_per_datagram(engine, backend, udp) -> None:
    """D2, D9. More datagrams than a native loop gives the service in one call, from one peer."""
    sizes: list[int] = []
    server = udp(
        lambda data, peer: (
            sizes.append(len(data)) or (b"%d" % len(sizes) if len(data) == 5 else None)
        ),
        rcvbuf=1 << 22,
    )
    with Client(server) as client:
        try:
            client.sock.setsockopt(socket.IPPROTO_UDP, 103, 10)
        except OSError as error:
            pytest.skip(f"no UDP_SEGMENT: {error}")
        for _ in range(10):
            client.send(bytes(635))
        assert [client.read() for _ in range(10)] == [b"%d" % (64 * i) for i in range(1, 11)]
    assert sizes == ([10] * 63 + [5]) * 10


@each_way
def test_the_other_threads_of_the_process_go_on_while_datagrams_come(engine, backend, udp) -> None:
    """The loop has the GIL only while it asks the handler."""
    server, stopped = udp(shout), threading.Event()
    turns = 0

    def busy() -> None:
        nonlocal turns
        while not stopped.is_set():
            turns += 1

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with Client(server) as client:
            for _ in range(50):
                assert client.ask(b"a") == b"A"
    finally:
        stopped.set()
        thread.join()
    assert turns > 1000


@each_way
@pytest.mark.parametrize("workers", [2])
def test_several_workers_ask_the_same_handler(engine, backend, udp, workers) -> None:
    server = udp(shout, workers=workers)
    clients = [Client(server) for _ in range(40)]
    for client in clients:
        assert client.ask(b"hello") == b"HELLO"
        client.sock.close()
    assert all(each.messages for each in server.worker_statistics())


FAILING = """
import socket, sys, fastnet
def failing(data, peer):
    raise KeyError("in a process")
options = dict(backend=sys.argv[1], workers=2, worker_processes=True)
with fastnet.serve(failing, "udp://127.0.0.1:0", **options) as server:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (server.endpoint.host, server.endpoint.port))
    sys.stdin.readline()
"""


@each_way
def test_a_worker_process_says_on_standard_error_what_its_handler_did_wrong(
    engine, backend
) -> None:
    """Its parent's log files are closed in it."""
    command = [sys.executable, "-c", FAILING, backend]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert "the handler failed on a datagram from 127.0.0.1" in process.stderr.readline()
        process.stdin.close()
        assert "KeyError: 'in a process'" in process.stderr.read()


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(
        st.one_of(st.binary(max_size=40), st.sampled_from([b"raise", b"none", b"long"])),
        min_size=1,
        max_size=100,
    )
)
@pytest.mark.native
def test_native_and_pure_answer_and_count_the_same(words) -> None:
    def handler(data: memoryview, peer: Any) -> bytes | None:
        if data == b"raise":
            raise ValueError
        if data == b"long":
            return bytes(1000)
        return None if data == b"none" else bytes(data)[::-1]

    answered = [word[::-1] for word in words if word not in (b"raise", b"none", b"long")]
    found = []
    for backend in BACKENDS:
        with (
            fastnet.serve(handler, "udp://127.0.0.1:0", backend=backend, rcvbuf=1 << 22) as server,
            Client(server) as client,
        ):
            for word in words:
                client.send(word)
            answers = [client.read() for _ in answered]
            reaches(server, messages=len(words), replies=len(answered))
            eventually(
                lambda: server.statistics().amplification_blocked == words.count(b"long"),
                why=server.statistics,
            )
            reaches_failures(server, words.count(b"raise"))
            found.append((answers, counts(server), server.statistics().handler_errors))
    assert found[0] == found[1]
    assert found[0][0] == answered


def test_a_handler_serves_datagrams_only_and_says_so() -> None:
    with pytest.raises(ConfigError, match="handler serves datagrams only"):
        fastnet.serve(echo, "tcp://127.0.0.1:0")
    with pytest.raises(ConfigError, match=r"handler needs a handler\. It is a Python function"):
        fastnet.serve("handler", "udp://127.0.0.1:0")
    with pytest.raises(ConfigError, match=r"serve\(\) has no option 'handler'"):
        fastnet.serve("echo", handler=echo)
    assert set(DATAGRAMS) == {"mmsg", "single"}
