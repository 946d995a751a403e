"""Unauthenticated peers at a listener.

Whatever they send, or do not send, the transfer that waits or runs is not disturbed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

import fastnet
from fastnet.apps.transfer.protocol import handshake
from fastnet.apps.transfer.protocol.frames import HEAD, MAGIC, FrameKind, pack_json
from fastnet.errors import TransferError
from fastnet.limits import PENDING_HANDSHAKES_MAX
from fastnet.transport.tls import TlsOptions
from tests.support.cli_process import running
from tests.support.clients import DEADLINE_S, LINGER_NONE, eventually
from tests.support.forged_peer import Forger, Victim, extent, file_row, finish, receiving, sending

BIG = bytes(range(256)) * 2000
HALF = len(BIG) // 2


@contextlib.contextmanager
def crowd(where: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    """Open `count` connections."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(where, DEADLINE_S)) for _ in range(count)
        ]


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    sock.close()


FORGED_PEERS: dict[str, Callable[[socket.socket], object]] = {
    "comes and goes": lambda sock: sock.close(),
    "resets": reset,
    "says nothing": lambda sock: None,
    "says nothing and ends": lambda sock: sock.shutdown(socket.SHUT_WR),
    "garbage": lambda sock: sock.sendall(b"\0\xff" * 1000),
    "HTTP": lambda sock: sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "TLS": lambda sock: sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)),
    "half a hello": lambda sock: sock.sendall(MAGIC + HEAD.pack(FrameKind.HELLO, 100) + b"{"),
    "a hello of 2^32 bytes": lambda sock: sock.sendall(
        MAGIC + HEAD.pack(FrameKind.HELLO, (1 << 32) - 1)
    ),
    "an extent for a hello": lambda sock: sock.sendall(
        MAGIC + HEAD.pack(FrameKind.EXTENT, 1 << 30) + bytes(1000)
    ),
    "a hello without a word": lambda sock: sock.sendall(MAGIC + pack_json(FrameKind.HELLO, {})),
    "a hello of another version": lambda sock: Forger(sock, "send", version=2),
    "a hello of our own role": lambda sock: Forger(sock, "recv"),
    "a hello with a nonce of one byte": lambda sock: Forger(sock, "send", nonce="00"),
    "a hello with a token": lambda sock: Forger(sock, "send", has_token=True),
    "a second sender": lambda sock: Forger(sock, "send"),
}


@pytest.mark.parametrize("forged", FORGED_PEERS.values(), ids=FORGED_PEERS.keys())
def test_a_transfer_that_runs_is_not_disturbed(
    tmp_path: Path, forged: Callable[[socket.socket], object]
) -> None:
    with receiving(tmp_path) as side, Forger(side.dial(), "send").after_hello() as forger:
        forger.manifest(file_row("big", BIG))
        forger.receive_until(FrameKind.PLAN)
        forger.send_bytes(extent(0, 0, BIG[:HALF]))
        with crowd((side.where.host, side.where.port), 5) as peers:
            for sock in peers:
                forged(sock)
            finish_big(forger)
        assert side.end() is None
    assert (tmp_path / "big").read_bytes() == BIG


def finish_big(forger: Forger) -> None:
    """The second half, the end, and the receiver's word."""
    from fastnet.apps.transfer.digest import Algorithm, FileDigest
    from fastnet.apps.transfer.protocol.transcript import Transcript
    from tests.support.forged_peer import digest_of

    digest, proof = FileDigest(Algorithm("xxh3-128")), Transcript(Algorithm("xxh3-128"))
    for start in (0, HALF):
        digest.add(start, HALF, digest_of(BIG[start : start + HALF]))
    whole = digest.of_size(len(BIG))
    proof.add(0, len(BIG), whole)
    forger.send_bytes(
        extent(0, HALF, BIG[HALF:]),
        pack_json(FrameKind.END, {"entry": 0, "size": len(BIG), "digest": whole.hex()}),
    )
    forger.frame(FrameKind.FINISH, {"transcript": proof.digest().hex(), "files": 1})
    forger.receive_until(FrameKind.ACK)
    forger.frame(FrameKind.FINISH, {})


BEFORE = {name: forged for name, forged in FORGED_PEERS.items() if name != "a second sender"}


