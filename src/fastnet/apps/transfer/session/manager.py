"""Sessions of fastnet/1 and their connections: connect and have one, or listen and have one, or any
number.

Facts. Whoever can reach a listener may connect: the peer, a port scanner, somebody who never says a
word.
Decision: a thread a connection. None counts until it has greeted in time and with the right token,
and then, without keep_open, the first takes the place and the others are told so. Of too many that
have not greeted the oldest is sent away.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.apps.transfer.options import TransferOptions
from fastnet.apps.transfer.protocol.frames import FrameKind, pack_json
from fastnet.apps.transfer.protocol.handshake import Hello, PeerHello, expect, perform_handshake
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import ConnectionLost, TransferConnection
from fastnet.apps.transfer.session.listen import (
    accept,
    dial_until,
    listening,
    nobody_came,
    peer_name,
    reset_on_close,
    wait_readable,
)
from fastnet.apps.transfer.session.session import (
    TransferCancelled,
    TransferSession,
    send_error,
)
from fastnet.endpoint import Endpoint
from fastnet.errors import FastnetError, TransferError, TransferRefused, reason
from fastnet.limits import (
    FAREWELL_S,
    HELLO_S,
    MOVER_SLICE_S,
    STRANGERS_MAX,
    STRANGERS_SHARE,
    STREAMS_MAX,
    TRANSFER_CLIENTS_MAX,
)
from fastnet.transport.accept_errors import ACCEPT_CAPACITY_ERRNOS
from fastnet.transport.congestion import settle

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fastnet.transport import tls

SESSION_ID_BYTES = 16


class Opened(NamedTuple):
    """A connection whose peer has greeted, for the session to come. session_id: for further connections
    to this listener.
    """

    connection: TransferConnection
    peer: PeerHello
    session_id: str
    number: int
    congestion: str
    stopped: Callable[[], bool]


@contextmanager
def ended_event() -> Iterator[int]:
    """A descriptor that is readable when a session has ended, so that whoever waits for connections
    notices (eventfd(2)).
    """
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def as_event(error: Exception, number: int) -> TransferEvent:
    """One session's failure, for a host that goes on."""
    if not isinstance(error, FastnetError):
        return TransferEvent(
            "error",
            number,
            code=ErrorCode.FAILED,
            text=f"unexpected {type(error).__name__}: {error}",
        )
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    return TransferEvent("error", number, code=code, text=error.message, hint=error.hint)


Make = Callable[[Opened], TransferSession]
"""Makes the session for a connection."""


def await_welcome(connection: TransferConnection) -> None:
    """A further connection belongs to its transfer when the listener has said so. Raises
    TransferError.
    """
    connection.deadline = monotonic() + HELLO_S
    expect(connection, FrameKind.KEEPALIVE)
    connection.deadline = None


