"""Sessions of fastnet/1 and their connections: connect and have one, or listen and have one, or any
number.

Facts. Whoever can reach a listener may connect: the peer, a port scanner, somebody who never says a
word.
Decision: a thread a connection. None counts until it has greeted in time and with the right token,
and then, without keep_open, the first takes the place and the others are told so. Of too many that
have not greeted the oldest is sent away.
"""

from __future__ import annotations

import errno
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
from fastnet.apps.transfer.protocol.frames import Kind, pack_json
from fastnet.apps.transfer.protocol.handshake import Greeting, Peer, expect, greet
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.connection import Broken, Channel
from fastnet.apps.transfer.session.listen import (
    accept,
    dial_until,
    listening,
    nobody_came,
    peer_name,
    reset_on_close,
    wait_readable,
)
from fastnet.apps.transfer.session.session import Cancelled, Options, Session, say_farewell
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
from fastnet.transport.congestion import settle

if TYPE_CHECKING:
    from concurrent.futures import Future

    from fastnet.transport import tls

TICKET_BYTES = 16
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Opened(NamedTuple):
    """A connection whose peer has greeted, for the session to come. ticket: for further connections
    to this listener.
    """

    channel: Channel
    peer: Peer
    ticket: str
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


Make = Callable[[Opened], Session]
"""Makes the session for a connection."""


def await_welcome(channel: Channel) -> None:
    """A further connection belongs to its transfer when the listener has said so. Raises
    TransferError.
    """
    channel.deadline = monotonic() + HELLO_S
    expect(channel, Kind.ALIVE)
    channel.deadline = None


