"""One raw transfer over one connection: bytes, half-close, the receiver's final message.

Facts. In raw mode FIN is the only sign that the file is complete, and a process that dies closes
its sockets with FIN as one that has finished does. With SO_LINGER set to no time, close(2), and
so the death of a process, sends RST (socket(7)).
Decision: the sender sets that first and takes it back when the last byte is with the kernel; so its
FIN means "complete", whatever kills it. A receiver that fails resets too. The sender then reads
to the receiver's end: until then nothing is known. What remains: a FIN that someone else makes (a
proxy, nc killed with ^C) looks like the end. fastnet/1 has a proof instead. Unix sockets have no
RST, so there the death of a sender looks like its end.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, process_time
from typing import NoReturn

from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.apps.transfer.extent import WITHOUT_END, ExtentCopy
from fastnet.apps.transfer.protocol.frames import HELLO_MAGIC
from fastnet.apps.transfer.raw.final_message import NoEndOfStream, as_text, read_final_message
from fastnet.apps.transfer.raw.source import RawSource
from fastnet.apps.transfer.raw.target import RawTarget
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import peer_name, reset_on_close
from fastnet.apps.transfer.target.write_errors import cannot_write
from fastnet.errors import TransferError, TransferUnconfirmed, reason
from fastnet.limits import (
    FINAL_MESSAGE_BYTES_MAX,
    HELLO_S,
    MAGIC_PAUSE_S,
    MOVER_SLICE_S,
    TRANSFER_STALL_S,
)
from fastnet.mover import MoverChoice, choose
from fastnet.mover.contract import Mover
from fastnet.transport.congestion import check, set_congestion_control

PEER_FAULTS = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ESHUTDOWN)
NETWORK_FAULTS = (
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.ECONNABORTED,
)


@dataclass(frozen=True)
class RawOptions:
    """How to transfer in raw mode."""

    stall_s: float = TRANSFER_STALL_S
    """Seconds without progress that end the transfer."""
    """Seconds without progress that end the transfer."""
    congestion: str = "auto"
    mover: str = "auto"
    backend: str = "auto"
    thanks: bytes = b""
    """The receiver's final message."""
    """The receiver's final message."""

    def __post_init__(self) -> None:
        check(self.congestion)


class RawStalled(Exception):
    """No byte has moved for the idle timeout."""


