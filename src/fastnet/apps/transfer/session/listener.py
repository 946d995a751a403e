"""Listener of a transfer command, for fastnet/1 and raw mode: accept, admit, run, report.

Facts. Any client may connect: the peer, a port scanner, one that never sends a byte.
Decision: a thread a connection. The protocol handles the connection there and asks for admission:
fastnet/1 after its handshake, raw mode immediately. Without keep_open the first good report ends
the command, and so does a failure that leaves no session running; running sessions are completed.
With keep_open each failure is an event, and only should_stop ends the command.

    ACCEPTING --finished, should_stop, wait_s--> DRAINING   no admission; sessions complete
    ACCEPTING, DRAINING --exception--> CANCELLED            sessions end at their next check
"""

from __future__ import annotations

import enum
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from fastnet.apps.transfer.events import (
    ErrorCode,
    OnEvent,
    TransferCancelled,
    TransferEvent,
    error_event,
)
from fastnet.apps.transfer.options import ShouldStop
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import accept, listening, no_connection, wait_readable
from fastnet.endpoint import Endpoint
from fastnet.errors import TransferRefused
from fastnet.limits import MOVER_SLICE_S
from fastnet.transport.accept_errors import ACCEPT_CAPACITY_ERRNOS

OnAccept = Callable[[socket.socket], Callable[[], None]]
"""Called with each accepted socket; returns what the connection's thread runs."""


class ListenerState(enum.Enum):
    """See the opening of the module."""

    ACCEPTING = enum.auto()
    DRAINING = enum.auto()
    CANCELLED = enum.auto()


class TransferListener:
    """The accept loop of one command, its threads, and the outcome of its sessions."""

    def __init__(
        self,
        on_event: OnEvent,
        should_stop: ShouldStop,
        *,
        keep_open: bool,
        threads_max: int,
        wait_s: float | None = None,
        renews_wait: bool = False,
    ) -> None:
        """Make a listener.

        Args:
            on_event: Called with the events of the listener and of its sessions.
            should_stop: Polled several times a second.
            keep_open: Accept any number of sessions until should_stop returns true.
            threads_max: Connections at the same time; more wait in the accept queue.
            wait_s: Seconds to wait for the first session; None for no limit.
            renews_wait: Wait as long again after each session.
        """
        self.on_event = on_event
        self.should_stop = should_stop
        self.keep_open = keep_open
        self.last_report: TransferReport | None = None
        """Of the last session that succeeded."""
        self.last_error: Exception | None = None
        """Of the last session that failed."""
        self._threads_max = threads_max
        self._wait_s = wait_s
        self._renews_wait = renews_wait
        self._state = ListenerState.ACCEPTING
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._admitted = 0
        self._running = 0
        self._idle_since = monotonic()
        self._session_ended = -1

    def run(
        self, endpoint: Endpoint, on_accept: OnAccept, preload: Callable[[], None] | None = None
    ) -> None:
        """Listen until the command has ended, and wait for its threads.

        Args:
            endpoint: Where to listen.
            on_accept: Handles each connection.
            preload: Called once the listener is up: loads what the first connection needs.

        Raises:
            NetworkError: The address cannot be bound, or no session began within wait_s.
            TransferCancelled: should_stop returned true before a session, without keep_open.
        """
        with listening(endpoint) as (listener, bound), self._ended_event():
            self.on_event(TransferEvent("listening", endpoint=str(bound)))
            if preload is not None:
                preload()
            self._idle_since = monotonic()
            try:
                while not self._is_finished():
                    sock = self._accept_next(listener, bound)
                    if sock is not None:
                        self._start_thread(on_accept(sock))
                self._state = ListenerState.DRAINING
                self._join_threads()
            except BaseException:
                self._state = ListenerState.CANCELLED
                raise
            finally:
                self._join_threads()

    # Called from the threads of connections

    def admit(self, *, exclusive: bool) -> int:
        """Count a connection as a session, before `run_session`. Returns the session's number.

        exclusive: without keep_open there is one session at most. Raises TransferRefused.
        """
        with self._lock:
            is_taken = exclusive and self._admitted and not self.keep_open
            if self._state is not ListenerState.ACCEPTING or is_taken:
                raise TransferRefused(
                    "it is busy with another transfer", "Try again later", ErrorCode.REFUSED
                )
            self._admitted += 1
            self._running += 1
            return self._admitted

    def run_session(self, number: int, transfer: Callable[[], TransferReport]) -> None:
        """Run an admitted session, and report how it ended."""
        try:
            report = transfer()
            self.on_event(TransferEvent("report", number, report=report))
            self.last_report = report
        except Exception as error:
            if self.keep_open:
                self.on_event(error_event(error, number))
            self.last_error = error
        finally:
            with self._lock:
                self._running -= 1
                self._idle_since = monotonic()
            os.eventfd_write(self._session_ended, 1)

    def is_session_cancelled(self) -> bool:
        """Whether running sessions must end; with keep_open should_stop lets them complete."""
        if self._state is ListenerState.CANCELLED:
            return True
        return not self.keep_open and self.should_stop()

    def check_handshake(self) -> None:
        """Raise TransferCancelled if a connection that is not admitted yet must end."""
        if self._state is not ListenerState.ACCEPTING or self.should_stop():
            raise TransferCancelled

    # The accept loop

    def _is_finished(self) -> bool:
        if self._state is not ListenerState.ACCEPTING:
            return True
        if self.keep_open:
            return self.should_stop()
        if not self._admitted and self.should_stop():
            raise TransferCancelled
        if self.last_report is not None:
            return True
        return self.last_error is not None and not self._running

    def _accept_next(self, listener: socket.socket, bound: Endpoint) -> socket.socket | None:
        """One connection; None when there is none yet, or no room for one."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        fds = [self._session_ended]
        if len(self._threads) < self._threads_max:
            fds.append(listener.fileno())
        try:
            ready = wait_readable(fds, self._deadline())
        except TimeoutError:
            if self.last_report is None:
                raise no_connection(bound, self._wait_s or 0.0) from None
            self._state = ListenerState.DRAINING
            return None
        if self._session_ended in ready:
            os.eventfd_read(self._session_ended)
        if listener.fileno() not in ready:
            return None
        try:
            return accept(listener)
        except OSError as error:
            if error.errno not in ACCEPT_CAPACITY_ERRNOS:
                raise
            threading.Event().wait(MOVER_SLICE_S)  # a session that ends frees descriptors
            return None

    def _deadline(self) -> float | None:
        """When to stop waiting for a session, by the monotonic clock."""
        if self._wait_s is None or self._running or (self._admitted and not self._renews_wait):
            return None
        return self._idle_since + self._wait_s

    def _start_thread(self, serve: Callable[[], None]) -> None:
        thread = threading.Thread(target=serve, name="transfer")
        self._threads.append(thread)
        thread.start()

    def _join_threads(self) -> None:
        for thread in self._threads:
            while thread.is_alive():
                thread.join(MOVER_SLICE_S)

    @contextmanager
    def _ended_event(self) -> Iterator[None]:
        """An eventfd(2) that is readable when a session has ended, which wakes the accept loop."""
        self._session_ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            yield
        finally:
            os.close(self._session_ended)
