"""Forged peer of fastnet/1 that sends arbitrary frames, and a real side of a transfer."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xxhash

from fastnet.apps.transfer import api
from fastnet.apps.transfer.digest import Algorithm
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.frames import (
    HEAD,
    MAGIC,
    VERSION,
    FrameKind,
    pack_digest,
    pack_extent,
    pack_files,
    pack_json,
)
from fastnet.apps.transfer.protocol.transcript import Transcript
from fastnet.endpoint import Endpoint
from fastnet.errors import TransferError
from fastnet.security.token import nonce
from tests.support.clients import DEADLINE_S, LINGER_NONE
from tests.support.transfer import ANY_PORT, Side

STALL_S = 5.0
Row = list[Any]


class Victim(Side):
    """A side of a transfer, stopped when its block ends."""

    @functools.cached_property
    def where(self) -> Endpoint:
        """Where it listens."""
        return Endpoint.parse(self.endpoint)

    def dial(self) -> socket.socket:
        sock = socket.create_connection((self.where.host, self.where.port), DEADLINE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def end(self, deadline_s: float = 3 * DEADLINE_S) -> BaseException | None:
        """What was raised, None for a transfer that went well."""
        self.thread.join(deadline_s)
        assert not self.thread.is_alive(), "it hangs"
        return self.error

    def stop(self) -> None:
        self.stopping = True

    def is_over(self) -> bool:
        return not self.thread.is_alive()

    def __enter__(self) -> Victim:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.thread.join(3 * DEADLINE_S)


def receiving(into: object, **given: Any) -> Victim:
    """A receiver that listens."""
    return Victim(api.receive, (ANY_PORT,), {"into": into, "stall_s": STALL_S} | given)


def sending(paths: Sequence[object], **given: Any) -> Victim:
    """A sender that listens."""
    return Victim(api.send, (paths, ANY_PORT), {"listen": True, "stall_s": STALL_S} | given)


class Forger:
    """The other side. Everything it does ends within DEADLINE_S."""

    def __init__(
        self, sock: socket.socket, role: str, digest: str = "xxh3-128", **hello: Any
    ) -> None:
        """Say hello as `role`; hello: other fields than the true ones."""
        self.sock = sock
        mine = {
            "version": VERSION,
            "program": "forger",
            "role": role,
            "nonce": nonce().hex(),
            "has_token": False,
        }
        self.send_bytes(
            MAGIC + pack_json(FrameKind.HELLO, mine | {"digest": digest, "dry_run": False} | hello)
        )

    def send_bytes(self, *data: bytes) -> None:
        """Send, as far as the other side lets us: one that has had enough resets."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(b"".join(data))

    def frame(self, kind: FrameKind, fields: dict[str, Any]) -> None:
        self.send_bytes(pack_json(kind, fields))

    def manifest(self, *rows: Row, **more: Any) -> None:
        self.frame(FrameKind.MANIFEST, {"entries": list(rows), "last": True} | more)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def receive_frame(self) -> tuple[int, bytes]:
        """Receive the next frame, skipping KEEPALIVE. Raises EOFError and ConnectionError."""
        while True:
            kind, length = HEAD.unpack(self.exactly(HEAD.size))
            payload = self.exactly(length)
            if kind != FrameKind.KEEPALIVE:
                return kind, payload

    def receive_until(self, wanted: FrameKind) -> bytes:
        """The payload of the next frame of that kind, which must come."""
        while True:
            kind, payload = self.receive_frame()
            assert kind != FrameKind.ERROR or wanted == FrameKind.ERROR, payload
            if kind == wanted:
                return payload

    def after_hello(self) -> Forger:
        """Read the other side's hello."""
        assert self.exactly(len(MAGIC)) == MAGIC
        self.receive_until(FrameKind.HELLO)
        return self

    def drain(self) -> bool:
        """Read to the end, and end too. Returns whether it was in good order."""
        try:
            while self.sock.recv(1 << 16):
                pass
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return True

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
        self.sock.close()

    def __enter__(self) -> Forger:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def file_row(
    path: str, data: bytes = b"x", mode: int = 0o644, mtime_ns: int = 1, extra: str = "id"
) -> Row:
    return ["f", path, mode, mtime_ns, len(data), extra]


def folder_row(path: str, mode: int = 0o755) -> Row:
    return ["d", path, mode, 1, 0, ""]


def link_row(path: str, target: str) -> Row:
    return ["l", path, 0o777, 1, 0, target]


def digest_of(data: bytes, digest: str = "xxh3-128") -> bytes:
    return xxhash.xxh3_128(data).digest() if digest == "xxh3-128" else hashlib.sha256(data).digest()


def pack(*files: tuple[int, bytes]) -> bytes:
    """Whole small files, with right digests."""
    return b"".join(pack_files([(entry, data, digest_of(data)) for entry, data in files]))


def extent(entry: int, offset: int, data: bytes) -> bytes:
    """An extent with its right digest."""
    return (
        pack_extent(entry, offset, len(data))
        + data
        + pack_digest(entry, offset, len(data), digest_of(data))
    )


def finish(*files: tuple[int, bytes]) -> bytes:
    """The end of a transfer of these files, with the right transcript."""
    transcript = Transcript(Algorithm("xxh3-128"))
    for entry, data in files:
        transcript.add(entry, len(data), digest_of(data))
    return pack_json(
        FrameKind.FINISH, {"transcript": transcript.digest().hex(), "files": len(files)}
    )


def tree(folder: Path) -> dict[str, Any]:
    """Everything in a folder, links not followed."""
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else os.stat(path).st_mode
        )
        for path in folder.rglob("*")
    }


def offer(side: Victim, *rows: Row, files: bytes = b"") -> BaseException | None:
    """Offer these entries, send what belongs to them and read to the end.

    Returns what the receiver raised.
    """
    with Forger(side.dial(), "send") as forger:
        forger.manifest(*rows)
        forger.send_bytes(files)
        forger.drain()
    return side.end()


def refused(error: BaseException | None, code: str = ErrorCode.PROTOCOL) -> str:
    """That it was refused, in a sentence that can be shown as it is. Returns that."""
    assert isinstance(error, TransferError), error
    assert error.code == code, error
    assert len(str(error)) < 1000
    assert str(error).isascii() or str(error).isprintable()
    return str(error)


@contextlib.contextmanager
def flooding(forger: Forger, data: bytes) -> Iterator[None]:
    """Send the same data repeatedly while the block lasts, or until the other side closes."""
    over = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                forger.sock.sendall(data)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(OSError):
            forger.sock.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE_S)
