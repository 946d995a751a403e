"""Send a file raw: to one receiver that listens, or to each client that connects.

Decision: a thread for each client, and a slice of a native mover holds no GIL, so one that reads
slowly, or not at all, is in nobody's way. Without keep_open the first transfer that ends well is
the last one: nobody else is let in, and those that run are seen to their ends. One that fails ends
the command only when it leaves nobody else being served.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.apps.transfer.raw.session import RawOptions, RawSession
from fastnet.apps.transfer.raw.source import Source
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import (
    accept,
    dial_until,
    listening,
    nobody_came,
    wait_readable,
)
from fastnet.endpoint import Endpoint
from fastnet.errors import FastnetError, TransferError
from fastnet.limits import TRANSFER_CLIENTS_MAX
from fastnet.mover import choose


class Cancelled(Exception):
    """The transfer was stopped from here."""


def nothing() -> None:
    """The on_slice of who does not want to stop a transfer."""


def push(
    path: str, endpoint: Endpoint, options: RawOptions, on_event: OnEvent, retry_s: float = 0.0
) -> TransferReport:
    """Connect to a receiver and send it one file. Raises NetworkError and TransferError."""
    with Source(path) as source, dial_until(endpoint, retry_s) as sock:
        session = RawSession(sock, options, on_event, nothing)
        report = session.send(source)
        tell_growth(source, on_event, 1)
    on_event(TransferEvent("report", report=report))
    return report


def tell_growth(source: Source, on_event: OnEvent, number: int) -> None:
    if grown := source.growth():
        text = f"{source.name} has grown by {grown} bytes since; they were not sent"
        on_event(TransferEvent("message", number, text=text))


def as_event(error: FastnetError, number: int) -> TransferEvent:
    """One client's failure, for an offer that goes on."""
    code = error.code if isinstance(error, TransferError) else ErrorCode.FAILED
    return TransferEvent("error", number, code=code, text=error.message, hint=error.hint)


@dataclass
class Offer:
    """A file offered to clients, and how they fared."""

    source: Source
    options: RawOptions
    on_event: OnEvent
    keep_open: bool
    cancelled: bool = False
    running: list[threading.Thread] = field(default_factory=list)
    reports: list[TransferReport] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    served: int = 0

    def on_slice(self) -> None:
        if self.cancelled:
            raise Cancelled

    def serve(self, sock: socket.socket, number: int) -> None:
        """The life of one client, in its thread."""
        with sock:
            try:
                session = RawSession(sock, self.options, self.on_event, self.on_slice, number)
                report = session.send(self.source)
            except Cancelled:
                return
            except Exception as error:
                self.errors.append(error)
                if self.keep_open and isinstance(error, FastnetError):
                    self.on_event(as_event(error, number))
                return
        tell_growth(self.source, self.on_event, number)
        self.reports.append(report)
        self.on_event(TransferEvent("report", number, report=report))

    def start(self, sock: socket.socket) -> None:
        self.served += 1
        thread = threading.Thread(target=self.serve, args=(sock, self.served))
        self.running.append(thread)
        thread.start()

    def is_over(self) -> bool:
        """Whether nobody else is to be let in."""
        self.running = [thread for thread in self.running if thread.is_alive()]
        if self.keep_open:
            return False
        return bool(self.reports) or bool(self.errors and not self.running)

    def join(self) -> None:
        while any(thread.is_alive() for thread in self.running):
            for thread in self.running:
                thread.join(0.25)


def offer(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    keep_open: bool = False,
    wait_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[TransferReport]:
    """Listen and send one file to each client that connects. Returns the reports of the transfers
    that
    ended well.

    on_event is called in the threads of the transfers, one call at a time. wait_s: give up when no
    client came for so long; None waits for ever. stopped: asked several times a second; true ends a
    keep_open offer when its transfers are over. Raises NetworkError (cannot listen, nobody came),
    and the last TransferError when no transfer ended well.
    """
    with Source(path) as source, listening(endpoint) as (listener, where):
        # what cannot work is said before anybody comes
        choose("send", source.fd, options.mover, options.backend)
        one = threading.Lock()

        def tell(event: TransferEvent) -> None:
            with one:
                on_event(event)

        state = Offer(source, options, tell, keep_open)
        most = 1 if source.is_stream else TRANSFER_CLIENTS_MAX
        tell(TransferEvent("listening", endpoint=str(where)))
        try:
            since = monotonic()
            while not state.is_over() and not stopped():
                if state.running:
                    since = monotonic()
                ends = since + wait_s if wait_s is not None and not state.running else None
                fds = [listener.fileno()] if len(state.running) < most else []
                try:
                    ready = wait_readable(fds, ends)
                except TimeoutError:
                    if state.reports:
                        break
                    raise nobody_came(where, wait_s or 0.0) from None
                sock = accept(listener) if ready else None
                if sock is not None:
                    state.start(sock)
            state.join()
        except BaseException:
            state.cancelled = True
            raise
        finally:
            state.join()
    if not state.reports and state.errors:
        raise state.errors[-1]
    return state.reports
