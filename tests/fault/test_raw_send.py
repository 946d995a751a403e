"""Bad receivers and faults of a raw sender.

Each ends in a sentence and an exit code, and no other receiver is disturbed.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastnet.limits import FINAL_MESSAGE_BYTES_MAX
from tests.support.cli_process import Running, connect, finish, read_all, read_exactly, running
from tests.support.clients import eventually
from tests.support.connect_peers import ABORT, free_port

DATA = os.urandom(64 * 1024) * 256
"""16 MiB: more than the buffers of a connection hold, so the sender has to wait for the
receiver.
"""

SHORT = "--timeout", "0.6"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def sending(source: Path, *more: str) -> Running:
    return running("send", source, "--listen", 0, "--raw", *more)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    sock.close()


def ended_by_reset(sock: socket.socket) -> bool:
    """Whether the stream ends with RST, so that what came cannot be taken for the whole."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def test_a_receiver_that_resets_is_a_failure(source) -> None:
    with sending(source) as command:
        sock = connect(command.endpoint())
        read_exactly(sock, 1000)
        reset(sock)
        code, _, err = command.end(None)
    assert code == 5
    assert "broke the connection after" in err


@pytest.mark.parametrize("size", [1, 100])
def test_a_receiver_that_closes_without_reading_leaves_it_unconfirmed(tmp_path, size) -> None:
    source = tmp_path / "small"
    source.write_bytes(DATA[:size])
    with sending(source) as command:
        with connect(command.endpoint()) as sock:
            sock.recv(1, socket.MSG_PEEK)  # it is here, and is left unread
        code, _, err = command.end(None)
    assert code == 6
    assert f"all {size} bytes" in err
    assert "were sent, but" in err


def test_a_receiver_that_does_not_read_is_given_up(source) -> None:
    with sending(source, *SHORT) as command, connect(command.endpoint()) as sock:
        code, _, err = command.end(None)
        assert code == 5
        assert "took nothing more for 0.6 s" in err
        assert ended_by_reset(sock)


def test_a_receiver_that_does_not_end_leaves_it_unconfirmed(source) -> None:
    with sending(source, *SHORT) as command, connect(command.endpoint()) as sock:
        assert read_all(sock) == DATA
        code, _, err = command.end(None)
    assert code == 6
    assert "did not end within 0.6 s" in err


