"""Server side of exec/1, sans-I/O: authentication, address validation, replays.

A request passes these steps in order; each step costs more than the one before it:

    1. Form       no exec/1 request: counted as junk, never answered.
    2. MAC        no key of this server authenticates it: counted; one short UNKNOWN_KEY without a
                  MAC, at most EXEC_UNKNOWN_KEY_REPLIES a second.
    3. Cookie     the source address is not validated: a CHALLENGE, shorter than any request.
    4. Sequence   not higher than the last one of this nonce: a copy, counted, not answered. So a
                  recorded datagram causes no reply; a client that retransmits counts up.
    5. Record     a known nonce gets the reply of its record and never runs a second time
                  (record.py has the states).
    6. Admission  a new nonce is admitted or refused (admission.py), and a record keeps the answer.
                  Without room for a record there is no answer.

Facts. The source address of a datagram can be forged, and a recorded request is authentic for ever.
Decision: up to step 3 the server keeps no state, runs nothing and sends no more bytes than it
received, so a forged address gains nothing. Cookies are address tokens (udp/address_token.py) whose
secret is made when the server starts: a datagram recorded before a restart has no valid cookie,
whatever the clock and the disk say.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastnet.apps.exec import wire
from fastnet.apps.exec.admission import LOST, Admission
from fastnet.apps.exec.nonces import Nonces, RequestId
from fastnet.apps.exec.orphans import Orphans
from fastnet.apps.exec.policy import Denied, Policy
from fastnet.apps.exec.record import ExecRecord, format_peer
from fastnet.apps.exec.runner import Execution
from fastnet.apps.exec.wire import Refusal, Reply, Request, Status, WireError
from fastnet.limits import (
    EXEC_COOKIE_S,
    EXEC_LOG_INTERVAL_S,
    EXEC_RECORDS_MAX,
    EXEC_UNKNOWN_KEY_REPLIES,
)
from fastnet.ratelimit import LogThrottle, TokenBucket
from fastnet.security.mac import MAC_BYTES, is_authentic
from fastnet.udp.address_token import AddressToken
from fastnet.udp.contract import Peer
from fastnet.udp.server import DatagramServerStatistics, counted

log = logging.getLogger("fastnet")


@dataclass
class ExecStatistics(DatagramServerStatistics):
    """Counters of an exec server. `ran` and `refused` count commands, the others datagrams."""

    junk: int = counted("Datagrams that are no requests.")
    unauthenticated: int = counted("Requests that no key of this server authenticates.")
    challenged: int = counted("Requests whose source address was not validated yet.")
    repeated: int = counted("Copies of requests.")
    ran: int = counted("Commands that were admitted.")
    refused: int = counted("Commands that were refused.")


class ExecServerProtocol:
    """All state of an exec server but its socket; a DatagramProtocol.

    Args:
        keys: Secrets by key id.
        policy: The allow file.
        nonces: Nonces that were used before.
        clock: Time of day in seconds; it may be wrong and jump.
        steady: Monotonic seconds.
    """

    def __init__(
        self,
        keys: dict[str, bytes],
        policy: Policy,
        nonces: Nonces,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys = keys
        self.statistics = ExecStatistics()
        self.records: dict[RequestId, ExecRecord] = {}
        self.admission = Admission(policy, nonces, self.records, clock, steady)
        self.orphans = Orphans()
        self._steady = steady
        self._tokens = AddressToken(EXEC_COOKIE_S, wire.COOKIE_BYTES)
        self._decoy_secret = secrets.token_bytes(MAC_BYTES)
        """Checked for an unknown key id, so that the reply takes as long as for a known one."""
        replies = float(EXEC_UNKNOWN_KEY_REPLIES)
        self._unknown_key_bucket = TokenBucket(replies, replies, steady)
        self._log_throttle = LogThrottle(EXEC_LOG_INTERVAL_S, steady)

    def receive_datagram(self, data: bytes, address: Peer) -> list[tuple[bytes, Peer]]:
        """Handle a datagram. Returns the datagrams to send, all to `address`."""
        return [(reply, address) for reply in self._replies(data, address)]

    def _replies(self, data: bytes, address: Peer) -> list[bytes]:
        """Steps 1 to 3."""
        try:
            request = wire.unpack_request(data)
        except WireError:
            self.statistics.junk += 1
            return []
        secret = self.keys.get(request.key_id)
        if not is_authentic(data, secret or self._decoy_secret) or secret is None:
            return self._reject_unauthenticated(request, address)
        now_s = self._steady()
        if not self._tokens.verify(request.cookie, address, now_s):
            self.statistics.challenged += 1
            cookie = self._tokens.issue(address, now_s)
            challenge = Reply(wire.CHALLENGE, request.nonce, request.sequence, cookie)
            return [wire.pack_reply(challenge, secret)]
        try:
            replies = self._handle_validated(request, address)
        except WireError:
            self.statistics.junk += 1
            return []
        return [wire.pack_reply(reply, secret) for reply in replies]

    def _reject_unauthenticated(self, request: Request, address: Peer) -> list[bytes]:
        """Count a request without a valid MAC; the rates of log lines and replies are bounded."""
        self.statistics.unauthenticated += 1
        if count := self._log_throttle.count():
            log.warning(
                "%d unauthenticated datagrams; the last from %s, key id %s",
                count,
                format_peer(address),
                request.key_id,
            )
        if not self._unknown_key_bucket.try_consume():
            return []
        return [wire.pack_reply(Reply(wire.UNKNOWN_KEY, request.nonce, request.sequence, b""), b"")]

    def _handle_validated(self, request: Request, address: Peer) -> list[Reply]:
        """Steps 4 to 6: the peer is authenticated and its address validated. Raises WireError."""
        request_id = RequestId(request.key_id, request.nonce)
        record = self.records.get(request_id)
        argv = wire.unpack_argv(request.body) if request.kind == wire.RUN else []
        parts = wire.unpack_part_numbers(request.body) if request.kind == wire.FETCH else []
        if record is None:
            return self._handle_unknown_nonce(request, request_id, argv, address)
        if request.sequence <= record.sequence:
            self.statistics.repeated += 1
            return []
        record.sequence = request.sequence
        record.peer = address
        record.last_request_s = self._steady()
        if argv and argv != record.argv:
            text = "this nonce has been used for another command"
            return [refused_reply(request, Refusal("reused", text))]
        if request.kind == wire.DONE:
            self._note_end(record)
            record.fetched(self._steady())
            return []
        if parts and record.outcome is not None:
            return record.part_replies(parts)
        return [record.reply()]

    def _handle_unknown_nonce(
        self, request: Request, request_id: RequestId, argv: list[str], address: Peer
    ) -> list[Reply]:
        """Step 6 for RUN; a FETCH without a record is lost."""
        if request.kind == wire.DONE:
            return []
        if request.kind == wire.FETCH:
            return [refused_reply(request, LOST)]
        if not self._has_room(request.key_id):
            self.statistics.ignored += 1
            return []
        record = ExecRecord(request_id, argv, address, request.sequence, self._steady())
        self._admit(record, request.timestamp_us)
        self.records[request_id] = record
        return [record.reply()]

    def _has_room(self, key_id: str) -> bool:
        """Whether this key may have another record.

        A key may have as many records as there is room left for others, so that one key does not
        fill the table alone.
        """
        room = EXEC_RECORDS_MAX - len(self.records)
        return room > 0 and (
            2 * room > EXEC_RECORDS_MAX
            or sum(each.key_id == key_id for each in self.records) < room
        )

    def _admit(self, record: ExecRecord, timestamp_us: int) -> None:
        """Start the command of a new record, or refuse it."""
        try:
            command, argv = self.admission.admit(record.id, record.argv, timestamp_us)
        except Denied as error:
            record.refuse(error.refusal, self._steady())
            self.statistics.refused += 1
            log.warning("%s: refused, %s: %s", record, error.refusal.code, error.refusal.text)
        else:
            self.statistics.ran += 1
            record.run(Execution(command, argv, self.orphans))

    def _note_end(self, record: ExecRecord) -> bool:
        """Log the end of a command, once. Returns whether it has just ended."""
        if not record.finish(self._steady()):
            return False
        assert record.outcome is not None
        log.info("%s: %s", record, format_status(record.outcome.status))
        return True

    def handle_timer(self) -> list[tuple[bytes, Peer]]:
        """Enforce time limits, reap orphans, remove old records.

        Returns the STATUS of each command that has ended, for its client.
        """
        now_s = self._steady()
        self.orphans.handle_timer(now_s)
        outgoing = []
        for record in list(self.records.values()):
            if record.execution is not None:
                record.execution.handle_timer(now_s)
            if self._note_end(record) and (secret := self.keys.get(record.id.key_id)):
                outgoing.append((wire.pack_reply(record.reply(), secret), record.peer))
            if now_s >= record.remove_s:
                del self.records[record.id]
        return outgoing

    def timers(self) -> list[float]:
        """Time limits of commands, and the next search for orphans."""
        due = [self.orphans.retry_s, *(each.deadline_s for each in self.executions())]
        return [each for each in due if each is not None]

    def executions(self) -> list[Execution]:
        """The commands that run."""
        return [
            record.execution
            for record in self.records.values()
            if record.execution and record.outcome is None
        ]

    def replace_keys_and_policy(self, keys: dict[str, bytes], policy: Policy) -> None:
        """Use new keys and a new allow file for the requests that follow."""
        self.keys = keys
        self.admission.policy = policy

    def stop(self) -> None:
        """Refuse new commands."""
        self.admission.is_stopping = True

    def has_pending_work(self) -> bool:
        """Whether a command runs, or a live client has yet to fetch its result."""
        now_s = self._steady()
        return any(record.is_pending(now_s) for record in self.records.values())


def refused_reply(request: Request, refusal: Refusal) -> Reply:
    """A REFUSED for a request without a record."""
    return Reply(wire.REFUSED, request.nonce, request.sequence, wire.pack_refused(refusal))


def format_status(status: Status) -> str:
    """How a command ended, in bytes and seconds."""
    how = {
        wire.EXITED: f"exited with status {status.number}",
        wire.KILLED: f"killed by {signal_name(status.number)}",
        wire.TIMED_OUT: "killed at its time limit",
        wire.UNSTARTED: f"not started: {os.strerror(status.number).lower()}",
    }[status.state]
    cut = " (cut)" if status.flags else ""
    size = status.output_bytes + status.error_bytes
    return f"{how}, {size} bytes{cut}, {status.took_us / 1e6:.3f} s"


def signal_name(number: int) -> str:
    """SIGTERM for 15; "signal N" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
