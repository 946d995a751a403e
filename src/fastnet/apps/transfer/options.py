"""Options of a transfer: one checked value inside, typed keywords outside.

Decision: TransferOptions is the one definition, for both directions. SendOptions and ReceiveOptions
name the same fields for type checkers and editors, which cannot read them off a dataclass; a test
keeps the three equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from fastnet.limits import MANIFEST_FILES_MAX, TRANSFER_STALL_S

if TYPE_CHECKING:
    from fastnet.apps.transfer.protocol.entry import Entry
    from fastnet.transport.tls import TlsOptions

ShouldStop = Callable[[], bool]
"""Polled several times a second from the thread of a transfer; true cancels the transfer."""

Ask = Callable[["list[Entry]", int, Callable[[], None]], bool]
"""Called with the entries, their size in bytes, and a function to call several times a second
while a person decides, which raises when the sender is gone. Returns whether to accept them."""


@dataclass(frozen=True)
class TransferOptions:
    """How to transfer, on either side."""

    stall_s: float = TRANSFER_STALL_S
    """Seconds without a byte in either direction that end the transfer."""
    congestion: str = "auto"
    """TCP congestion control; auto avoids a paced one between two processes of one host."""
    mover: str = "auto"
    """How bytes are moved: a row of mover.MOVERS, or auto."""
    backend: str = "auto"
    """native, python or auto, for movers and small files."""
    token: bytes = b""
    """The shared secret that both sides must hold; b"" for none."""
    tls: TlsOptions | None = None
    """TLS 1.3 with these certificates; None for no TLS."""
    digest: str = "xxh3-128"
    """The sender's digest of each file: a row of digest.ALGORITHMS."""
    compress: str = ""
    """The sender's compression: "zstd", or "" for none."""
    streams: int = 1
    """The sender's number of connections that share large files."""
    dry_run: bool = False
    """Agree on what would be sent, and stop before any data."""
    retry_s: float = 0.0
    """Seconds to retry connecting while there is no listener yet."""
    wait_s: float | None = None
    """Seconds to listen for a peer; None for no limit."""


class ReceiveOptions(TypedDict, total=False):
    """Keywords of `receive` and `serve_inbox`, with the defaults of TransferOptions."""

    stall_s: float
    """Seconds without a byte in either direction that end the transfer; default 60."""
    congestion: str
    """TCP congestion control; default auto, which avoids a paced one within one host."""
    mover: str
    """How bytes are moved: copy, sendfile or splice; default auto."""
    backend: str
    """native or python, for movers and small files; default auto."""
    token: bytes
    """The shared secret that both sides must hold; default none."""
    tls: TlsOptions | None
    """TLS 1.3 with these certificates; default none."""
    dry_run: bool
    """Agree on what would be sent, and stop before any data; default false."""
    retry_s: float
    """Seconds to retry connecting while there is no listener yet; default 0."""
    wait_s: float | None
    """Seconds to listen for a peer; default no limit."""


class SendOptions(ReceiveOptions, total=False):
    """Keywords of `send` and `serve_files`, with the defaults of TransferOptions."""

    digest: str
    """The digest of each file: xxh3-128, blake2b, sha256 or none; default xxh3-128."""
    compress: str
    """Compression: "zstd", which needs the package zstandard; default none."""
    streams: int
    """Number of connections that share large files; default 1."""


@dataclass(frozen=True)
class ReceivePolicy:
    """What a receiver accepts, and how durable it is before the acknowledgement."""

    bytes_max: int | None = None
    """Refuse a transfer of more bytes; None for no limit."""
    files_max: int = MANIFEST_FILES_MAX
    """Refuse a transfer of more entries."""
    fsync: bool = False
    """fsync(2) files and folders before the acknowledgement."""
    ask: Ask | None = None
    """Asked whether to accept; None accepts."""
