"""`fastnet connect --udp`: a datagram per line, replies unchanged, silence ends it."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.apps.connect.datagram import DatagramPump, LineBuffer
from fastnet.apps.connect.stdio import StandardInput, StandardOutput
from fastnet.endpoint import Endpoint
from fastnet.errors import NetworkError
from fastnet.limits import DATAGRAM_BYTES_MAX
from fastnet.transport.resolve import Address
from tests.support.connect_peers import DEADLINE_S, client, free_port, read_until, run


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
        yield sock


def endpoint(server: socket.socket) -> str:
    return f"udp://127.0.0.1:{server.getsockname()[1]}"


def test_each_line_is_one_datagram_with_its_newline(server: socket.socket) -> None:
    done = run(endpoint(server), "--timeout", "0.05", input=b"one\n\nq\n\x00\xff\r\nlast")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [server.recv(100) for _ in range(5)] == [
        b"one\n",
        b"\n",
        b"q\n",
        b"\x00\xff\r\n",
        b"last",
    ]


def test_the_udp_option_is_the_udp_scheme(server: socket.socket) -> None:
    done = run("--udp", "127.0.0.1", str(server.getsockname()[1]), "--timeout", "0.05", input=b"x")
    assert done.returncode == 0
    assert server.recv(100) == b"x"


def test_replies_are_written_as_they_are(server: socket.socket) -> None:
    with client(endpoint(server), "--timeout", "20") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ask\n")
        _, address = server.recvfrom(100)
        for reply in (b"no newline", b"", b"\x00\xff", b"y" * DATAGRAM_BYTES_MAX):
            server.sendto(reply, address)
        received = read_until(process.stdout.fileno(), b"y" * DATAGRAM_BYTES_MAX)
    assert received == b"no newline\x00\xff" + b"y" * DATAGRAM_BYTES_MAX


def test_a_last_reply_is_awaited_after_the_end_of_input(server: socket.socket) -> None:
    with client(endpoint(server), "--timeout", "3") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ask")
        process.stdin.close()
        _, address = server.recvfrom(100)
        server.sendto(b"answer", address)
        assert process.stdout.read() == b"answer"
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("end", [b"q\n", b"\x04"], ids=["q", "ctrl-d"])
def test_a_terminal_ends_the_input_with_q_or_ctrl_d(server: socket.socket, end: bytes) -> None:
    keyboard, fd = os.openpty()
    try:
        with client(endpoint(server), "--timeout", "0.05", stdin=fd) as process:
            assert process.stderr is not None
            assert b"each line is a datagram to udp://" in read_until(
                process.stderr.fileno(), b"\n"
            )
            os.write(keyboard, b"hello\n" + end)
            assert process.wait(DEADLINE_S) == 0
        assert server.recv(100) == b"hello\n"
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)
    finally:
        os.close(keyboard)
        os.close(fd)


def test_a_refused_datagram_is_exit_code_4() -> None:
    done = run("--udp", "127.0.0.1", str(free_port(socket.SOCK_DGRAM)), input=b"anyone?\n")
    assert done.returncode == 4
    assert (
        b"connection refused, after 8 bytes sent and 0 received. Nothing listens there"
        in done.stderr
    )


def test_a_line_too_long_for_a_datagram_is_exit_code_4(server: socket.socket) -> None:
    done = run(endpoint(server), input=b"x" * (DATAGRAM_BYTES_MAX + 1))
    assert done.returncode == 4
    assert (
        f"more than {DATAGRAM_BYTES_MAX} bytes and does not fit a datagram".encode() in done.stderr
    )


def test_the_longest_line_goes_out_whole(server: socket.socket) -> None:
    line = b"x" * (DATAGRAM_BYTES_MAX - 1) + b"\n"
    assert run(endpoint(server), "--timeout", "0.05", input=line + b"y").returncode == 0
    assert server.recv(65536) == line
    assert server.recv(65536) == b"y"


def test_a_refusal_moves_on_to_the_next_address_and_repeats_the_line(server: socket.socket) -> None:
    places = [("127.0.0.1", free_port(socket.SOCK_DGRAM)), server.getsockname()]
    addresses = deque(Address(socket.AF_INET, socket.SOCK_DGRAM, 0, place) for place in places)
    source, sink = os.pipe()
    back, target = os.pipe()
    try:
        os.write(sink, b"one\ntwo\nthree")
        os.close(sink)
        where, output = Endpoint("udp", "both.example", 7), StandardOutput(target)
        with (
            closing(output),
            closing(DatagramPump(where, addresses, StandardInput(source), output, 0.05)) as talk,
        ):
            outcome = talk.run()
        assert [server.recv(100) for _ in range(3)] == [b"one\n", b"two\n", b"three"]
        assert outcome.sent_bytes == len(b"one\ntwo\nthree")
    finally:
        for fd in (source, back, target):
            os.close(fd)


def test_a_refusal_after_a_reply_is_an_error_even_with_another_address_left(
    server: socket.socket,
) -> None:
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.1", 0))
    places = [server.getsockname(), other.getsockname()]
    addresses = deque(Address(socket.AF_INET, socket.SOCK_DGRAM, 0, place) for place in places)
    source, sink = os.pipe()
    back, target = os.pipe()

    def reply_and_leave() -> None:
        _, address = server.recvfrom(100)
        server.sendto(b"only once", address)
        os.read(back, 100)  # so the reply has been taken
        server.close()
        os.write(sink, b"two\n")
        os.close(sink)

    leaver = threading.Thread(target=reply_and_leave)
    leaver.start()
    try:
        os.write(sink, b"one\n")
        where, output = Endpoint("udp", "both.example", 7), StandardOutput(target)
        with (
            closing(output),
            closing(DatagramPump(where, addresses, StandardInput(source), output, 0.5)) as talk,
        ):
            with pytest.raises(
                NetworkError, match="connection refused, after 8 bytes sent and 9 received"
            ):
                talk.run()
    finally:
        leaver.join(DEADLINE_S)
        other.close()
        for fd in (source, back, target):
            os.close(fd)


@given(
    st.binary(max_size=60).map(lambda text: text.replace(b"\x00", b"\n")),
    st.lists(st.integers(0, 7), max_size=20),
)
def test_lines_are_the_same_however_the_input_is_cut(text: bytes, sizes: list[int]) -> None:
    lines, taken, rest = LineBuffer(line_bytes_max=61), [], text
    for size in [*sizes, len(text)]:
        lines.feed(rest[:size])
        rest = rest[size:]
        while (line := lines.next_line()) is not None:
            taken.append(line)
    lines.end()
    while (line := lines.next_line()) is not None:
        taken.append(line)
    assert b"".join(taken) == text
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in taken[:-1])


@given(st.integers(1, 20), st.integers(0, 40))
def test_a_line_is_refused_exactly_when_it_is_longer_than_the_bound(bound: int, size: int) -> None:
    lines = LineBuffer(line_bytes_max=bound)
    lines.feed(b"x" * size)
    lines.end()
    if size > bound:
        with pytest.raises(NetworkError):
            lines.next_line()
    else:
        assert (lines.next_line() or b"") == b"x" * size


def test_a_line_put_back_is_the_next_one_again() -> None:
    lines = LineBuffer(DATAGRAM_BYTES_MAX)
    lines.feed(b"one\ntwo\n")
    first = lines.next_line()
    assert first is not None
    lines.put_back(first)
    assert [lines.next_line(), lines.next_line(), lines.next_line()] == [b"one\n", b"two\n", None]
