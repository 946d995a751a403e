"""Handshake of fastnet/1: magic, version, role and token, before any other input.

Facts. A listener is found by port scanners, browsers and wrong commands. A MAC that a peer could
reflect would prove nothing.
Decision: the connecting side sends first, so a listener reveals nothing to an unauthenticated peer.
The handshake must be complete within HELLO_S. Each side sends a MAC over both nonces, its own role
and the TLS certificate (security/token.py); the connecting side sends its MAC first.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, NamedTuple

from fastnet._version import __version__
from fastnet.apps.transfer.events import ErrorCode
from fastnet.apps.transfer.protocol.frames import (
    MAGIC,
    VERSION,
    FrameKind,
    ProtocolError,
    field,
    pack_json,
)
from fastnet.apps.transfer.session.connection import ConnectionLost, TransferConnection
from fastnet.errors import TransferRefused
from fastnet.limits import HELLO_BYTES_MAX, HELLO_S, REASON_CHARACTERS
from fastnet.security import token

OTHER_ROLE = {"send": "recv", "recv": "send"}


class Hello(NamedTuple):
    """What this side sends in HELLO."""

    role: str
    """ "send" or "recv"."""
    token: bytes = b""
    """Shared secret; empty for none. Not sent."""
    binding: bytes = b""
    """TLS channel binding, part of the MAC. Not sent."""
    digest: str = ""
    """Digest algorithm of a sender."""
    dry_run: bool = False
    """Exchange the plan only."""
    compress: str = ""
    """Compression that a sender applies, or a receiver can decompress."""
    streams: int = 1
    """Data connections that a sender wants, or a receiver can use."""
    session_id: str = ""
    """By which a listener recognises further data connections."""
    joins_session: str = ""
    """Session id of the transfer that this connection belongs to."""

    def fields(self, nonce: bytes) -> dict[str, Any]:
        return {
            "version": VERSION,
            "program": f"fastnet {__version__}",
            "role": self.role,
            "nonce": nonce.hex(),
            "has_token": bool(self.token),
            "digest": self.digest,
            "dry_run": self.dry_run,
            "compress": self.compress,
            "streams": self.streams,
            "session_id": self.session_id,
            "joins_session": self.joins_session,
        }


class PeerHello(NamedTuple):
    """What the peer's HELLO contains."""

    role: str
    digest: str
    dry_run: bool
    is_authenticated: bool
    """Whether the peer has sent the right MAC."""
    compress: str
    streams: int
    """Data connections that both sides can use."""
    session_id: str
    joins_session: str


def perform_handshake(connection: TransferConnection, mine: Hello, dialled: bool) -> PeerHello:
    """Exchange HELLO and TOKEN frames.

    Args:
        connection: A new connection.
        mine: This side's HELLO.
        dialled: Whether this side connected.
    Raises:
        ProtocolError: The peer does not speak fastnet/1.  TransferRefused: It lacks the token.
        ConnectionLost: It closed the connection, or took longer than HELLO_S.
    """
    connection.deadline = monotonic() + HELLO_S
    try:
        peer = _handshake(connection, mine, dialled)
    except ConnectionLost as error:
        hint = (
            "Is it a fastnet of the other role? "
            "--raw, --tls and --token-file must be the same on both sides"
        )
        raise ConnectionLost(f"{error.message} before its hello", hint, error.code) from error
    connection.deadline = None
    return peer


def _handshake(connection: TransferConnection, mine: Hello, dialled: bool) -> PeerHello:
    nonce = token.nonce()
    hello = MAGIC + pack_json(FrameKind.HELLO, mine.fields(nonce))
    if dialled:
        connection.send(hello)
        theirs = _read_hello(connection)
    else:
        theirs = _read_hello(connection)
        connection.send(hello)
    peer = _check(mine, theirs)
    if mine.token:
        _exchange_macs(connection, mine, nonce, bytes.fromhex(theirs["nonce"]), dialled)
    return peer


def _read_hello(connection: TransferConnection) -> dict[str, Any]:
    magic = bytearray()
    while len(magic) < len(MAGIC):
        magic += connection.read(1)
        if not MAGIC.startswith(magic):
            raise ProtocolError("it does not speak fastnet/1")
    return expect(connection, FrameKind.HELLO)


def expect(connection: TransferConnection, kind: FrameKind) -> dict[str, Any]:
    """Receive the next frame, skipping KEEPALIVE.

    Raises ProtocolError, the peer's ERROR.
    """
    while True:
        frame = connection.read_frame(kind, bytes_max=HELLO_BYTES_MAX)
        if frame.kind == FrameKind.ERROR:
            raise as_error(connection.peer, frame.json())
        if frame.kind == kind:
            return frame.json()


def as_error(peer: str, fields: dict[str, Any]) -> TransferRefused:
    """The error that the peer's ERROR frame reports."""
    code = field(fields, "code", str, ErrorCode.FAILED)
    known = code if code in ErrorCode.__members__.values() else ErrorCode.FAILED
    text = field(fields, "text", str, "it does not say why")[:REASON_CHARACTERS]
    return TransferRefused(
        f"{peer} says: {text}", field(fields, "hint", str, "")[:REASON_CHARACTERS], known
    )


def _check(mine: Hello, theirs: dict[str, Any]) -> PeerHello:
    if field(theirs, "version", int, 0) != VERSION:
        raise ProtocolError(
            f"it speaks version {theirs.get('version')!a} of it, and this fastnet speaks {VERSION}"
        )
    role = field(theirs, "role", str, "")
    if role != OTHER_ROLE[mine.role]:
        hint = "One side must be `fastnet send` and the other one `fastnet recv`"
        raise TransferRefused(f"both sides want to {mine.role}", hint, ErrorCode.REFUSED)
    try:
        nonce = bytes.fromhex(field(theirs, "nonce", str, ""))
    except ValueError:
        nonce = b""
    if len(nonce) != token.NONCE_BYTES:
        raise ProtocolError("its nonce")
    proves = bool(field(theirs, "has_token", bool, False))
    if proves != bool(mine.token):
        what = "the other side has none" if mine.token else "the other side wants one"
        raise TransferRefused(
            f"no token: {what}", "Give both sides the same --token-file", ErrorCode.REFUSED
        )
    return PeerHello(
        role,
        field(theirs, "digest", str, ""),
        bool(field(theirs, "dry_run", bool, False)),
        proves,
        field(theirs, "compress", str, ""),
        min(mine.streams, field(theirs, "streams", int, 1)),
        field(theirs, "session_id", str, ""),
        field(theirs, "joins_session", str, ""),
    )


def _exchange_macs(
    connection: TransferConnection, mine: Hello, nonce: bytes, theirs: bytes, dialled: bool
) -> None:
    word = token.proof(mine.token, mine.role, nonce, theirs, mine.binding)
    due = token.proof(mine.token, OTHER_ROLE[mine.role], theirs, nonce, mine.binding)
    if dialled:
        connection.send(pack_json(FrameKind.TOKEN, {"mac": word.hex()}))
    said = field(expect(connection, FrameKind.TOKEN), "mac", str, "")
    if not token.same(said.encode("utf-8", "replace"), due.hex().encode()):
        hint = "Give both sides the same --token-file"
        raise TransferRefused("the other side does not have our token", hint, ErrorCode.REFUSED)
    if not dialled:
        connection.send(pack_json(FrameKind.TOKEN, {"mac": word.hex()}))
