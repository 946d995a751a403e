"""The server's judgement: a datagram in, datagrams out. It runs commands and knows no socket.

In this order, and each step only for what has passed the one before:

    1. It has the form of a request, or it is junk: counted, never answered.
    2. A key of ours signed it, or a stranger sent it: one short unsigned hint,
       EXEC_STRANGERS_ANSWERED a second at most.
    3. Its cookie is one we gave this address, or it gets a CHALLENGE, which is shorter than any
       request. Until here nothing is remembered, nothing runs, and nobody gets more bytes than came
       in, so a forged source address gains nothing.
    4. Its sequence is higher than any we saw of this nonce, or it is a repetition on the network:
       counted, not answered. So a recorded datagram brings nothing from us, and a client that asks
       again counts up.
    5. A nonce that has a record gets what the record says: running, ended, refused. It never starts
       a second time.
    6. A new nonce must not be known from before a restart and must be fresh (replay.py), the policy
       must permit it, and there must be room. Whatever the answer, it is kept in a record and stays
       the answer. Without room for that there is none.

Cookies are a MAC over the address and a number that counts minutes, with a secret made when the
server starts: a datagram recorded before a restart has no valid cookie, whatever the clock and the
disk say.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fastnet.apps.exec import wire
from fastnet.apps.exec.nonces import Nonces, Seen
from fastnet.apps.exec.orphans import Orphans
from fastnet.apps.exec.policy import Command, Denied, Endless, Policy, permit
from fastnet.apps.exec.runner import Execution, Outcome
from fastnet.apps.exec.wire import Refusal, Reply, Request, Status, WireError
from fastnet.limits import (
    EXEC_CLOCK_S,
    EXEC_COMPLAINT_S,
    EXEC_CONCURRENT_MAX,
    EXEC_COOKIE_S,
    EXEC_KEPT_BYTES_MAX,
    EXEC_MATCH_REST_S,
    EXEC_RECORDS_MAX,
    EXEC_REST_MAX_S,
    EXEC_RESULT_S,
    EXEC_STRANGERS_ANSWERED,
)
from fastnet.security.mac import MAC_BYTES, is_authentic, mac
from fastnet.udp.contract import Peer
from fastnet.udp.server import DatagramServerStatistics, counted

log = logging.getLogger("fastnet")


@dataclass
class Statistics(DatagramServerStatistics):
    """What came and what became of it. `ran` and `refused` are commands, the others datagrams."""

    junk: int = counted("Datagrams that are no requests.")
    strangers: int = counted("Datagrams that no key of ours signed.")
    challenged: int = counted("Requests whose address had yet to be proven.")
    repeated: int = counted("Requests that had come before.")
    ran: int = counted("Commands that were allowed to run.")
    refused: int = counted("Commands that were refused.")


@dataclass
class Record:
    """One nonce and what became of it. peer, sequence: of the last request, which proved its
    address.
    """

    seen: Seen
    words: list[str]
    peer: Peer
    sequence: int
    refusal: Refusal | None = None
    execution: Execution | None = None
    forget_s: float = field(default=float("inf"))
    was_told: bool = False
    was_fetched: bool = False
    heard_s: float = 0.0

    @property
    def outcome(self) -> Outcome | None:
        return self.execution.outcome if self.execution else None

    @property
    def kept_bytes(self) -> int:
        if self.execution is None:
            return 0
        return (
            self.execution.command.output_bytes_max
            if self.outcome is None
            else len(self.outcome.written)
        )


class Desk:
    """All state of a server but its socket. clock: the time of day; it can be wrong and jump.
    steady: a clock that cannot.
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
        self.policy = policy
        self.nonces = nonces
        self.clock = clock
        self.steady = steady
        self.statistics = Statistics()
        self.records: dict[Seen, Record] = {}
        self.orphans = Orphans()
        self.is_stopping = False
        self.is_recorded: Callable[[], bool] = lambda: True
        """Whether what was logged last has been written. While it is not, nothing runs; each
        refusal is a line that tries.
        """
        self._cookie_secret = secrets.token_bytes(MAC_BYTES)
        self._complain_s = -EXEC_COMPLAINT_S
        self._complained_of = 0
        self._rests_until_s: dict[str, float] = {}
        self._hints = float(EXEC_STRANGERS_ANSWERED)
        self._hints_s = steady()

    def receive_datagram(self, datagram: bytes, peer: Peer) -> list[bytes]:
        """Judge one datagram. Returns what to send back to where it came from."""
        try:
            request = wire.unpack_request(datagram)
        except WireError:
            self.statistics.junk += 1
            return []
        secret = self.keys.get(request.key_id)
        if not is_authentic(datagram, secret or self._cookie_secret) or secret is None:
            return self._stranger(request, peer)
        if request.cookie not in self._cookies(peer):
            self.statistics.challenged += 1
            body = self._cookies(peer)[0]
            return [
                wire.pack_reply(
                    Reply(wire.CHALLENGE, request.nonce, request.sequence, body), secret
                )
            ]
        try:
            replies = self._proven(request, peer)
        except WireError:
            self.statistics.junk += 1
            return []
        return [wire.pack_reply(reply, secret) for reply in replies]

    def _stranger(self, request: Request, peer: Peer) -> list[bytes]:
        self.statistics.strangers += 1
        now_s = self.steady()
        if now_s - self._complain_s >= EXEC_COMPLAINT_S:
            many = self.statistics.strangers - self._complained_of
            log.warning(
                "%d datagrams that no key signed; the last from %s, as %s",
                many,
                where(peer),
                request.key_id,
            )
            self._complain_s, self._complained_of = now_s, self.statistics.strangers
        self._hints = min(
            EXEC_STRANGERS_ANSWERED, self._hints + (now_s - self._hints_s) * EXEC_STRANGERS_ANSWERED
        )
        self._hints_s = now_s
        if self._hints < 1:
            return []
        self._hints -= 1
        return [wire.pack_reply(Reply(wire.STRANGER, request.nonce, request.sequence, b""), b"")]

    def _cookies(self, peer: Peer) -> list[bytes]:
        """The cookie of an address, and the one before it."""
        minute = int(self.steady() / EXEC_COOKIE_S)
        address = ipaddress.ip_address(peer[0].partition("%")[0]).packed + peer[1].to_bytes(2)
        packed = [address + (minute - age).to_bytes(8, signed=True) for age in (0, 1)]
        return [mac(self._cookie_secret, data)[: wire.COOKIE_BYTES] for data in packed]

    def _proven(self, request: Request, peer: Peer) -> list[Reply]:
        """A request of somebody we know, from an address that receives what we send there. Raises
        WireError.
        """
        seen = Seen(request.key_id, request.nonce)
        record = self.records.get(seen)
        words = wire.read_words(request.body) if request.kind == wire.RUN else []
        wanted = wire.read_wanted(request.body) if request.kind == wire.FETCH else []
        if record is None:
            if request.kind != wire.RUN:
                return [] if request.kind == wire.DONE else [refuse(request, LOST)]
            if not self._has_room(request.key_id):
                self.statistics.ignored += 1
                return []
            return [self._answer(self._new(request, words, peer))]
        if request.sequence <= record.sequence:
            self.statistics.repeated += 1
            return []
        record.sequence, record.peer, record.heard_s = request.sequence, peer, self.steady()
        if words and words != record.words:
            return [
                refuse(request, Refusal("reused", "this nonce has been used for another command"))
            ]
        if request.kind == wire.DONE:
            self._drop(record)
            return []
        if wanted and record.outcome is not None:
            return self._parts(record, record.outcome, wanted)
        return [self._answer(record)]

    def _has_room(self, key_id: str) -> bool:
        """One key may have as many records as there is room left for others, so that none fills the
        server alone.
        """
        room = EXEC_RECORDS_MAX - len(self.records)
        return room > 0 and (
            2 * room > EXEC_RECORDS_MAX
            or sum(seen.key_id == key_id for seen in self.records) < room
        )

    def _new(self, request: Request, words: list[str], peer: Peer) -> Record:
        """Decide about a nonce without a record, and make its record."""
        record = Record(
            Seen(request.key_id, request.nonce),
            words,
            peer,
            request.sequence,
            heard_s=self.steady(),
        )
        try:
            command, argv = self._permitted(record, request.asked_us)
        except Denied as denied:
            record.refusal = denied.refusal
            record.forget_s = self.steady() + 2 * EXEC_CLOCK_S
            self.statistics.refused += 1
            log.warning(
                "%s: refused, %s: %s", title(record), denied.refusal.code, denied.refusal.text
            )
        else:
            self.statistics.ran += 1
            record.execution = Execution(command, argv, self.orphans)
        self.records[record.seen] = record
        return record

    def _permitted(self, record: Record, asked_us: int) -> tuple[Command, list[str]]:
        """Raises Denied. When it returns, the nonce is on the disk."""
        now_us = int(self.clock() * 1e6)
        if record.seen in self.nonces:
            raise Denied(LOST)
        if not self.nonces.is_fresh(asked_us, now_us):
            text = f"asked {abs(now_us - asked_us) / 1e6:.0f} s {'ago' if asked_us < now_us else 'ahead'}"
            raise Denied(Refusal("clock", text, now_us))
        if self.steady() < self._rests_until_s.get(record.seen.key_id, 0.0):
            raise Denied(
                Refusal(
                    "busy",
                    f"an argument took too long to check; {record.seen.key_id} may ask again soon",
                )
            )
        try:
            command, argv = permit(self.policy, record.seen.key_id, record.words)
        except Endless:
            self._rests_until_s[record.seen.key_id] = self.steady() + EXEC_MATCH_REST_S
            raise
        if self.is_stopping:
            raise Denied(Refusal("stopping", "the server is ending"))
        running = [
            each.execution.command
            for each in self.records.values()
            if each.execution and not each.outcome
        ]
        same = sum(each.name == command.name for each in running)
        if same >= command.concurrent_max:
            raise Denied(
                Refusal(
                    "busy",
                    f"{command.name} is running {same} of {command.concurrent_max} allowed times",
                )
            )
        kept = sum(each.kept_bytes for each in self.records.values())
        if (
            len(running) >= EXEC_CONCURRENT_MAX
            or kept + command.output_bytes_max > EXEC_KEPT_BYTES_MAX
            or self.nonces.is_full()
        ):
            raise Denied(Refusal("busy", "the server runs or remembers as much as it can"))
        if not self.is_recorded():
            raise Denied(
                Refusal(
                    "broken",
                    "the server could not write its log, and runs nothing without a record",
                )
            )
        try:
            self.nonces.add(record.seen, asked_us, now_us)
        except OSError as error:
            log.error(
                "cannot write the nonces to %s: %s; nothing runs",
                self.nonces.path,
                error.strerror or error,
            )
            raise Denied(
                Refusal("broken", "the server cannot write its nonces, so it runs nothing")
            ) from None
        return command, argv

    def _answer(self, record: Record) -> Reply:
        """What a record says."""
        nonce, sequence = record.seen.nonce, record.sequence
        if record.refusal is not None:
            return Reply(wire.REFUSED, nonce, sequence, wire.refused_body(record.refusal))
        status = record.outcome.status if record.outcome else Status(wire.RUNNING)
        return Reply(wire.STATUS, nonce, sequence, wire.status_body(status))

    def _parts(self, record: Record, outcome: Outcome, wanted: list[int]) -> list[Reply]:
        count = wire.parts_of(len(outcome.written))
        return [
            Reply(
                wire.PART,
                record.seen.nonce,
                record.sequence,
                wire.part_body(number, outcome.written),
            )
            for number in dict.fromkeys(wanted)
            if number < count
        ]

    def _drop(self, record: Record) -> None:
        """The client has the result. The record stays for as long as its requests could be
        repeated.
        """
        if record.execution is not None and record.outcome is not None:
            record.was_fetched = True
            record.execution.outcome = Outcome(record.outcome.status)
            record.forget_s = min(record.forget_s, self.steady() + 2 * EXEC_CLOCK_S)

    def handle_timer(self) -> list[tuple[bytes, Peer]]:
        """What is due: time limits, results to tell, records to forget. Returns datagrams and where
        they go.
        """
        now_s = self.steady()
        due = []
        for record in list(self.records.values()):
            if record.execution is not None:
                record.execution.tick(now_s)
            if record.outcome is not None and not record.was_told:
                record.was_told = True
                record.forget_s = now_s + EXEC_RESULT_S
                log.info("%s: %s", title(record), ending(record.outcome.status))
                if secret := self.keys.get(record.seen.key_id):
                    due.append((wire.pack_reply(self._answer(record), secret), record.peer))
            if now_s >= record.forget_s:
                del self.records[record.seen]
        return due

    def executions(self) -> list[Execution]:
        """Those that run."""
        return [
            each.execution
            for each in self.records.values()
            if each.execution and each.outcome is None
        ]

    def has_pending_work(self) -> bool:
        """Whether a command runs, or a client that was heard lately has not fetched its result."""
        since_s = self.steady() - 3 * EXEC_REST_MAX_S
        return any(
            record.execution
            and (record.outcome is None or (not record.was_fetched and record.heard_s > since_s))
            for record in self.records.values()
        )


LOST = Refusal("lost", "the server has no record of it any more")


def refuse(request: Request, refusal: Refusal) -> Reply:
    return Reply(wire.REFUSED, request.nonce, request.sequence, wire.refused_body(refusal))


def where(peer: Peer) -> str:
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def title(record: Record) -> str:
    """Who asked for what, from where."""
    return f"exec {shlex.join(record.words)} by {record.seen.key_id} from {where(record.peer)}"


def ending(status: Status) -> str:
    """How it ended, in bytes and seconds."""
    how = {
        wire.EXITED: f"exited with status {status.number}",
        wire.KILLED: f"killed by {signal_name(status.number)}",
        wire.TIMED_OUT: "killed at its time limit",
        wire.UNSTARTED: f"not started: {os.strerror(status.number).lower()}",
    }[status.state]
    cut = " (cut)" if status.flags else ""
    return f"{how}, {status.output_bytes + status.error_bytes} bytes{cut}, {status.took_us / 1e6:.3f} s"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
