"""Connections and sessions of fastnet/1 for one command: connect or listen.

Decision: a connection is admitted after its TLS and fastnet/1 handshakes, which have HELLO_S to
complete. Without keep_open the first admitted session is the only one, and later peers receive an
ERROR. Above pending_handshakes_max() the oldest pending connection is closed. Further connections
of a session carry its session id; the side that connected opens them.
"""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferCancelled, TransferEvent
from fastnet.apps.transfer.options import ShouldStop, TransferOptions
from fastnet.apps.transfer.protocol.frames import FrameKind, pack_json
from fastnet.apps.transfer.protocol.handshake import Hello, PeerHello, expect, perform_handshake
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import ConnectionLost, TransferConnection
from fastnet.apps.transfer.session.listen import dial_until, peer_name, reset_on_close
from fastnet.apps.transfer.session.listener import TransferListener
from fastnet.apps.transfer.session.session import TransferSession, send_error
from fastnet.apps.transfer.session.session_table import SessionTable
from fastnet.endpoint import Endpoint
from fastnet.errors import FastnetError, TransferError, TransferRefused, reason
from fastnet.limits import (
    FAREWELL_S,
    HELLO_S,
    PENDING_HANDSHAKES_FD_DIVISOR,
    PENDING_HANDSHAKES_MAX,
    STREAMS_MAX,
    TRANSFER_CLIENTS_MAX,
)
from fastnet.transport.congestion import set_congestion_control

if TYPE_CHECKING:
    from fastnet.transport import tls


class SessionContext(NamedTuple):
    """An authenticated and admitted connection, from which a session is made."""

    connection: TransferConnection
    """The control connection."""
    peer: PeerHello
    """The peer's handshake."""
    session_id: str
    """The id that further connections to this listener name; "" on the connecting side."""
    number: int
    """The session's number in events."""
    congestion: str
    """The congestion control of the connection."""
    should_stop: ShouldStop
    """Polled several times a second; true cancels the session."""


SessionFactory = Callable[[SessionContext], TransferSession]
"""Makes the session of a connection. May raise TransferError."""


class PendingHandshakes:
    """Connections whose handshake is not complete.

    Above the bound the oldest is shut down.
    """

    def __init__(self) -> None:
        self._connections: list[TransferConnection] = []
        self._lock = threading.Lock()

    def add(self, connection: TransferConnection) -> None:
        with self._lock:
            self._connections.append(connection)
            is_full = len(self._connections) > pending_handshakes_max()
            oldest = self._connections[0] if is_full else None
        if oldest is not None:
            oldest.shut_down()

    def remove(self, connection: TransferConnection) -> None:
        with self._lock, suppress(ValueError):
            self._connections.remove(connection)