def test_a_receiver_that_talks_for_ever_is_cut_short(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        assert read_all(sock) == DATA
        sock.sendall(b"x" * (FINAL_MESSAGE_BYTES_MAX + 5000))
        code, _, err = command.end(None)
    assert code == 6
    assert "said more than" in err


def test_final_output_of_the_peer_cannot_repaint_the_terminal(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        assert read_all(sock) == DATA
        sock.sendall("\x1b[2Jbye\x9b31m\nroot# ".encode() + b"\xff\0padding")
        sock.close()
        code, out, _ = command.end(None)
    assert code == 0
    assert "message from client: \\x1b[2Jbye\\x9b31m\\nroot# \\xff\n" in out


def test_final_output_one_byte_at_a_time_is_read_to_the_end(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert read_all(sock) == DATA
        for byte in b"Thank you":
            sock.send(bytes([byte]))
        sock.close()
        code, out, _ = command.end(None)
    assert code == 0
    assert "message from client: Thank you\n" in out


def test_a_source_that_shrinks_never_looks_whole(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        read_exactly(sock, 1000)
        os.truncate(source, 10_000)
        assert ended_by_reset(sock)
        code, _, err = command.end(None)
    assert code == 5
    assert "shrank while it was sent" in err


def test_a_source_written_to_meanwhile_never_looks_whole(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        read_exactly(sock, 1000)
        with source.open("r+b") as file:
            file.write(b"new")
        assert ended_by_reset(sock)
        code, _, err = command.end(None)
    assert code == 5
    assert "was written to while it was sent" in err


def test_of_a_source_that_grows_the_size_at_the_start_is_sent(source) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        first = read_exactly(sock, 1000)
        with source.open("ab") as file:
            file.write(b"one more line")
        assert first + read_all(sock) == DATA
        sock.close()
        code, out, _ = command.end(None)
    assert code == 0
    assert "has grown by 13 bytes" in out


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_a_sender_that_is_stopped_never_looks_done(source, number, expected) -> None:
    with sending(source) as command, connect(command.endpoint()) as sock:
        read_exactly(sock, 1000)
        code, _, _ = command.end(number)
        assert code == expected
        assert ended_by_reset(sock)


@pytest.mark.parametrize("at", [1, 4096, 1_000_003, len(DATA) - 1])
def test_a_sender_killed_at_any_byte_never_looks_done(source, at) -> None:
    with running("send", source, "--listen", 0, "--raw", "--mover", "copy") as command:
        with connect(command.endpoint()) as sock:
            got = len(read_exactly(sock, at))
            command.end(signal.SIGKILL)
            try:
                while part := sock.recv(65536):
                    got += len(part)
            except ConnectionResetError:
                return
    assert got == len(DATA), "an end in good order, and not everything came"


def test_one_slow_client_delays_no_other(source) -> None:
    clients = 8
    with sending(source, "--keep-open") as command:
        where = command.endpoint()
        with ExitStack() as stack:
            slow, silent = (stack.enter_context(connect(where)) for _ in range(2))
            read_exactly(slow, 1)
            reset(connect(where))
            got: list[bytes] = []

            def one() -> None:
                with connect(where) as sock:
                    got.append(read_all(sock))

            threads = [threading.Thread(target=one) for _ in range(clients)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert got == [DATA] * clients
            command.send(signal.SIGTERM)  # finish what runs
            assert len(read_all(slow)) == len(DATA) - 1
            assert len(read_all(silent)) == len(DATA)
        code, out, _ = command.end(None)
    assert code == 0
    assert out.count("sent 16777216 bytes") == clients + 2


def test_without_keep_open_the_first_good_end_is_the_last(source) -> None:
    with sending(source) as command:
        where = command.endpoint()
        with connect(where) as first, connect(where) as second:
            read_exactly(second, 1)
            assert read_all(first) == DATA
            first.close()
            command.line(containing="sent 16777216 bytes")
            assert len(read_all(second)) == len(DATA) - 1
        assert command.end(None)[0] == 0


def test_a_failed_client_does_not_end_an_offer_that_others_are_taking(source) -> None:
    with sending(source) as command:
        where = command.endpoint()
        with connect(where) as good:
            read_exactly(good, 1)
            bad = connect(where)
            read_exactly(bad, 1)
            reset(bad)
            assert len(read_all(good)) == len(DATA) - 1
        code, _, err = command.end(None)
    assert code == 0, err


def test_no_receiver_within_the_timeout_is_an_error(source) -> None:
    done = finish("send", source, "--listen", 0, "--raw", "--wait", "0.3")
    assert done.returncode == 4
    assert "within 0.3 s" in done.stderr


def test_a_listener_that_comes_late_is_waited_for(source) -> None:
    port = free_port()
    with running("send", source, f"127.0.0.1:{port}", "--raw", "--retry", "20") as command:
        # Nothing to see from outside: give it a first refusal by listening only when it has started
        # to work.
        eventually(lambda: Path(f"/proc/{command.pid}/fd").exists())
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(20)
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(20)
                assert read_all(sock) == DATA
        assert command.end(None)[0] == 0


def test_a_listener_that_never_comes_is_given_up(source) -> None:
    done = finish("send", source, f"127.0.0.1:{free_port()}", "--raw", "--retry", "0.4")
    assert done.returncode == 4
    assert "connection refused" in done.stderr


def test_a_source_that_cannot_be_read_is_reported_before_a_connection(tmp_path) -> None:
    for path, why in ((tmp_path / "none", "no such file"), (tmp_path, "is a folder")):
        done = finish("send", path, "--listen", 0, "--raw")
        assert done.returncode == 5
        assert why in done.stderr


def test_a_stream_goes_out_as_it_comes(tmp_path) -> None:
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "wb", 0) as writer:
        with (
            running("send", "-", "--listen", 0, "--raw", stdin=reader) as command,
            connect(command.endpoint()) as sock,
        ):
            for part in (b"first", DATA[:500_000]):
                os.write(writer.fileno(), part[:60_000])
                assert read_exactly(sock, len(part[:60_000])) == part[:60_000]
            writer.close()
            assert read_all(sock) == b""
            sock.close()
            assert command.end(None)[0] == 0