class RawSession:
    """One connection, its mover, its clock and its events, for either direction.

    on_slice: called several times a second; may raise to end the transfer, and then the
    connection is reset.
    """

    def __init__(
        self,
        sock: socket.socket,
        options: RawOptions,
        on_event: OnEvent,
        on_slice: Callable[[], None] = lambda: None,
        number: int = 1,
    ) -> None:
        self.sock = sock
        self.options = options
        self.stall_s = options.stall_s
        self.peer = peer_name(sock)
        self.number = number
        self.moved_bytes = 0
        self.name = ""
        self.total_bytes: int | None = None
        self._on_event = on_event
        self._on_slice = on_slice
        self._since, self._cpu_since = monotonic(), process_time()
        self.congestion = set_congestion_control(sock, options.congestion)

    def tell(self, event: TransferEvent) -> None:
        self._on_event(event)

    def check_idle(self, since: float) -> None:
        """Raise RawStalled when no byte has moved since `since` for the idle timeout."""
        if monotonic() - since >= self.stall_s:
            raise RawStalled

    def on_moved(self, byte_count: int) -> None:
        """Report progress after each slice of a mover."""
        self.moved_bytes += byte_count
        self._on_slice()
        self.tell(
            TransferEvent(
                "progress", self.number, bytes=self.moved_bytes, total_bytes=self.total_bytes
            )
        )

    def send(self, source: RawSource) -> TransferReport:
        """Send all of it and return when the peer has ended too.

        Raises TransferError and TransferUnconfirmed.
        """
        self.name, self.total_bytes = source.name, source.size
        self._start()
        choice = choose("send", source.fd, self.options.mover, self.options.backend)
        mover = choice.make()
        try:
            self._reset_on_close(True)
            self._send_all(source, mover)
            message = self._read_final_message()
        finally:
            mover.close()
        self.tell(TransferEvent("file", self.number, name=source.name, bytes=self.moved_bytes))
        text = as_text(message)
        if text:
            self.tell(TransferEvent("message", self.number, peer=self.peer, text=text))
        return self._report("send", choice, mover, text or None)

    def _start(self) -> None:
        self.tell(
            TransferEvent(
                "start",
                self.number,
                peer=self.peer,
                name=self.name,
                total_bytes=self.total_bytes,
                bytes=0,
            )
        )

    def _send_all(self, source: RawSource, mover: Mover) -> None:
        offset, count = source.extent
        try:
            ExtentCopy(mover.send_some, self, source.fd, offset, count).run()
        except RawStalled as stalled:
            self._stalled("took nothing more", stalled)
        except OSError as error:
            self.moved_bytes = mover.moved_bytes
            raise self._blame_sending(source, error) from error
        fault = source.fault(self.moved_bytes)
        if fault is not None:
            raise fault
        try:
            self._reset_on_close(False)
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken_at_the_end(error) from error

    def _blame_sending(self, source: RawSource, error: OSError) -> TransferError:
        if error.errno in PEER_FAULTS + NETWORK_FAULTS:
            return self._broken(error)
        why = f"cannot read {source.name} at byte {self.moved_bytes}: {reason(error)}"
        return TransferError(why, "Check the disk and the file", ErrorCode.SOURCE)

    def _read_final_message(self) -> bytes:
        try:
            return read_final_message(self.sock, self.options.stall_s, self._on_slice)
        except NoEndOfStream as error:
            how = (
                f"said more than {FINAL_MESSAGE_BYTES_MAX} bytes and did not end"
                if error.is_too_long
                else f"did not end within {self.options.stall_s:g} s"
            )
            hint = "It may have everything: compare the files, or give a longer --timeout"
            raise self._unconfirmed(how, hint) from None
        except OSError as error:
            raise self._broken_at_the_end(error) from error

    def _broken_at_the_end(self, error: OSError) -> TransferUnconfirmed:
        hint = (
            "It closed before it had read to the end, or failed: "
            "compare the files, and send it again"
        )
        return self._unconfirmed(f"then broke the connection ({reason(error)})", hint)

    def _unconfirmed(self, how: str, hint: str) -> TransferUnconfirmed:
        message = f"all {self.moved_bytes} bytes of {self.name} were sent, but {self.peer} {how}"
        return TransferUnconfirmed(message, hint, ErrorCode.UNCONFIRMED)

    def receive(self, target: RawTarget) -> TransferReport:
        """Receive to the peer's end and put the file under its name.

        Raises TransferError.
        """
        self.name = target.name
        self._start()
        choice = choose("receive", target.fd, self.options.mover, self.options.backend)
        mover = choice.make()
        try:
            self._reset_on_close(True)
            self._refuse_fastnet1()
            self._receive_all(target, mover)
            target.commit()
            self._reset_on_close(False)
        finally:
            mover.close()
        self._send_final_message()
        self.tell(TransferEvent("file", self.number, name=target.name, bytes=self.moved_bytes))
        return self._report("recv", choice, mover, None)

    def _refuse_fastnet1(self) -> None:
        """A sender without --raw first says who it is.

        Raises TransferError before any of that is taken for the file.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLRDHUP)
        ends = monotonic() + HELLO_S
        while monotonic() < ends:
            if not (ready := poll.poll(MOVER_SLICE_S * 1000)):
                self._on_slice()
                continue
            try:
                begin = self.sock.recv(len(HELLO_MAGIC), socket.MSG_PEEK)
            except OSError as error:  # which the kernel tells once
                raise self._broken(error) from error
            if begin == HELLO_MAGIC:
                hint = "Say --raw on both sides, or on neither"
                message = f"{self.peer} speaks fastnet/1, and this side was told to take raw bytes"
                raise TransferError(message, hint, ErrorCode.PROTOCOL)
            if not begin or not HELLO_MAGIC.startswith(begin) or ready[0][1] & ~select.POLLIN:
                return
            # the rest of it is on its way, or it is a file that begins like this
            time.sleep(MAGIC_PAUSE_S)

    def _receive_all(self, target: RawTarget, mover: Mover) -> None:
        try:
            ExtentCopy(mover.receive_some, self, target.fd, target.offset, WITHOUT_END).run()
        except RawStalled as stalled:
            if mover.held_bytes:
                message = (
                    f"{target.name} took nothing more for {self.options.stall_s:g} s,"
                    f" after {self.moved_bytes} bytes"
                )
                raise TransferError(message, "Look at what reads it", ErrorCode.TARGET) from stalled
            self._stalled("sent nothing more and did not end", stalled)
        except OSError as error:
            self.moved_bytes = mover.moved_bytes
            if error.errno in (*NETWORK_FAULTS, errno.ECONNRESET):
                raise self._broken(error) from error
            raise cannot_write(target.name, error) from error

    def _send_final_message(self) -> None:
        """Send the final message.

        A sender that is gone loses nothing: the file is complete.
        """
        with suppress(OSError):
            if self.options.thanks:
                self.sock.send(self.options.thanks)
            self.sock.shutdown(socket.SHUT_WR)

    def _reset_on_close(self, reset: bool) -> None:
        """Whether close(2), or the end of this process, sends RST instead of FIN."""
        with suppress(OSError):
            reset_on_close(self.sock, reset)

    def _stalled(self, what: str, stalled: RawStalled) -> NoReturn:
        message = (
            f"{self.peer} {what} for {self.options.stall_s:g} s, after {self.moved_bytes} bytes"
        )
        hint = "Look at the other side, or give a longer --timeout"
        raise TransferError(message, hint, ErrorCode.STALLED) from stalled

    def _broken(self, error: OSError) -> TransferError:
        of = f" of {self.total_bytes}" if self.total_bytes is not None else ""
        if error.errno in PEER_FAULTS:
            message = f"{self.peer} broke the connection after {self.moved_bytes}{of} bytes"
            return TransferError(
                message, "It failed or was stopped; its own words say why", ErrorCode.RESET
            )
        message = (
            f"the connection to {self.peer} failed after {self.moved_bytes}{of} bytes: "
            f"{reason(error)}"
        )
        return TransferError(message, "Check the network between the two hosts", ErrorCode.NETWORK)

    def _report(
        self, role: str, choice: MoverChoice, mover: Mover, message: str | None
    ) -> TransferReport:
        return TransferReport(
            role=role,
            mode="raw",
            peer=self.peer,
            files=1,
            moved_bytes=self.moved_bytes,
            seconds=monotonic() - self._since,
            cpu_seconds=process_time() - self._cpu_since,
            mover=f"{mover.runs}-{choice.backend}",
            mover_reason=mover.reason or choice.reason,
            congestion=self.congestion,
            message=message,
        )
