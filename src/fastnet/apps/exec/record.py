"""Records of the exec server: what became of each request, as a state machine.

    state      event                                      next state
    (none)     a new RUN is denied                        REFUSED
    (none)     a new RUN is admitted                      RUNNING
    RUNNING    its command has ended                      FINISHED   sends STATUS once
    FINISHED   the client sends DONE                      FETCHED    drops the output
    REFUSED    2 * EXEC_CLOCK_S after the refusal         (removed)
    FINISHED   EXEC_RESULT_S after the end                (removed)
    FETCHED    2 * EXEC_CLOCK_S after DONE                (removed)

A record outlives its result for as long as a recorded copy of its requests could be fresh, so a
copy finds the record and never runs a command.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import Enum

from fastnet.apps.exec import wire
from fastnet.apps.exec.nonces import RequestId
from fastnet.apps.exec.policy import Command
from fastnet.apps.exec.runner import Execution, ExecutionOutcome
from fastnet.apps.exec.wire import Refusal, Reply, Status
from fastnet.limits import EXEC_CLOCK_S, EXEC_RESULT_S, EXEC_RTO_MAX_S
from fastnet.udp.contract import Peer

REPLAY_WINDOW_S = 2 * EXEC_CLOCK_S
"""How long a recorded request can be fresh: a clock may be EXEC_CLOCK_S off to both sides."""

CLIENT_SILENT_S = 3 * EXEC_RTO_MAX_S
"""A client that sent nothing for this long will not fetch its result."""


class RecordState(Enum):
    """State of a request; the transitions are in the opening of this module."""

    REFUSED = "refused"
    RUNNING = "running"
    FINISHED = "finished"
    FETCHED = "fetched"


@dataclass
class ExecRecord:
    """One request, however often its datagrams arrive."""

    id: RequestId
    """Key id and nonce."""
    argv: list[str]
    """Name of the command and its arguments, as requested."""
    peer: Peer
    """Validated address of the last request."""
    sequence: int
    """Sequence of the last request; a lower one is a copy."""
    last_request_s: float
    """When the last request arrived."""
    state: RecordState = RecordState.REFUSED
    refusal: Refusal | None = None
    """Why it does not run, when REFUSED."""
    execution: Execution | None = None
    """The command, unless REFUSED."""
    remove_s: float = field(default=float("inf"))
    """When the record is removed."""

    def refuse(self, refusal: Refusal, now_s: float) -> None:
        """(none) -> REFUSED."""
        self.state, self.refusal = RecordState.REFUSED, refusal
        self.remove_s = now_s + REPLAY_WINDOW_S

    def run(self, execution: Execution) -> None:
        """(none) -> RUNNING."""
        self.state, self.execution = RecordState.RUNNING, execution

    def finish(self, now_s: float) -> bool:
        """RUNNING -> FINISHED if the command has ended. Returns whether the state changed."""
        if self.state is not RecordState.RUNNING or self.outcome is None:
            return False
        self.state = RecordState.FINISHED
        self.remove_s = now_s + EXEC_RESULT_S
        return True

    def fetched(self, now_s: float) -> None:
        """FINISHED -> FETCHED; no change in other states."""
        if self.state is RecordState.FINISHED and self.execution is not None:
            self.state = RecordState.FETCHED
            self.execution.drop_output()
            self.remove_s = min(self.remove_s, now_s + REPLAY_WINDOW_S)

    @property
    def outcome(self) -> ExecutionOutcome | None:
        """How the command ended; None while it runs and when it was refused."""
        return self.execution.outcome if self.execution else None

    @property
    def running_command(self) -> Command | None:
        """The command while its process runs."""
        return self.execution.command if self.execution and not self.outcome else None

    @property
    def kept_bytes(self) -> int:
        """Output that this record may hold: the limit while it runs, then what was written."""
        if self.execution is None:
            return 0
        if self.outcome is None:
            return self.execution.command.output_bytes_max
        return len(self.outcome.written)

    def is_pending(self, now_s: float) -> bool:
        """Whether a stopping server waits for it: it runs, or a live client has yet to fetch it."""
        if self.state is RecordState.FINISHED:
            return self.last_request_s > now_s - CLIENT_SILENT_S
        return self.state is RecordState.RUNNING

    def reply(self) -> Reply:
        """The REFUSED or STATUS that answers a request."""
        if self.refusal is not None:
            return Reply(
                wire.REFUSED, self.id.nonce, self.sequence, wire.pack_refused(self.refusal)
            )
        status = self.outcome.status if self.outcome else Status(wire.RUNNING)
        return Reply(wire.STATUS, self.id.nonce, self.sequence, wire.pack_status(status))

    def part_replies(self, numbers: list[int]) -> list[Reply]:
        """The PARTs with these numbers that the result has; none while it runs."""
        if self.outcome is None:
            return []
        written = self.outcome.written
        count = wire.parts_of(len(written))
        return [
            Reply(wire.PART, self.id.nonce, self.sequence, wire.pack_part(number, written))
            for number in dict.fromkeys(numbers)
            if number < count
        ]

    def __str__(self) -> str:
        """Command, key and address, for the log."""
        return f"exec {shlex.join(self.argv)} by {self.id.key_id} from {format_peer(self.peer)}"


def format_peer(peer: Peer) -> str:
    """HOST:PORT, or [HOST]:PORT for IPv6."""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