def strangers_max() -> int:
    """How many may be hello at once: never so many that they take the descriptors of a transfer
    that runs.
    """
    return max(
        1, min(STRANGERS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // STRANGERS_SHARE)
    )


def get_ready() -> None:
    """Load what the first connection would otherwise have to wait for."""
    for name in ("concurrent.futures", "xxhash"):
        import_module(name)


@dataclass
class Host:
    """What all connections of one command share. hello: without its TLS binding, which each
    connection has its own.
    """

    hello: Hello
    options: TransferOptions
    make: Make
    on_event: OnEvent
    should_stop: Callable[[], bool]
    keep_open: bool = False
    context: tls.Context | None = None
    reports: list[TransferReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _handshakes: list[TransferConnection] = field(default_factory=list)
    _sessions: dict[str, Future[TransferSession]] = field(default_factory=dict)
    _running: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: int = 0
    _over: bool = False
    _ended: int = -1

    def connect(self, endpoint: Endpoint) -> TransferReport:
        """Connect and have the one session. Raises NetworkError and TransferError."""
        with dial_until(endpoint, self.options.retry_s) as sock:
            report = self._transfer(
                self._handshake(self._connection(sock), True, endpoint.host), endpoint
            )
        self.on_event(TransferEvent("report", report=report))
        return report

    def listen(self, endpoint: Endpoint) -> TransferReport | None:
        """Listen, and have one session, or with keep_open any number until stopped. Returns the
        last
        report.

        Raises NetworkError, and without keep_open what ended the session.
        """
        waits = self.options.wait_s
        ends = None if waits is None else monotonic() + waits
        with listening(endpoint) as (listener, where), ended_event() as self._ended:
            self.on_event(TransferEvent("listening", endpoint=str(where)))
            get_ready()
            try:
                while not self._is_over():
                    if self._taken:
                        ends = None
                    self._admit(listener, where, ends)
            finally:
                self._over = not self.keep_open or not self.should_stop()
                self._join_threads()
        if self.errors and not self.keep_open:
            raise self.errors[0]
        return self.reports[-1] if self.reports else None

    def _admit(self, listener: socket.socket, where: Endpoint, ends: float | None) -> None:
        if (
            sum(thread.is_alive() for thread in self._running)
            >= TRANSFER_CLIENTS_MAX + STRANGERS_MAX
        ):
            threading.Event().wait(MOVER_SLICE_S)
            return
        try:
            ready = wait_readable([listener.fileno(), self._ended], ends)
        except TimeoutError:
            raise nobody_came(where, self.options.wait_s or 0.0) from None
        if self._ended in ready:
            os.eventfd_read(self._ended)
        try:
            sock = accept(listener) if listener.fileno() in ready else None
        except OSError as error:
            if error.errno not in ACCEPT_CAPACITY_ERRNOS:
                raise
            threading.Event().wait(MOVER_SLICE_S)  # whoever runs goes on, and gives some back
            return
        if sock is None:
            return
        connection = self._connection(sock)
        with self._lock:
            self._handshakes.append(connection)
            oldest = self._handshakes[0] if len(self._handshakes) > strangers_max() else None
        if oldest is not None:
            oldest.shut_down()
        thread = threading.Thread(target=self._serve, args=(connection,), name="transfer")
        self._running = [each for each in self._running if each.is_alive()]
        self._running.append(thread)
        thread.start()

    def _is_over(self) -> bool:
        if self.should_stop() and not self._taken:
            if not self.keep_open:
                raise TransferCancelled
            return True
        return self.should_stop() if self.keep_open else bool(self.reports or self.errors)

    def _join_threads(self) -> None:
        for thread in self._running:
            while thread.is_alive():
                thread.join(MOVER_SLICE_S)

    def _serve(self, connection: TransferConnection) -> None:
        """The life of one connection that came to us, in its thread."""
        try:
            opened = self._handshake(connection, False, connection.peer)
        except (FastnetError, OSError) as error:
            if not isinstance(error, TransferCancelled):
                why = error.message if isinstance(error, FastnetError) else reason(error)
                self.on_event(
                    TransferEvent("message", text=f"{connection.peer} was sent away: {why}")
                )
            return
        if opened.peer.joins_session:
            return self._join(opened)
        try:
            report = self._transfer(opened)
            self.on_event(TransferEvent("report", opened.number, report=report))
            self.reports.append(report)
        except Exception as error:
            if self.keep_open:
                self.on_event(as_event(error, opened.number))
            self.errors.append(error)
        finally:
            os.eventfd_write(self._ended, 1)

    # Further connections of a transfer (data_connection.py)

    def _new_session_id(self) -> str:
        """Known before the peer hears of it, for it may use it at once."""
        # here, because whoever connects has no tickets, and the time is short
        from concurrent.futures import Future

        session_id = os.urandom(SESSION_ID_BYTES).hex()
        with self._lock:
            self._sessions[session_id] = Future()
        return session_id

    def _forget_session(self, session_id: str) -> None:
        with self._lock:
            session = self._sessions.pop(session_id, None)
        if session is not None:
            session.cancel()

    def _join(self, opened: Opened) -> None:
        """A connection that came to us with a session_id."""
        self._forget_session(opened.session_id)  # nobody joins_session a further one
        with self._lock:
            session = self._sessions.get(opened.peer.joins_session)
        if session is None:
            send_error(
                opened.connection,
                TransferRefused("there is no such transfer", "", ErrorCode.REFUSED),
            )
            return opened.connection.close()
        from concurrent.futures import CancelledError

        try:
            session.result(HELLO_S).serve_data_connection(
                opened.connection, pack_json(FrameKind.KEEPALIVE, {"bytes": 0})
            )
        except (CancelledError, TimeoutError):
            opened.connection.close()

    def _branch(self, session: TransferSession, endpoint: Endpoint, session_id: str) -> None:
        """Connect once more, for a transfer that runs. It goes on without, when that fails."""
        try:
            with dial_until(endpoint) as sock:
                connection = self._connection(sock)
                try:
                    self._handshake(
                        connection,
                        True,
                        endpoint.host,
                        self.hello._replace(joins_session=session_id),
                    )
                    await_welcome(connection)
                    session.serve_data_connection(connection)
                finally:
                    connection.close()
        except (FastnetError, OSError) as error:
            if not session.is_over:
                why = error.message if isinstance(error, FastnetError) else reason(error)
                self.on_event(
                    TransferEvent("message", text=f"goes on with a connection less: {why}")
                )

    @contextmanager
    def _branches(
        self, session: TransferSession, opened: Opened, endpoint: Endpoint | None
    ) -> Iterator[None]:
        """The further connections of a session: we dial them, or they come with its session_id."""
        threads = []
        if endpoint is None:
            self._sessions[opened.session_id].set_result(session)
        elif opened.peer.session_id:
            arguments = (session, endpoint, opened.peer.session_id)
            for _ in range(min(opened.peer.streams, STREAMS_MAX) - 1):
                threads.append(
                    threading.Thread(target=self._branch, args=arguments, name="lane", daemon=True)
                )
                threads[-1].start()
        try:
            yield
        finally:
            session.close()
            ends = monotonic() + FAREWELL_S
            for thread in threads:
                thread.join(max(0.0, ends - monotonic()))

    # One connection

    def _connection(self, sock: socket.socket) -> TransferConnection:
        connection = TransferConnection(sock, peer_name(sock), self.options.stall_s)
        connection.on_slice = self._look
        return connection

    def _handshake(
        self, connection: TransferConnection, dialled: bool, host: str, hello: Hello | None = None
    ) -> Opened:
        """Find out who is there. A connection that came to us then takes its place. On failure the
        peer is told.
        """
        hello = hello or self.hello._replace(session_id="" if dialled else self._new_session_id())
        try:
            congestion = settle(connection.sock, self.options.congestion)
            peer = self._open(connection, hello, dialled, host)
            number = 1 if dialled or peer.joins_session else self._take_place(connection)
        except BaseException as error:
            if isinstance(error, TransferError):
                send_error(connection, error)
            # it heard nothing, and a raw receiver would take a FIN for the file's end
            if isinstance(error, ConnectionLost):
                with suppress(OSError):
                    reset_on_close(connection.sock, True)
            connection.close()
            self._forget_session(hello.session_id)
            raise
        finally:
            with self._lock, suppress(ValueError):
                self._handshakes.remove(connection)
        stopped = self.should_stop if dialled else self._is_stopped
        return Opened(connection, peer, hello.session_id, number, congestion, stopped)

    def _transfer(self, opened: Opened, dialled: Endpoint | None = None) -> TransferReport:
        try:
            session = self.make(opened)
            with self._branches(session, opened, dialled):
                return session.run()
        except FastnetError as error:
            send_error(opened.connection, error)
            if isinstance(error, ConnectionLost) and self.hello.role == "recv":
                with suppress(OSError):
                    reset_on_close(opened.connection.sock, True)
            raise
        finally:
            opened.connection.close()
            self._forget_session(opened.session_id)

    def _open(
        self, connection: TransferConnection, hello: Hello, dialled: bool, host: str
    ) -> PeerHello:
        """TLS, when it is wanted, and the greeting."""
        if self.context is not None:
            from fastnet.transport import tls

            secure = tls.begin(connection.sock, self.context, not dialled, host)
            connection.secure(secure)
            tls.shake(secure, host, HELLO_S, self._look)
            hello = hello._replace(binding=tls.binding(secure))
        return perform_handshake(connection, hello, dialled)

    def _take_place(self, connection: TransferConnection) -> int:
        with self._lock:
            if (self._taken and not self.keep_open) or self._over:
                raise TransferRefused(
                    "it is busy with somebody else", "Try again later", ErrorCode.REFUSED
                )
            self._taken += 1
            self._handshakes.remove(connection)
            return self._taken

    def _look(self) -> None:
        """While greeting: give up when it is over."""
        if self._over or self.should_stop():
            raise TransferCancelled

    def _is_stopped(self) -> bool:
        """Whether a session that runs must end: with keep_open those that run are seen to their
        ends.
        """
        return self._over or (not self.keep_open and self.should_stop())