def pending_handshakes_max() -> int:
    """Bound of pending handshakes, which leaves descriptors for running transfers."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(PENDING_HANDSHAKES_MAX, descriptors // PENDING_HANDSHAKES_FD_DIVISOR))


def preload() -> None:
    """Load what the first connection would otherwise wait for."""
    for name in ("concurrent.futures", "xxhash"):
        import_module(name)


class SessionManager:
    """All connections of one command. Call `connect` or `listen`, once."""

    def __init__(
        self,
        hello: Hello,
        options: TransferOptions,
        make_session: SessionFactory,
        on_event: OnEvent,
        should_stop: ShouldStop,
        *,
        keep_open: bool = False,
    ) -> None:
        """Make a manager.

        Args:
            hello: This side's handshake, without session ids and TLS binding.
            options: Of every session.
            make_session: Makes the session of an admitted connection.
            on_event: Called with the events of all sessions.
            should_stop: Polled several times a second.
            keep_open: Listening: admit any number of sessions until should_stop returns true.
        """
        self.options = options
        self.on_event = on_event
        self.tls_context: tls.Context | None = None
        """Set before `connect` or `listen` for connections by TLS."""
        self._hello = hello
        self._make_session = make_session
        self._should_stop = should_stop
        self._pending = PendingHandshakes()
        self._sessions = SessionTable()
        self._listener = TransferListener(
            on_event,
            should_stop,
            keep_open=keep_open,
            threads_max=TRANSFER_CLIENTS_MAX + PENDING_HANDSHAKES_MAX,
            wait_s=options.wait_s,
        )

    # The side that connects

    def connect(self, endpoint: Endpoint) -> TransferReport:
        """Connect and run one session. Raises NetworkError and TransferError."""
        with dial_until(endpoint, self.options.retry_s) as sock:
            connection = self._new_connection(sock)
            peer, congestion = self._handshake(connection, self._hello, endpoint.host)
            context = SessionContext(connection, peer, "", 1, congestion, self._should_stop)
            report = self._run_session(context, endpoint)
        self.on_event(TransferEvent("report", report=report))
        return report

    @contextmanager
    def _data_connections(
        self, session: TransferSession, peer: PeerHello, endpoint: Endpoint
    ) -> Iterator[None]:
        """Open as many further connections as the peer announced, for as long as the block runs."""
        count = min(peer.streams, STREAMS_MAX) - 1 if peer.session_id else 0
        threads = [
            threading.Thread(
                target=self._serve_dialled,
                args=(session, endpoint, peer.session_id),
                name="data connection",
                daemon=True,
            )
            for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            session.close()
            ends = monotonic() + FAREWELL_S
            for thread in threads:
                thread.join(max(0.0, ends - monotonic()))

    def _serve_dialled(self, session: TransferSession, endpoint: Endpoint, session_id: str) -> None:
        """Open one further connection; the transfer continues without it if that fails."""
        try:
            with dial_until(endpoint) as sock:
                connection = self._new_connection(sock)
                hello = self._hello._replace(joins_session=session_id)
                try:
                    self._handshake(connection, hello, endpoint.host)
                    await_welcome(connection)
                    session.serve_data_connection(connection)
                finally:
                    connection.close()
        except (FastnetError, OSError) as error:
            if not session.is_over:
                text = f"continues with one connection less: {reason_of(error)}"
                self.on_event(TransferEvent("message", text=text))

    # The side that listens

    def listen(self, endpoint: Endpoint) -> TransferReport | None:
        """Listen for one session, or with keep_open for any number.

        Returns the last report.

        Raises NetworkError, and without keep_open the error of the session.
        """
        self._listener.run(endpoint, self._on_accept, preload)
        if self._listener.last_error is not None and not self._listener.keep_open:
            raise self._listener.last_error
        return self._listener.last_report

    def _on_accept(self, sock: socket.socket) -> Callable[[], None]:
        connection = self._new_connection(sock)
        self._pending.add(connection)
        return lambda: self._serve_accepted(connection)

    def _serve_accepted(self, connection: TransferConnection) -> None:
        """One accepted connection, in its thread."""
        session_id = self._sessions.new_id()
        try:
            hello = self._hello._replace(session_id=session_id)
            peer, congestion = self._handshake(connection, hello, None)
            number = 0 if peer.joins_session else self._admit(connection)
        except (FastnetError, OSError) as error:
            self._sessions.remove(session_id)
            if not isinstance(error, TransferCancelled):
                text = f"{connection.peer} was rejected: {reason_of(error)}"
                self.on_event(TransferEvent("message", text=text))
            return
        if peer.joins_session:
            self._sessions.remove(session_id)
            return self._join_session(connection, peer.joins_session)
        should_stop = self._listener.is_session_cancelled
        context = SessionContext(connection, peer, session_id, number, congestion, should_stop)
        self._listener.run_session(number, lambda: self._run_session(context))

    def _admit(self, connection: TransferConnection) -> int:
        try:
            return self._listener.admit(exclusive=True)
        except TransferRefused as error:
            send_error(connection, error)
            connection.close()
            raise

    def _join_session(self, connection: TransferConnection, session_id: str) -> None:
        """An accepted connection that belongs to a running session."""
        if not self._sessions.has(session_id):
            error = TransferRefused("there is no such transfer", "", ErrorCode.REFUSED)
            send_error(connection, error)
            return connection.close()
        session = self._sessions.wait_for(session_id, HELLO_S)
        if session is None:
            return connection.close()
        session.serve_data_connection(connection, pack_json(FrameKind.KEEPALIVE, {"bytes": 0}))

    # Both

    def _new_connection(self, sock: socket.socket) -> TransferConnection:
        connection = TransferConnection(sock, peer_name(sock), self.options.stall_s)
        connection.on_slice = self._listener.check_handshake
        return connection

    def _handshake(
        self, connection: TransferConnection, hello: Hello, host: str | None
    ) -> tuple[PeerHello, str]:
        """TLS, if configured, and the handshake of fastnet/1.

        The peer receives our error.

        host: whom we connected to, None for an accepted connection. Returns the peer's handshake
        and the congestion control; on failure closes the connection.
        """
        is_client = host is not None
        try:
            congestion = set_congestion_control(connection.sock, self.options.congestion)
            if self.tls_context is not None:
                from fastnet.transport import tls

                name = connection.peer if host is None else host
                secure = tls.begin(connection.sock, self.tls_context, not is_client, name)
                connection.secure(secure)
                tls.shake(secure, name, HELLO_S, self._listener.check_handshake)
                hello = hello._replace(binding=tls.binding(secure))
            return perform_handshake(connection, hello, is_client), congestion
        except BaseException as error:
            if isinstance(error, TransferError):
                send_error(connection, error)
            # the peer received no error, and a raw receiver would take FIN for the file's end
            if isinstance(error, ConnectionLost):
                with suppress(OSError):
                    reset_on_close(connection.sock, True)
            connection.close()
            raise
        finally:
            self._pending.remove(connection)

    def _run_session(
        self, context: SessionContext, endpoint: Endpoint | None = None
    ) -> TransferReport:
        """Run a session and close its connections. endpoint: where we connected to, if we did."""
        try:
            session = self._make_session(context)
            if endpoint is not None:
                with self._data_connections(session, context.peer, endpoint):
                    return session.run()
            self._sessions.publish(context.session_id, session)
            try:
                return session.run()
            finally:
                session.close()
        except FastnetError as error:
            send_error(context.connection, error)
            if isinstance(error, ConnectionLost) and self._hello.role == "recv":
                with suppress(OSError):
                    reset_on_close(context.connection.sock, True)
            raise
        finally:
            context.connection.close()
            self._sessions.remove(context.session_id)


def await_welcome(connection: TransferConnection) -> None:
    """Wait for the KEEPALIVE that admits a further connection. Raises TransferError."""
    connection.deadline = monotonic() + HELLO_S
    expect(connection, FrameKind.KEEPALIVE)
    connection.deadline = None


def reason_of(error: FastnetError | OSError) -> str:
    """Why a connection failed, in a few words."""
    return error.message if isinstance(error, FastnetError) else reason(error)