@pytest.mark.parametrize("forged", BEFORE.values(), ids=BEFORE.keys())
def test_a_listener_that_waits_continues_to_wait(
    tmp_path: Path, forged: Callable[[socket.socket], object]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    with receiving(tmp_path / "inbox") as side:
        with crowd((side.where.host, side.where.port), 5) as peers:
            for sock in peers:
                forged(sock)
            fastnet.send(source, str(side.where))
        assert side.end() is None
    assert (tmp_path / "inbox" / "source").read_bytes() == BIG


def test_a_second_peer_is_told_that_the_listener_is_busy(tmp_path: Path) -> None:
    with receiving(tmp_path) as side, Forger(side.dial(), "send").after_hello() as forger:
        forger.manifest(file_row("a"))
        forger.receive_until(FrameKind.PLAN)
        with Forger(side.dial(), "send").after_hello() as second:
            assert b"busy" in second.receive_until(FrameKind.ERROR)
            second.drain()
        forger.send_bytes(finish())
        forger.drain()
        assert isinstance(side.end(), TransferError)


def test_more_silent_peers_than_the_limit_do_not_keep_the_sender_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    with (
        receiving(tmp_path / "inbox") as side,
        crowd((side.where.host, side.where.port), 2 * PENDING_HANDSHAKES_MAX),
    ):
        fastnet.send(source, str(side.where))
        assert side.end() is None


def test_the_oldest_of_too_many_unauthenticated_peers_is_rejected(tmp_path: Path) -> None:
    with (
        receiving(tmp_path) as side,
        crowd((side.where.host, side.where.port), PENDING_HANDSHAKES_MAX + 1) as peers,
    ):
        assert peers[0].recv(1) == b""


@pytest.fixture
def tls_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    """A receiver with TLS and a certificate of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with receiving(tmp_path / "inbox", tls=TlsOptions()) as side:
        yield side


def pin_of(side: Victim) -> str:
    (text,) = eventually(lambda: [text for text in side.texts() if "sha256:" in text])
    return str(text[text.index("sha256:") :])


@pytest.mark.parametrize("count", [5, 2 * PENDING_HANDSHAKES_MAX])
def test_silent_peers_of_a_tls_listener_keep_no_peer_out_nor_delay_its_end(
    tls_side: Victim, tmp_path: Path, count: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    with crowd((tls_side.where.host, tls_side.where.port), count):
        began_s = monotonic()
        fastnet.send(source, str(tls_side.where), tls=TlsOptions(fingerprint=pin_of(tls_side)))
        assert tls_side.end() is None
        assert monotonic() - began_s < handshake.HELLO_S
    assert (tmp_path / "inbox" / "source").read_bytes() == BIG


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(600), MAGIC]
)
def test_peers_without_tls_are_rejected_by_a_tls_listener(
    tls_side: Victim, tmp_path: Path, garbage: bytes
) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    with crowd((tls_side.where.host, tls_side.where.port), 3) as peers:
        for sock in peers:
            sock.sendall(garbage)
        fastnet.send(source, str(tls_side.where), tls=TlsOptions(fingerprint=pin_of(tls_side)))
        assert tls_side.end() is None


def test_a_sender_is_not_fooled_by_another_certificate(tls_side: Victim, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    pin = pin_of(tls_side)
    other = pin[:-1] + ("0" if pin[-1] != "0" else "1")
    with pytest.raises(fastnet.FastnetError, match="not the one expected"):
        fastnet.send(source, str(tls_side.where), tls=TlsOptions(fingerprint=other))
    assert not tls_side.is_over()


def test_a_hello_that_comes_byte_by_byte_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshake, "HELLO_S", 0.5)
    with receiving(tmp_path) as side, side.dial() as sock:
        sock.settimeout(0.02)
        for byte in MAGIC + HEAD.pack(FrameKind.HELLO, 4000) + b" " * 4000:
            try:
                sock.send(bytes([byte]))
                sock.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
        else:
            pytest.fail("it listened to all of that")


def test_a_listening_sender_reveals_nothing_to_an_unauthenticated_peer(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    with sending([tmp_path / "secret"], token=b"a token of sixteen bytes") as side:
        for hello in ({}, {"has_token": True}):
            with Forger(side.dial(), "recv", **hello).after_hello() as forger:
                if hello:
                    forger.frame(FrameKind.TOKEN, {"mac": "00" * 32})
                kind, payload = forger.receive_frame()
                assert kind == FrameKind.ERROR
                assert b"secret" not in payload
                forger.drain()
        assert not side.is_over()


def test_a_peer_that_sends_our_own_proof_back_is_not_let_in(tmp_path: Path) -> None:
    """It dials us and gets no proof before its own.

    So it listens, and we dial it: our proof comes first.
    """
    (tmp_path / "secret").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        victim = Victim(
            fastnet.send, (tmp_path / "secret", where), {"token": b"a token of sixteen bytes"}
        )
        with victim:
            sock, _ = listener.accept()
            sock.settimeout(DEADLINE_S)
            with sock:
                peek = b""
                while b"}" not in peek:
                    peek += sock.recv(4096)
                nonce = peek[peek.index(b'"nonce":"') + 9 :][:64].decode()
                forger = Forger(sock, "recv", nonce=nonce, has_token=True)
                proof = forger.receive_until(FrameKind.TOKEN)
                forger.send_bytes(HEAD.pack(FrameKind.TOKEN, len(proof)), proof)
                forger.drain()
            error = victim.end()
    assert isinstance(error, TransferError)
    assert "does not have our token" in str(error)


def test_unauthenticated_peers_that_use_up_the_descriptors_end_no_transfer(tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    with running("recv", "--listen", 0, "--into", tmp_path, preexec_fn=few) as receiver:
        where = receiver.endpoint()
        sock = socket.create_connection((where.host, where.port), DEADLINE_S)
        with Forger(sock, "send").after_hello() as forger:
            forger.manifest(file_row("big", BIG))
            forger.receive_until(FrameKind.PLAN)
            forger.send_bytes(extent(0, 0, BIG[:HALF]))
            with crowd((where.host, where.port), 60):
                finish_big(forger)
                forger.drain()
            assert receiver.end(None)[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["big"]
