"""Connection log: one line for each connection that ends, at level debug.

Facts. Native loops and forked children cannot call Python's logging. A write of at most PIPE_BUF
bytes is atomic (pipe(7)).
Decision: at level debug, and only then, every loop writes a 64-byte record of a closed connection
to one pipe (native loops: csrc/fn_trace.h), and a thread of the main process reads and logs it. A
full pipe drops records; it never blocks a server.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import struct
import threading
import time

from fastnet.metrics.counters import CLOSED_REASONS
from fastnet.transport.access import address16

RECORD = struct.Struct("=QQQHH16sB19x")
"""Duration in ns, bytes in, bytes out, address family, port, 16 address bytes, reason."""

RECORDS_A_READ = 512

log = logging.getLogger("fastnet.connection")


class ConnectionRecord:
    """The record of one connection of a pure-Python loop."""

    __slots__ = ("bytes_in", "bytes_out", "family", "opened_ns", "peer")

    def __init__(self, sock: socket.socket, peer: object) -> None:
        self.opened_ns = time.monotonic_ns()
        self.family = sock.family
        self.peer = peer
        self.bytes_in = self.bytes_out = 0

    def close(self, why: int, pipe: int) -> None:
        host, port = self.peer[:2] if isinstance(self.peer, tuple) else ("::", 0)
        lasted_ns = time.monotonic_ns() - self.opened_ns
        record = RECORD.pack(
            lasted_ns, self.bytes_in, self.bytes_out, self.family, port, address16(host), why
        )
        try:
            os.write(pipe, record)
        except OSError:
            return


class ConnectionLog:
    """The pipe, and the thread that logs its records."""

    def __init__(self) -> None:
        self._out, self.fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        self._thread = threading.Thread(target=self._read, name="fastnet-trace", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while records := os.read(self._out, RECORDS_A_READ * RECORD.size):
            for record in RECORD.iter_unpack(records):
                log.debug("%s", format_record(*record))

    def close(self) -> None:
        """Log the records left in the pipe; call it after all loops have ended."""
        os.close(self.fd)
        self._thread.join()
        os.close(self._out)


def format_record(
    lasted_ns: int, bytes_in: int, bytes_out: int, family: int, port: int, address: bytes, why: int
) -> str:
    """A record as one line of text."""
    if family == socket.AF_UNIX:
        peer = "unix"
    else:
        v6 = ipaddress.IPv6Address(address)
        host = str(v6.ipv4_mapped or f"[{v6}]")
        peer = f"{host}:{port}"
    text = f"{peer} {CLOSED_REASONS[why]}: {bytes_in} bytes in, {bytes_out} out"
    return f"{text}, {lasted_ns / 1e9:.3f} s"
