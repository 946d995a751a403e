"""Send a file raw: to a receiver that listens, or to each client that connects.

Decision: a thread for each client, and a slice of a native mover holds no GIL, so a client that
reads slowly, or not at all, does not delay the others. Raw mode has no handshake, so a client is
admitted when it connects and cannot be refused. Without keep_open the first transfer that succeeds
is the last one: no further client is accepted, and running transfers are completed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from fastnet.apps.transfer.events import (
    OnEvent,
    TransferCancelled,
    TransferEvent,
    one_at_a_time,
)
from fastnet.apps.transfer.options import ShouldStop
from fastnet.apps.transfer.raw.session import RawOptions, RawSession
from fastnet.apps.transfer.raw.source import RawSource
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import dial_until
from fastnet.apps.transfer.session.listener import TransferListener
from fastnet.endpoint import Endpoint
from fastnet.limits import TRANSFER_CLIENTS_MAX
from fastnet.mover import choose


def send_file(
    path: str, endpoint: Endpoint, options: RawOptions, on_event: OnEvent, retry_s: float = 0.0
) -> TransferReport:
    """Connect to a receiver and send it one file. Raises NetworkError and TransferError."""
    with RawSource(path) as source, dial_until(endpoint, retry_s) as sock:
        report = RawSession(sock, options, on_event).send(source)
        report_growth(source, on_event, 1)
    on_event(TransferEvent("report", report=report))
    return report


def report_growth(source: RawSource, on_event: OnEvent, number: int) -> None:
    """Emit a message if the source is longer than what was sent of it."""
    if grown := source.growth():
        text = f"{source.name} has grown by {grown} bytes since; they were not sent"
        on_event(TransferEvent("message", number, text=text))


class RawFileServer:
    """Sends one source to each connection of a listener."""

    def __init__(
        self, source: RawSource, options: RawOptions, on_event: OnEvent, listener: TransferListener
    ) -> None:
        self._source = source
        self._options = options
        self._on_event = on_event
        self._listener = listener

    def on_accept(self, sock: socket.socket) -> Callable[[], None]:
        """Admit the connection. Returns what its thread runs."""
        number = self._listener.admit(exclusive=False)

        def serve() -> None:
            with sock:
                self._listener.run_session(number, lambda: self._send(sock, number))

        return serve

    def _send(self, sock: socket.socket, number: int) -> TransferReport:
        session = RawSession(sock, self._options, self._on_event, self._check_cancelled, number)
        report = session.send(self._source)
        report_growth(self._source, self._on_event, number)
        return report

    def _check_cancelled(self) -> None:
        if self._listener.is_session_cancelled():
            raise TransferCancelled


def serve_file(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    keep_open: bool = False,
    wait_s: float | None = None,
    should_stop: ShouldStop = lambda: False,
) -> TransferReport | None:
    """Listen and send one file to each client that connects.

    Args:
        path: The file; "-" is standard input, which one client can have at a time.
        endpoint: Where to listen.
        options: How to transfer.
        on_event: Called in the threads of the transfers, one call at a time.
        keep_open: Serve any number of clients until should_stop returns true.
        wait_s: Seconds to wait for the first and for each next client; None for no limit.
        should_stop: Polled several times a second. With keep_open running transfers complete;
            otherwise they are cancelled.

    Returns:
        The report of the last transfer that succeeded; None if there was none.

    Raises:
        NetworkError: The address cannot be bound, or no client connected.
        TransferError: No transfer succeeded; the last one failed with this error.
    """
    emit = one_at_a_time(on_event)
    with RawSource(path) as source:
        # what cannot work fails before a client connects
        choose("send", source.fd, options.mover, options.backend)
        listener = TransferListener(
            emit,
            should_stop,
            keep_open=keep_open,
            threads_max=1 if source.is_stream else TRANSFER_CLIENTS_MAX,
            wait_s=wait_s,
            renews_wait=True,
        )
        server = RawFileServer(source, options, emit, listener)
        listener.run(endpoint, server.on_accept)
    if listener.last_report is None and listener.last_error is not None:
        raise listener.last_error
    return listener.last_report
