"""What service/contract.py promises (S1 to S9).

A recording service tests what services are promised, the built-in ones what peers are promised.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Sequence

import pytest

from fastnet.engine.stream import ENGINES
from fastnet.limits import KIB, SUFFIX_BYTES_MAX
from fastnet.service import SERVICES
from fastnet.service.chargen_py import LINE_CHARACTERS, PRINTABLE
from fastnet.service.contract import END, Conn, Item, Service
from tests.conftest import Dial, Serve
from tests.support.clients import connect, eventually, pattern, settled, statistics_reach
from tests.support.engine import running

OPENS, CLOSES, EOFS, DATAS, TALKS = range(5)


class Recorder(Service):
    """Counts its calls in memory that forked children share, and its bytes in conn.state."""

    def __init__(self) -> None:
        self.calls = mmap.mmap(-1, mmap.PAGESIZE)

    def note(self, what: int) -> None:
        self.calls[what] += 1

    def open(self, conn: Conn) -> Sequence[Item]:
        self.note(OPENS)
        assert conn.state is None
        conn.state = 0
        return (b"welcome ",)

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        if not self.calls[DATAS]:
            self.note(DATAS)
        conn.state += len(view)
        return (view[::1], b"", view[:0])

    def eof(self, conn: Conn) -> Sequence[Item]:
        self.note(EOFS)
        return (f" {conn.state} bytes".encode(), END, b"never sent")

    def close(self, conn: Conn) -> None:
        self.note(CLOSES)


@pytest.fixture(params=[name for name in ENGINES if ENGINES[name].python])
def pure(request: pytest.FixtureRequest) -> str:
    """An engine by name; Python services run on its pure form."""
    if why := ENGINES.why_not(request.param, "python"):
        pytest.skip(why)
    return str(request.param)


def test_open_is_called_once_and_before_anything_was_read(pure) -> None:
    """S1."""
    service = Recorder()
    with running(pure, "python", service) as loop:
        peer = connect(loop.endpoint)
        assert peer.read(8) == b"welcome "
        assert (service.calls[OPENS], service.calls[DATAS]) == (1, 0)
        assert peer.exchange(b"x") == b"x 1 bytes"
        peer.close()
        settled(loop)
    assert service.calls[OPENS] == 1


@pytest.mark.parametrize("chunk", [1, 7, 4096, 300_000], ids="chunk={}".format)
def test_data_comes_in_order_whatever_the_chunks_and_views_may_be_returned(pure, chunk) -> None:
    """S2, S7. What was counted in conn.state is there at the end."""
    sent = pattern(min(1_000_000, 3000 * chunk))
    with running(pure, "python", Recorder()) as loop:
        peer = connect(loop.endpoint)
        with peer.sending(sent, chunk):
            assert peer.read_to_end() == b"welcome " + sent + f" {len(sent)} bytes".encode()
        peer.close()
        settled(loop)


@pytest.mark.usefixtures("transport")
def test_discard_drops_and_counts_and_ends_when_the_peer_does(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S3, S5 (RFC 863)."""
    server, data = serve("discard"), pattern(3_000_001)
    peer = dial(server)
    assert peer.exchange(data) == b""
    peer.close()
    now = settled(server)
    assert (now["bytes_in"], now["bytes_out"], now["closed"]["finished"]) == (len(data), 0, 1)


class Countdown(Service):
    """Speaks without being asked, from 100 to 0."""

    accepts_input = False
    produces_output = True

    def open(self, conn: Conn) -> Sequence[Item]:
        conn.state = 100
        return ()

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        raise AssertionError("data was called although `reads` is false")

    def sent(self, conn: Conn) -> Sequence[Item]:
        conn.state -= 1
        return (f"{conn.state}\n".encode() * 1000, *((END,) if conn.state == 0 else ()))


def test_sent_is_called_each_time_everything_is_out_until_the_end(pure) -> None:
    """S4, S3."""
    with running(pure, "python", Countdown()) as loop:
        peer = connect(loop.endpoint, rcvbuf=4 * KIB)
        peer.send(b"ignored")
        assert peer.read_to_end() == b"".join(f"{i}\n".encode() * 1000 for i in range(99, -1, -1))
        peer.close()
        assert settled(loop)["closed"]["finished"] == 1


def test_nothing_follows_the_end(pure) -> None:
    """S5. eof is called once; what it answers after END is not sent."""
    service = Recorder()
    with running(pure, "python", service) as loop:
        peer = connect(loop.endpoint)
        assert peer.exchange(b"") == b"welcome  0 bytes"
        peer.close()
        settled(loop)
    assert service.calls[EOFS] == 1


class Silent(Recorder):
    """Has nothing to say to a half-close, not even END."""

    def eof(self, conn: Conn) -> Sequence[Item]:
        self.note(EOFS)
        return ()


def test_a_service_that_says_nothing_to_the_end_ends_there(pure) -> None:
    """S5. Nothing would ever call it again.

    A connection that is kept would cost a thread all of its processor.
    """
    service = Silent()
    with running(pure, "python", service, idle_timeout_s=0) as loop:
        peer = connect(loop.endpoint)
        assert peer.exchange(b"all") == b"welcome all"
        peer.close()
        assert settled(loop)["closed"]["finished"] == 1
    assert (service.calls[EOFS], service.calls[CLOSES]) == (1, 1)


@pytest.mark.parametrize("end", ["half-close", "reset", "idle", "stop"])
def test_close_is_called_once_however_it_ended(pure, end) -> None:
    """S6."""
    service = Recorder()
    with running(pure, "python", service, idle_timeout_s=0.05 if end == "idle" else 0) as loop:
        peer = connect(loop.endpoint)
        peer.read(8)
        if end == "half-close":
            peer.exchange(b"")
        if end == "reset":
            peer.reset()
        if end == "stop":
            loop.context.stop.now()
        eventually(lambda: service.calls[CLOSES], why=loop.statistics)
        peer.close()
        settled(loop)
    assert service.calls[CLOSES] == 1


