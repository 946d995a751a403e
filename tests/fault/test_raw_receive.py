"""Bad senders and faults of a raw receiver.

Never a file under its final name that is not whole, and nothing is left behind.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
from pathlib import Path

import pytest

from fastnet.apps.transfer.raw.target import sweep
from tests.fault.test_raw_send import DATA, reset
from tests.support.cli_process import Running, connect, eventually, finish, read_all, running
from tests.support.connect_peers import ABORT

SHORT = "--timeout", "0.6"


def receiving(target: Path | str, *more: str, **options: object) -> Running:
    return running("recv", "--listen", 0, "--raw", "--output", target, *more, **options)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "inbox" / "target"


@pytest.fixture(autouse=True)
def inbox(target: Path) -> Path:
    target.parent.mkdir()
    return target.parent


def left(inbox: Path) -> list[str]:
    return sorted(os.listdir(inbox))


def partial(inbox: Path) -> int:
    """Bytes received so far, by the temporary file."""
    return sum(path.stat().st_size for path in inbox.glob(".target.*.part"))


def test_the_name_appears_only_when_all_is_there(target, inbox) -> None:
    with receiving(target) as command, connect(command.endpoint()) as sock:
        sock.sendall(DATA[:-1])
        eventually(lambda: partial(inbox) == len(DATA) - 1, "the bytes in the temporary file")
        assert not target.exists()
        sock.sendall(DATA[-1:])
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
        assert target.read_bytes() == DATA
        assert command.end(None)[0] == 0
    assert left(inbox) == ["target"]


def test_a_sender_that_resets_leaves_nothing(target, inbox) -> None:
    with receiving(target) as command:
        sock = connect(command.endpoint())
        sock.sendall(DATA[:100_000])
        eventually(lambda: partial(inbox) == 100_000, "the bytes in the temporary file")
        reset(sock)
        code, _, err = command.end(None)
    assert code == 5
    assert "broke the connection after 100000 bytes" in err
    assert left(inbox) == []


rounds = pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.soak)])


@rounds
def test_a_connection_cut_at_random_bytes_leaves_nothing(target, inbox, rounds) -> None:
    for seed in range(rounds):
        at = random.Random(seed).randrange(1, len(DATA))
        with receiving(target) as command:
            sock = connect(command.endpoint())
            sock.sendall(DATA[:at])
            reset(sock)
            assert command.end(None)[0] == 5
        assert left(inbox) == []


def test_a_sender_that_stalls_is_given_up(target, inbox) -> None:
    with receiving(target, *SHORT) as command, connect(command.endpoint()) as sock:
        sock.sendall(b"and then")
        code, _, err = command.end(None)
    assert code == 5
    assert "sent nothing more and did not end for 0.6 s, after 8 bytes" in err
    assert left(inbox) == []


def test_one_byte_at_a_time_is_no_stall(target) -> None:
    with receiving(target, *SHORT) as command, connect(command.endpoint()) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(3000):
            sock.send(DATA[at : at + 1])
        sock.shutdown(socket.SHUT_WR)
        assert command.end(None)[0] == 0
    assert target.read_bytes() == DATA[:3000]


def test_other_connections_do_not_take_the_place_of_the_sender(target) -> None:
    """A connection that says nothing, and a port scan, before the sender."""
    with receiving(target) as command:
        where = command.endpoint()
        with connect(where) as silent:
            reset(connect(where))
            with connect(where) as sender:
                sender.sendall(DATA)
                sender.shutdown(socket.SHUT_WR)
                assert command.end(None)[0] == 0
            assert silent.recv(1) == b""
    assert target.read_bytes() == DATA


def test_a_crowd_of_silent_connections_does_not_keep_the_sender_out(target) -> None:
    with receiving(target) as command:
        where = command.endpoint()
        crowd = [connect(where) for _ in range(100)]
        with connect(where) as sender:
            sender.sendall(b"me")
            sender.shutdown(socket.SHUT_WR)
            assert command.end(None)[0] == 0
        for sock in crowd:
            sock.close()
    assert target.read_bytes() == b"me"


def test_a_full_disk_is_said_to_both_sides(target, inbox) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    source = inbox.parent / "source"
    source.write_bytes(DATA)
    with receiving(target, "--json", preexec_fn=small_files) as command:
        where = command.event()["endpoint"]
        sender = finish("send", source, where, "--raw")
        code, out, err = command.end(None)
    assert code == 5
    assert "file too large" in err
    assert '"code": "disk_full"' in out
    assert sender.returncode in (5, 6)
    assert left(inbox) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_receiver_that_is_stopped_leaves_nothing(target, inbox, number) -> None:
    with receiving(target) as command, connect(command.endpoint()) as sock:
        sock.sendall(DATA[:1000])
        eventually(lambda: partial(inbox) == 1000, "the bytes in the temporary file")
        assert command.end(number)[0] == 130
        with pytest.raises(ConnectionResetError):
            read_all(sock)
    assert left(inbox) == []


@rounds
def test_a_receiver_killed_at_random_bytes_leaves_no_wrong_file(target, inbox, rounds) -> None:
    source = inbox.parent / "source"
    source.write_bytes(DATA)
    for seed in range(rounds):
        at = random.Random(seed).randrange(1, len(DATA))
        with receiving(target, "--backend", "python") as command:
            with connect(command.endpoint()) as sock:
                sock.sendall(DATA[:at])
                eventually(lambda: partial(inbox) > 0, "the first bytes")
                command.end(signal.SIGKILL)
        assert not target.exists()
        for path in inbox.iterdir():
            path.unlink()


def test_the_next_receiver_removes_what_a_killed_one_left_and_nothing_else(target, inbox) -> None:
    foreign = [
        ".target.part",
        ".target.notes.part",
        ".other.0123abcd.part",
        "target.0123abcd.part",
        ".target.0123abcd",
    ]
    for name in foreign:
        (inbox / name).write_bytes(b"kept")
    (inbox / ".target.0123abcd.part").symlink_to("nowhere")
    with receiving(target) as victim, connect(victim.endpoint()) as sock:
        sock.sendall(b"0" * 1000)
        eventually(lambda: partial_bytes(inbox) == [1000], "the bytes in the temporary file")
        victim.end(signal.SIGKILL)
    with receiving(target) as busy, connect(busy.endpoint()) as other:
        other.sendall(b"1" * 2000)
        eventually(lambda: partial_bytes(inbox) == [2000], "the first one gone")
        with receiving(target) as command, connect(command.endpoint()) as sock:
            sock.sendall(DATA)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
            assert command.end(None)[0] == 0
        assert partial_bytes(inbox) == [2000], "it is still written to"
    assert target.read_bytes() == DATA
    busy.end(signal.SIGKILL)
    assert set(foreign) < set(left(inbox))
    assert (inbox / ".target.0123abcd.part").is_symlink()


def partial_bytes(inbox: Path) -> list[int]:
    """Of each temporary file."""
    return sorted(
        path.stat().st_size for path in inbox.glob(".target.????????.part") if not path.is_symlink()
    )


@rounds
def test_a_sender_killed_at_random_bytes_never_makes_a_wrong_file(target, inbox, rounds) -> None:
    """Whatever the moment: either the whole file under its name, or nothing at all."""
    source = inbox.parent / "source"
    source.write_bytes(DATA)
    for seed in range(rounds):
        at = random.Random(seed).randrange(1, len(DATA))
        with receiving(target) as command:
            with running("send", source, str(command.endpoint()), "--raw") as sender:
                eventually(
                    lambda at=at: target.exists() or partial(inbox) >= at,
                    "the bytes before the kill",
                )
                sender.end(signal.SIGKILL)
            code, _, err = command.end(None)
        assert (code, left(inbox)) in ((0, ["target"]), (5, [])), err
        if code == 0:
            assert target.read_bytes() == DATA
            target.unlink()


def test_a_sender_killed_leaves_nothing_at_a_fastnet_receiver(target, inbox) -> None:
    source = inbox.parent / "source"
    source.write_bytes(DATA)
    out, into = os.pipe()
    with open(out, "rb") as reader, open(into, "wb", 0) as writer, receiving(target) as command:
        with running("send", "-", str(command.endpoint()), "--raw", stdin=reader) as sender:
            os.write(writer.fileno(), DATA[:50_000])
            eventually(lambda: partial(inbox) == 50_000, "the bytes in the temporary file")
            sender.end(signal.SIGKILL)
        code, _, err = command.end(None)
    assert code == 5
    assert "broke the connection" in err
    assert left(inbox) == []


def test_an_existing_file_is_not_touched(target) -> None:
    target.write_text("mine")
    done = finish("recv", "--listen", 0, "--raw", "--output", target)
    assert done.returncode == 5
    assert "exists already" in done.stderr
    assert target.read_text() == "mine"


def test_a_file_that_comes_meanwhile_is_not_touched(target, inbox) -> None:
    with receiving(target) as command, connect(command.endpoint()) as sock:
        sock.sendall(DATA)
        target.write_text("mine")
        sock.shutdown(socket.SHUT_WR)
        code, _, err = command.end(None)
    assert code == 5
    assert "came into being" in err
    assert target.read_text() == "mine"
    assert left(inbox) == ["target"]


@pytest.mark.parametrize("thing", ["file", "link"])
def test_overwrite_always_replaces_in_one_instant(target, inbox, thing) -> None:
    elsewhere = inbox.parent / "elsewhere"
    elsewhere.write_text("another")
    if thing == "file":
        target.write_text("old")
    else:
        target.symlink_to(elsewhere)
    with receiving(target, "--overwrite", "always") as command, connect(command.endpoint()) as sock:
        sock.sendall(DATA)
        assert not target.is_file() or target.stat().st_size < 10
        sock.shutdown(socket.SHUT_WR)
        assert command.end(None)[0] == 0
    assert target.read_bytes() == DATA
    assert not target.is_symlink()
    assert elsewhere.read_text() == "another"


def test_a_missing_folder_is_reported_before_a_connection(target) -> None:
    done = finish("recv", "--listen", 0, "--raw", "--output", target / "deeper")
    assert done.returncode == 5
    assert "no such file or directory" in done.stderr


def test_standard_output_carries_the_data_and_nothing_else() -> None:
    with running("recv", "--listen", 0, "--raw", "--output", "-") as command:
        where = command.line("err", "listening on").split()[2]
        host, _, port = where.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"data\n")
            sock.shutdown(socket.SHUT_WR)
            code, out, err = command.end(None)
    assert (code, out) == (0, "data\n")
    assert "received 5 bytes" in err


def test_a_reader_of_standard_output_that_goes_away_is_a_failure() -> None:
    with running("recv", "--listen", 0, "--raw", "--output", "-") as command:
        where = command.line("err", "listening on").split()[2]
        command.process.stdout.close()
        command.process.stdout = None
        host, _, port = where.removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"data\n")
            _, err = command.process.communicate(timeout=20)
    assert command.process.returncode == 5
    assert b"its reader is gone" in err


def test_a_sender_that_does_not_read_our_thanks_has_lost_nothing(target) -> None:
    with receiving(target, "--thanks", "Thank you") as command:
        sock = connect(command.endpoint())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        sock.sendall(b"all")
        sock.shutdown(socket.SHUT_WR)
        eventually(target.exists, "the file")
        sock.close()
        assert command.end(None)[0] == 0
    assert target.read_bytes() == b"all"


@pytest.mark.parametrize("to", ["a file", "-"])
def test_a_sender_without_raw_is_told_apart_before_anything_of_it_is_taken(
    target, inbox, tmp_path, to
) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with receiving("-" if to == "-" else target) as command:
        where = command.line("err" if to == "-" else "out", "listening on ").split()[2]
        assert finish("send", tmp_path / "file", where).returncode == 5
        code, out, err = command.end(None)
    assert code == 5
    assert "speaks fastnet/1" in err
    assert "--raw on both sides" in err
    assert (out if to == "-" else "") == ""
    assert left(inbox) == []


@pytest.mark.parametrize("step", [1, 13])
@pytest.mark.parametrize("data", [b"fastnet/1\nH\0", b"fastnet/1\nHello", b"fast"])
def test_a_file_that_only_begins_like_a_hello_is_a_file(target, data, step) -> None:
    with receiving(target) as command, connect(command.endpoint()) as sock:
        for at in range(0, len(data), step):
            sock.sendall(data[at : at + step])
        sock.shutdown(socket.SHUT_WR)
        assert command.end(None)[0] == 0
    assert target.read_bytes() == data


def test_a_hello_in_single_bytes_is_one_too(target, inbox) -> None:
    with receiving(target) as command, connect(command.endpoint()) as sock:
        for byte in b"fastnet/1\nH\0\0":
            sock.sendall(bytes([byte]))
        code, _, err = command.end(None)
    assert code == 5
    assert "speaks fastnet/1" in err
    assert left(inbox) == []


def test_a_raw_receiver_of_a_sender_without_raw_gets_no_empty_file(target, inbox, tmp_path) -> None:
    """That sender waits for a hello, then resets: a FIN would mean that the file is empty."""
    (tmp_path / "file").write_bytes(DATA)
    with running("send", tmp_path / "file", "--listen", 0) as sender:
        done = finish("recv", sender.endpoint(), "--raw", "--output", target)
        assert done.returncode == 5
        assert "broke the connection" in done.stderr
        sender.line(containing="was rejected")
        sender.end()
    assert left(inbox) == []


def test_a_folder_that_cannot_be_listed_is_not_swept_and_no_error(tmp_path: Path) -> None:
    """A drop box: writable, not readable. Root reads every folder, so it does not exist here."""
    sweep(os.fsencode(tmp_path / "nothing" / ".name"))