def strangers_max() -> int:
    """How many may be greeting at once: never so many that they take the descriptors of a transfer
    that runs.
    """
    return max(
        1, min(STRANGERS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // STRANGERS_SHARE)
    )


def never() -> bool:
    """The `stopped` of who does not want to stop a transfer."""
    return False


def get_ready() -> None:
    """Load what the first connection would otherwise have to wait for."""
    for name in ("concurrent.futures", "xxhash"):
        import_module(name)


@dataclass
class Host:
    """What all connections of one command share. greeting: without its TLS binding, which each
    connection has its own.
    """

    greeting: Greeting
    options: Options
    make: Make
    on_event: OnEvent
    stopped: Callable[[], bool] = never
    keep_open: bool = False
    context: tls.Context | None = None
    reports: list[TransferReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    _greeting: list[Channel] = field(default_factory=list)
    _tickets: dict[str, Future[Session]] = field(default_factory=dict)
    _running: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: int = 0
    _over: bool = False
    _ended: int = -1

    def connect(self, endpoint: Endpoint) -> TransferReport:
        """Connect and have the one session. Raises NetworkError and TransferError."""
        with dial_until(endpoint, self.options.retry_s) as sock:
            report = self._transfer(self._greet(self._channel(sock), True, endpoint.host), endpoint)
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
                self._over = not self.keep_open or not self.stopped()
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
            if error.errno not in EXHAUSTED:
                raise
            threading.Event().wait(MOVER_SLICE_S)  # whoever runs goes on, and gives some back
            return
        if sock is None:
            return
        channel = self._channel(sock)
        with self._lock:
            self._greeting.append(channel)
            oldest = self._greeting[0] if len(self._greeting) > strangers_max() else None
        if oldest is not None:
            oldest.hang_up()
        thread = threading.Thread(target=self._serve, args=(channel,), name="transfer")
        self._running = [each for each in self._running if each.is_alive()]
        self._running.append(thread)
        thread.start()

    def _is_over(self) -> bool:
        if self.stopped() and not self._taken:
            if not self.keep_open:
                raise Cancelled
            return True
        return self.stopped() if self.keep_open else bool(self.reports or self.errors)

    def _join_threads(self) -> None:
        for thread in self._running:
            while thread.is_alive():
                thread.join(MOVER_SLICE_S)

    def _serve(self, channel: Channel) -> None:
        """The life of one connection that came to us, in its thread."""
        try:
            opened = self._greet(channel, False, channel.peer)
        except (FastnetError, OSError) as error:
            if not isinstance(error, Cancelled):
                why = error.message if isinstance(error, FastnetError) else reason(error)
                self.on_event(TransferEvent("message", text=f"{channel.peer} was sent away: {why}"))
            return
        if opened.peer.joins:
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

    # Further connections of a transfer (lane.py)

    def _new_ticket(self) -> str:
        """Known before the peer hears of it, for it may use it at once."""
        # here, because whoever connects has no tickets, and the time is short
        from concurrent.futures import Future

        ticket = os.urandom(TICKET_BYTES).hex()
        with self._lock:
            self._tickets[ticket] = Future()
        return ticket

    def _forget_ticket(self, ticket: str) -> None:
        with self._lock:
            session = self._tickets.pop(ticket, None)
        if session is not None:
            session.cancel()

    def _join(self, opened: Opened) -> None:
        """A connection that came to us with a ticket."""
        self._forget_ticket(opened.ticket)  # nobody joins a further one
        with self._lock:
            session = self._tickets.get(opened.peer.joins)
        if session is None:
            say_farewell(
                opened.channel, TransferRefused("there is no such transfer", "", ErrorCode.REFUSED)
            )
            return opened.channel.close()
        from concurrent.futures import CancelledError

        try:
            session.result(HELLO_S).serve_lane(opened.channel, pack_json(Kind.ALIVE, {"bytes": 0}))
        except (CancelledError, TimeoutError):
            opened.channel.close()

    def _branch(self, session: Session, endpoint: Endpoint, ticket: str) -> None:
        """Connect once more, for a transfer that runs. It goes on without, when that fails."""
        try:
            with dial_until(endpoint) as sock:
                channel = self._channel(sock)
                try:
                    self._greet(channel, True, endpoint.host, self.greeting._replace(joins=ticket))
                    await_welcome(channel)
                    session.serve_lane(channel)
                finally:
                    channel.close()
        except (FastnetError, OSError) as error:
            if not session.is_over:
                why = error.message if isinstance(error, FastnetError) else reason(error)
                self.on_event(
                    TransferEvent("message", text=f"goes on with a connection less: {why}")
                )

    @contextmanager
    def _branches(
        self, session: Session, opened: Opened, endpoint: Endpoint | None
    ) -> Iterator[None]:
        """The further connections of a session: we dial them, or they come with its ticket."""
        threads = []
        if endpoint is None:
            self._tickets[opened.ticket].set_result(session)
        elif opened.peer.ticket:
            arguments = (session, endpoint, opened.peer.ticket)
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

    def _channel(self, sock: socket.socket) -> Channel:
        channel = Channel(sock, peer_name(sock), self.options.stall_s)
        channel.on_slice = self._look
        return channel

    def _greet(
        self, channel: Channel, dialled: bool, host: str, greeting: Greeting | None = None
    ) -> Opened:
        """Find out who is there. A connection that came to us then takes its place. On failure the
        peer is told.
        """
        greeting = greeting or self.greeting._replace(ticket="" if dialled else self._new_ticket())
        try:
            congestion = settle(channel.sock, self.options.congestion)
            peer = self._open(channel, greeting, dialled, host)
            number = 1 if dialled or peer.joins else self._take_place(channel)
        except BaseException as error:
            if isinstance(error, TransferError):
                say_farewell(channel, error)
            # it heard nothing, and a raw receiver would take a FIN for the file's end
            if isinstance(error, Broken):
                with suppress(OSError):
                    reset_on_close(channel.sock, True)
            channel.close()
            self._forget_ticket(greeting.ticket)
            raise
        finally:
            with self._lock, suppress(ValueError):
                self._greeting.remove(channel)
        stopped = self.stopped if dialled else self._is_stopped
        return Opened(channel, peer, greeting.ticket, number, congestion, stopped)

    def _transfer(self, opened: Opened, dialled: Endpoint | None = None) -> TransferReport:
        try:
            session = self.make(opened)
            with self._branches(session, opened, dialled):
                return session.run()
        except FastnetError as error:
            say_farewell(opened.channel, error)
            if isinstance(error, Broken) and self.greeting.role == "recv":
                with suppress(OSError):
                    reset_on_close(opened.channel.sock, True)
            raise
        finally:
            opened.channel.close()
            self._forget_ticket(opened.ticket)

    def _open(self, channel: Channel, greeting: Greeting, dialled: bool, host: str) -> Peer:
        """TLS, when it is wanted, and the greeting."""
        if self.context is not None:
            from fastnet.transport import tls

            secure = tls.begin(channel.sock, self.context, not dialled, host)
            channel.secure(secure)
            tls.shake(secure, host, HELLO_S, self._look)
            greeting = greeting._replace(binding=tls.binding(secure))
        return greet(channel, greeting, dialled)

    def _take_place(self, channel: Channel) -> int:
        with self._lock:
            if (self._taken and not self.keep_open) or self._over:
                raise TransferRefused(
                    "it is busy with somebody else", "Try again later", ErrorCode.REFUSED
                )
            self._taken += 1
            self._greeting.remove(channel)
            return self._taken

    def _look(self) -> None:
        """While greeting: give up when it is over."""
        if self._over or self.stopped():
            raise Cancelled

    def _is_stopped(self) -> bool:
        """Whether a session that runs must end: with keep_open those that run are seen to their
        ends.
        """
        return self._over or (not self.keep_open and self.stopped())
