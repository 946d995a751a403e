"""`fastnet connect` against misbehaving servers.

Every fault has its exit code, none hangs or fills the memory.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastnet.apps.connect.stdio import StandardInput, StandardOutput
from fastnet.apps.connect.stream import StreamPump
from fastnet.endpoint import Endpoint
from tests.support.connect_peers import (
    DEADLINE_S,
    abort,
    client,
    echo_byte_by_byte,
    peer,
    read_until,
    run,
    say,
    swallow,
    talk_until_enough,
)

MIB = 1024 * 1024


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        user, system = stat.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def unacknowledged_bytes(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


def wait_until_full(fd: int) -> None:
    """Wait until a pipe is full, less a portion that its writer may not be able to place."""
    deadline = monotonic() + DEADLINE_S
    while (
        int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")
        < 65536 - select.PIPE_BUF
    ):
        assert monotonic() < deadline, "the pipe does not fill"
        os.sched_yield()


def feed(fd: int, data: bytes, total: int) -> int:
    """Write up to `total` bytes to a pipe, until it accepts none for half a second.

    Returns what it accepted.
    """
    os.set_blocking(fd, False)
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    taken = 0
    while taken < total and poll.poll(500):
        taken += os.write(fd, data[: total - taken])
    return taken


def wait_for_one(event: threading.Event) -> Callable[[socket.socket], None]:
    return lambda sock: None if event.wait(DEADLINE_S) else pytest.fail("never told to end")


def test_a_reset_is_exit_code_4_with_both_counts() -> None:
    def receive_then_abort(sock: socket.socket) -> None:
        sock.sendall(b"hi!")
        while sock.recv(1, socket.MSG_PEEK) == b"":
            pass
        sock.recv(5)
        abort(sock)

    with peer(receive_then_abort) as server, client(server.endpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        assert read_until(process.stdout.fileno(), b"hi!") == b"hi!"
        process.stdin.write(b"hello")
        assert process.wait(DEADLINE_S) == 4
        error = process.stderr.read()
    assert b"reset the connection after 5 bytes sent and 3 received. The server went away" in error
    assert error.count(b"\n") == 1


def test_reset_during_a_slow_reader_neither_spins_nor_loses_received_bytes() -> None:
    # more than the pipe and the client hold together, so a part waits in the socket
    said = b"x" * 160_000

    def talk_then_abort(sock: socket.socket) -> None:
        sock.sendall(said)
        deadline = monotonic() + DEADLINE_S
        while unacknowledged_bytes(sock) and monotonic() < deadline:
            os.sched_yield()
        abort(sock)

    with peer(talk_then_abort) as server, client(server.endpoint) as process:
        assert process.stdout is not None
        assert server.done.wait(DEADLINE_S)
        received = process.stdout.read(1)
        before = processor_s(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            # it waits for its reader, as it should; the half second is there to be spent or not
            process.wait(0.5)
        assert processor_s(process.pid) - before < 0.2
        while data := process.stdout.read(65536):
            received += data
        assert process.wait(DEADLINE_S) == 4
    assert received == said


def test_refused_input_is_exit_code_4_after_the_reply_was_received() -> None:
    with peer(say(b"no, thank you\n")) as server, client(server.endpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert read_until(process.stdout.fileno(), b"\n") == b"no, thank you\n"
        assert server.done.wait(DEADLINE_S)
        with suppress(BrokenPipeError):
            while True:
                process.stdin.write(b"more")
        assert process.wait(DEADLINE_S) == 4


def test_what_a_server_sends_after_refusing_input_is_still_read(tmp_path: Path) -> None:
    refuses, told = threading.Event(), threading.Event()

    def refuse_then_speak(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_RD)
        refuses.set()
        assert told.wait(DEADLINE_S)
        sock.sendall(b"final output")

    with (
        peer(refuse_then_speak, "unix", tmp_path / "s.sock") as server,
        client(server.endpoint) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert refuses.wait(DEADLINE_S)
        process.stdin.write(b"no reader takes this")
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)  # only a client that gives up immediately would end here
        told.set()
        assert process.stdout.read() == b"final output"
        assert process.wait(DEADLINE_S) == 4


def test_a_unix_server_that_leaves_ends_a_client_whose_input_is_silent(tmp_path: Path) -> None:
    with (
        peer(say(b"bye"), "unix", tmp_path / "s.sock") as server,
        client(server.endpoint) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read() == b"bye"
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_a_server_that_never_reads_stops_the_input_and_fills_no_memory(
    transport: str, tmp_path: Path
) -> None:
    told = threading.Event()
    with (
        peer(wait_for_one(told), transport, tmp_path / "s.sock") as server,
        client(server.endpoint) as process,
    ):
        assert process.stdin is not None
        assert server.accepted.wait(DEADLINE_S)
        at_rest = resident_bytes(process.pid)
        taken = feed(process.stdin.fileno(), bytes(MIB), 50 * MIB)
        assert taken < 20 * MIB  # what the two socket buffers hold
        assert resident_bytes(process.pid) - at_rest < 4 * MIB
        before = processor_s(process.pid)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert processor_s(process.pid) - before < 0.15
        told.set()


def test_a_reader_that_never_reads_stops_the_server_and_fills_no_memory() -> None:
    def talk(sock: socket.socket) -> int:
        return feed(sock.fileno(), bytes(MIB), 50 * MIB)

    with peer(talk) as server, client(server.endpoint) as process:
        assert server.done.wait(DEADLINE_S)
        assert isinstance(server.result, int)
        assert server.result < 20 * MIB
        assert resident_bytes(process.pid) < 60 * MIB


def test_a_reader_that_never_reads_does_not_stop_the_input() -> None:
    with peer(talk_until_enough) as server, client(server.endpoint) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        wait_until_full(process.stdout.fileno())
        process.stdin.write(b"enough\n")
        assert server.done.wait(DEADLINE_S)
        assert process.poll() is None
    assert server.result == b"enough\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"x" * 40 * MIB, b"read none of the waiting input for 0.3 s"),
        (b"x", b"sent nothing more and did not close"),
    ],
    ids=["does-not-read", "does-not-answer"],
)
def test_a_stalled_server_is_given_up_at_the_time_out(data: bytes, sentence: bytes) -> None:
    told = threading.Event()
    with peer(wait_for_one(told)) as server:
        done = run(server.endpoint, "--timeout", "0.3", input=data)
        told.set()
    assert done.returncode == 4
    assert sentence in done.stderr
    assert b"Give it a longer --timeout" in done.stderr


def test_a_silent_user_is_not_timed_out() -> None:
    with peer(swallow) as server, client(server.endpoint, "--timeout", "0.1") as process:
        assert process.stdin is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.stdin.write(b"here I am")
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 0
    assert server.result == b"here I am"


def test_a_slow_reader_of_our_output_is_not_timed_out() -> None:
    data = b"x" * 300_000
    with (
        peer(say(data)) as server,
        client(server.endpoint, "--timeout", "0.2", stdin=subprocess.DEVNULL) as process,
    ):
        assert process.stdout is not None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        received = b""
        while piece := process.stdout.read(65536):
            received += piece
        assert process.wait(DEADLINE_S) == 0
    assert received == data


def test_a_server_that_answers_byte_by_byte_is_read_whole() -> None:
    data = bytes(range(256)) * 8
    with peer(echo_byte_by_byte) as server:
        done = run(server.endpoint, input=data)
    assert (done.returncode, done.stdout) == (0, data)


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_100_megabytes_each_way_through_small_buffers_do_not_deadlock(
    transport: str, tmp_path: Path
) -> None:
    size = 100 * 1000 * 1000
    # TCP on loopback has segments of 64 KiB: below two of them, the window timers would be what is
    # tested.
    buffer_bytes = 4096 if transport == "unix" else 131072

    def small_echo(sock: socket.socket) -> None:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, buffer_bytes)
        while data := sock.recv(16384):
            sock.sendall(data)

    with peer(small_echo, transport, tmp_path / "s.sock") as server:
        feeder = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE)
        assert feeder.stdout is not None
        with feeder, client(server.endpoint, stdin=feeder.stdout) as process:
            feeder.stdout.close()
            assert process.stdout is not None
            received = 0
            while data := process.stdout.read(MIB):
                received += len(data)
            assert process.wait(DEADLINE_S) == 0
    assert received == size


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 70_000), min_size=1, max_size=8), st.sampled_from([1, 100, 65536]))
def test_whatever_the_sizes_of_reads_and_writes_the_echo_is_the_input(
    sizes: list[int], read_size: int
) -> None:
    data = os.urandom(min(sum(sizes), 20_000 if read_size == 1 else sum(sizes)))

    def choppy_echo(sock: socket.socket) -> None:
        while piece := sock.recv(read_size):
            sock.sendall(piece)

    near, far = socket.socketpair()
    far.settimeout(DEADLINE_S)
    (source, sink), (back, target) = os.pipe(), os.pipe()

    def write() -> None:
        rest = data
        for size in [*sizes, len(data)]:
            while piece := rest[:size]:
                rest = rest[os.write(sink, piece) :]
                break
        os.close(sink)

    received: list[bytes] = []

    def read() -> None:
        while piece := os.read(back, read_size):
            received.append(piece)

    threads = [
        threading.Thread(target=context)
        for context in (write, read, lambda: (choppy_echo(far), far.close()))
    ]
    for thread in threads:
        thread.start()
    output = StandardOutput(target)
    outcome = StreamPump(
        near, Endpoint("unix", path="@x"), StandardInput(source), output, DEADLINE_S
    ).run()
    output.close()
    os.close(target)
    for thread in threads:
        thread.join(DEADLINE_S)
    near.close()
    os.close(source)
    os.close(back)
    assert b"".join(received) == data
    assert (outcome.sent_bytes, outcome.received_bytes, outcome.ended_by) == (
        len(data),
        len(data),
        "both",
    )
