"""Datagram protocol contract: a sans-I/O state machine that DatagramServer gives a socket.

A protocol object receives datagrams and returns datagrams; it opens no socket, waits for nothing
and reads only the clock it was given, so that tests run it without a network and without sleeping.

    P1  receive_datagram(data, address) handles one datagram and returns the datagrams to send, each
        with its destination. It never raises for what a peer sent.
    P2  handle_timer() does what is due and returns the datagrams to send. It may be called early,
        late or twice; then it returns what is due by now.
    P3  timers() lists the times at which handle_timer is to be called, in the monotonic seconds of
        the clock of the protocol. An empty list needs no timer.
    P4  stop() accepts no new work. has_pending_work() then says whether started work is unfinished;
        a stopping server ends when there is none, or at its drain deadline.
    P5  A datagram for an address that has not been validated is no longer than
        UNVALIDATED_REPLY_BYTES_MAX or than the datagram it answers (RFC 9000 section 8).

Decision: a call returns the datagrams that it causes; aioquic's datagrams_to_send(now) needs a
queue in each protocol and returns the same. Several timers are a list, because the server also has
timers of its own and takes the least of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

Peer = tuple[str, int] | tuple[str, int, int, int]
"""Address of a peer as recvfrom(2) reports it: host, port; for IPv6 flow label and scope id."""

Outgoing = Iterable[tuple[bytes, Peer]]
"""Datagrams to send, each with its destination."""


class DatagramProtocol(Protocol):
    """Server side of a datagram protocol, without I/O; sentences P1 to P5."""

    def receive_datagram(self, data: bytes, address: Peer) -> Outgoing:
        """Handle a datagram from `address`. Returns the datagrams to send. (P1)"""

    def handle_timer(self) -> Outgoing:
        """Do what is due. Returns the datagrams to send. (P2)"""

    def timers(self) -> list[float]:
        """Times at which handle_timer is due, in monotonic seconds. (P3)"""

    def stop(self) -> None:
        """Accept no new work. (P4)"""

    def has_pending_work(self) -> bool:
        """Whether started work is unfinished. (P4)"""