def test_connections_of_one_service_object_share_no_state(pure) -> None:
    """S8, S7."""
    with running(pure, "python", Recorder()) as loop:
        peers = [connect(loop.endpoint) for _ in range(1 if ENGINES[pure].bound == 1 else 3)]
        for n, peer in enumerate(peers, 1):
            peer.send(b"x" * n)
        for n, peer in enumerate(peers, 1):
            peer.half_close()
            assert peer.read_to_end() == b"welcome " + b"x" * n + f" {n} bytes".encode()
            peer.close()
        settled(loop)


class Shredder(Service):
    """Answers each read with more pieces than one sendmsg(2) takes."""

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        return [view[i : i + 1] for i in range(len(view))]


def test_a_reply_may_have_any_number_of_items(pure) -> None:
    """S2, E5."""
    with running(pure, "python", Shredder()) as loop:
        peer = connect(loop.endpoint)
        assert peer.exchange(pattern(50_000)) == pattern(50_000)
        peer.close()
        settled(loop)


def test_the_chargen_pattern_is_exact_over_megabytes_and_odd_reads(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S4 (RFC 864). 72 characters a line, each line starting one character later."""
    peer = dial(serve("chargen"))
    got, size = b"", 4_000_037
    while len(got) < size:
        got += peer.sock.recv(12_347)
    ring = PRINTABLE * 2
    lines = got.split(b"\r\n")[:-1]
    for number, line in enumerate(lines):
        assert line == ring[number % len(PRINTABLE) :][:LINE_CHARACTERS], f"line {number}"


@pytest.mark.usefixtures("transport")
def test_chargen_continues_after_a_half_close_and_ends_on_reset(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S5, S4 (RFC 864): until the user closes the connection."""
    server = serve("chargen")
    peer = dial(server)
    peer.send(b"not read")
    peer.half_close()
    assert len(peer.read(3_000_000)) == 3_000_000
    peer.reset()
    statistics_reach(server, open=0, reset=1)


@pytest.mark.usefixtures("transport")
def test_daytime_is_one_line_and_survives_input_it_does_not_read(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S3, S1 (RFC 867). Closing with unread input would send an RST that overtakes the line."""
    server = serve("daytime")
    for n in (0, 1, 100_000):
        peer = dial(server)
        peer.send(b"?" * n)
        line = peer.read_to_end()
        assert time.strptime(line.decode().strip(), "%A, %B %d, %Y %H:%M:%S-UTC")
        assert line.endswith(b"\r\n")
        peer.close()
    assert settled(server)["closed"]["finished"] == 3


@pytest.mark.usefixtures("transport")
def test_a_peer_gone_before_its_line_is_counted_alike_by_all(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S6, E9. Sending to a closed peer brings an RST, after which our own half-close fails."""
    server = serve("daytime")
    for _ in range(30):
        dial(server).close()
    statistics_reach(server, accepted=30, open=0)
    ends = settled(server)["closed"]
    assert ends["finished"] + ends["reset"] == 30, ends


@pytest.mark.parametrize("suffix", [" [echoed]\n", "x" * SUFFIX_BYTES_MAX], ids=["short", "4 KiB"])
def test_a_suffix_follows_each_reply_in_lock_step(
    engine, backend, serve: Serve, dial: Dial, suffix
) -> None:
    """S2."""
    peer = dial(serve(suffix=suffix))
    for n in (1, 100, 10_000, 60_000):
        peer.send(pattern(n))
        if n > 1000:  # may be read in two pieces
            assert peer.read(n + len(suffix))[:1000] == pattern(1000)
            peer.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                while peer.sock.recv(10_000):
                    pass
                pytest.fail("it ended")
            peer.sock.settimeout(10)
        else:
            assert peer.read(n + len(suffix)) == pattern(n) + suffix.encode()


def test_a_suffix_is_buffered_whole_for_a_slow_reader(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S2, E5. Whatever the chunks were, what is received without suffixes is what was sent."""
    server = serve(suffix="~" * 1000, sndbuf=8 * KIB)
    peer = dial(server, rcvbuf=4 * KIB)
    sent = bytes(range(0x20, 0x7E)) * 5000
    got = peer.exchange(sent)
    assert got.replace(b"~" * 1000, b"") == sent
    peer.close()
    assert settled(server)["bytes_out"] == len(got)


def test_a_constant_reply_takes_no_room_in_the_write_buffer(
    engine, backend, serve: Serve, dial: Dial
) -> None:
    """S9. Many slow readers of one constant share it; none of them is too much."""
    server = serve("chargen", max_write_buffer=64 * KIB, sndbuf=8 * KIB)
    peers = [dial(server, rcvbuf=4 * KIB) for _ in range(1 if ENGINES[engine].bound == 1 else 4)]
    for peer in peers:
        assert peer.read(10_000)
    now = server.statistics()
    assert (now.write_buffer_bytes, now.closed["overload"], now.open) == (0, 0, len(peers))


def test_every_service_of_the_table_answers_or_ends(
    service, backend, serve: Serve, dial: Dial
) -> None:
    """S5. A peer that half-closes immediately receives FIN, or the endless stream of chargen."""
    peer = dial(serve())
    peer.half_close()
    if SERVICES.load(service, "python").create().produces_output:
        assert len(peer.read(1000)) == 1000
    else:
        assert len(peer.read_to_end()) < 100
