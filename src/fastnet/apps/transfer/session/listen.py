"""Endpoints of a transfer: connect with retries, listen, accept, wait for readiness."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, NetworkError
from fastnet.limits import CONNECT_TIMEOUT_S, MOVER_SLICE_S, PENDING_HANDSHAKES_MAX, RETRY_PAUSE_S
from fastnet.transport import TRANSPORTS
from fastnet.transport.connect import dial
from fastnet.transport.contract import SocketOptions

NOT_UP_YET = (
    errno.ECONNREFUSED,
    errno.ENOENT,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)


def listen_endpoint(text: str) -> Endpoint:
    """`--listen [HOST:]PORT` or `unix:PATH`.

    A bare port is one of the loopback address. Raises ConfigError.
    """
    bare = text.isascii() and text.isdigit()
    where = Endpoint.parse(f"127.0.0.1:{text}" if bare else text)
    if TRANSPORTS[where.transport].datagrams:
        raise ConfigError(
            f"cannot transfer over {where}", "Write HOST:PORT, tcp://HOST:PORT or unix:PATH"
        )
    return where


def dial_endpoint(text: str) -> Endpoint:
    """Where to connect. Raises ConfigError."""
    where = Endpoint.parse(text)
    if TRANSPORTS[where.transport].datagrams:
        raise ConfigError(
            f"cannot transfer over {where}", "Write HOST:PORT, tcp://HOST:PORT or unix:PATH"
        )
    return where


def is_open_to_others(endpoint: Endpoint) -> bool:
    """Whether other hosts may reach a listener."""
    if endpoint.transport == "unix":
        return False
    from ipaddress import ip_address  # here, because only a listener asks

    try:
        return not ip_address(endpoint.host).is_loopback
    except ValueError:
        return endpoint.host != "localhost"


def dial_until(endpoint: Endpoint, retry_s: float = 0.0) -> socket.socket:
    """Connect, retrying for `retry_s` seconds while there is no listener.

    Raises NetworkError.

    Returns a non-blocking socket.
    """
    ends = time.monotonic() + retry_s
    while True:
        try:
            left_s = ends - time.monotonic()
            sock = dial(
                endpoint,
                timeout_s=CONNECT_TIMEOUT_S
                if not retry_s
                else max(1.0, min(CONNECT_TIMEOUT_S, left_s)),
            )
        except NetworkError as error:
            if error.errno not in NOT_UP_YET or time.monotonic() + RETRY_PAUSE_S >= ends:
                raise
            time.sleep(RETRY_PAUSE_S)
            continue
        sock.setblocking(False)
        return sock


@contextmanager
def listening(endpoint: Endpoint) -> Iterator[tuple[socket.socket, Endpoint]]:
    """A listener and the endpoint as bound. Raises NetworkError."""
    transport: ModuleType = TRANSPORTS.load(endpoint.transport, "python")
    with transport.listen(endpoint, SocketOptions()) as listener:
        yield listener.sock, listener.endpoint


def wait_readable(fds: list[int], ends: float | None) -> list[int]:
    """Descriptors of `fds` with something to read, after MOVER_SLICE_S at the latest.

    [] when `ends` (monotonic) is not over.

    Raises TimeoutError when it is.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    ready = [fd for fd, _ in poll.poll(MOVER_SLICE_S * 1000)]
    if not ready and ends is not None and time.monotonic() >= ends:
        raise TimeoutError
    return ready


def accept(listener: socket.socket) -> socket.socket | None:
    """One connection, non-blocking; None when it is gone again."""
    try:
        sock, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError, InterruptedError):
        return None
    sock.setblocking(False)
    return sock


def no_connection(endpoint: Endpoint, wait_s: float) -> NetworkError:
    """The error of a listener to which no peer connected in time."""
    hint = "Check that the other side connects to this address, or give a longer --wait"
    return NetworkError(
        f"no peer connected to {endpoint} within {wait_s:g} s", hint, errno.ETIMEDOUT
    )


def accept_first_sender(
    listener: socket.socket, endpoint: Endpoint, wait_s: float | None
) -> socket.socket:
    """Accept until one connection sends something, or ends: that is the one.

    The silent others are closed.

    A port scanner's reset, or a connection that says nothing, so takes no one's place. Raises
    NetworkError after wait_s.
    """
    ends = None if wait_s is None else time.monotonic() + wait_s
    silent: dict[int, socket.socket] = {}
    try:
        while True:
            try:
                ready = wait_readable([*silent, listener.fileno()], ends)
            except TimeoutError:
                raise no_connection(endpoint, wait_s or 0.0) from None
            for fd in ready:
                if fd != listener.fileno():
                    sock = silent.pop(fd)
                    if not was_reset(sock):
                        return sock
                    sock.close()
                elif (fresh := accept(listener)) is not None:
                    silent[fresh.fileno()] = fresh
            while len(silent) > PENDING_HANDSHAKES_MAX:
                silent.pop(next(iter(silent))).close()  # the oldest
    finally:
        for sock in silent.values():
            sock.close()


def was_reset(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
    return False


def reset_on_close(sock: socket.socket, reset: bool) -> None:
    """Choose whether close(2), or the end of this process, sends RST instead of FIN.

    By SO_LINGER (socket(7)). A peer that waits for room in our window is not woken by FIN, and
    Linux may keep the window of an orphaned socket closed for net.ipv4.tcp_fin_timeout: a receiver
    that fails therefore resets. Raises OSError.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", int(reset), 0))


def peer_name(sock: socket.socket) -> str:
    """The other end as an endpoint, for people."""
    try:
        name = sock.getpeername()
    except OSError:
        return "a peer that is gone"
    if sock.family == socket.AF_UNIX:
        return "a local process"
    return str(Endpoint("tcp", name[0].removeprefix("::ffff:"), name[1]))
