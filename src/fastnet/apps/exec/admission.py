"""Admission of a new request: seven checks, then its nonce is written to the disk.

    _check_nonce       the nonce is not known from before a restart           lost
    _check_clock       the timestamp is within EXEC_CLOCK_S of our clock      clock
    _check_penalty     no argument of this key was too slow to match lately   busy
    _check_policy      the allow file permits command, key, arguments   command, key, arguments
    _check_stopping    the server is not stopping                             stopping
    _check_capacity    commands, output and nonces are below their limits     busy
    _check_audit_log   the last line of the log was written                   broken
    _persist_nonce     the nonce is on the disk                               broken

Decision: the checks that need no policy come first, so that a stale request costs nothing. The
nonce is written last: a request that was denied leaves no trace on the disk, and a command never
starts without one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastnet.apps.exec.nonces import Nonces, RequestId
from fastnet.apps.exec.policy import Command, Denied, MatchTimeout, Policy, denied, permit
from fastnet.apps.exec.record import ExecRecord
from fastnet.apps.exec.wire import Refusal
from fastnet.limits import EXEC_CONCURRENT_MAX, EXEC_KEPT_BYTES_MAX, EXEC_MATCH_PENALTY_S

log = logging.getLogger("fastnet")

LOST = Refusal("lost", "the server has no record of it any more")


@dataclass
class Candidate:
    """A new request on its way through the checks."""

    id: RequestId
    """Key id and nonce."""
    argv: list[str]
    """Name of the command and its arguments, as requested."""
    timestamp_us: int
    """When the client made the nonce."""
    now_us: int
    """The server's clock."""
    command: Command | None = None
    """Set by the policy check."""
    command_argv: list[str] | None = None
    """The argument vector to execute; set by the policy check."""


class Admission:
    """Decides whether a new request runs.

    Args:
        policy: The allow file.
        nonces: Nonces from before and after a restart.
        records: The server's records; only counted here.
        clock: Time of day in seconds; it may be wrong and jump.
        steady: Monotonic seconds.
    """

    def __init__(
        self,
        policy: Policy,
        nonces: Nonces,
        records: Mapping[RequestId, ExecRecord],
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self.policy = policy
        self.nonces = nonces
        self.is_stopping = False
        self.is_log_written: Callable[[], bool] = lambda: True
        """Whether the last line of the log was written. While it was not, nothing runs; each
        refusal is a line that tries again.
        """
        self._records = records
        self._clock = clock
        self._steady = steady
        self._penalty_until_s: dict[str, float] = {}
        """By key id: until when its requests are denied."""
        self._checks = (
            self._check_nonce,
            self._check_clock,
            self._check_penalty,
            self._check_policy,
            self._check_stopping,
            self._check_capacity,
            self._check_audit_log,
        )

    def admit(
        self, request_id: RequestId, argv: list[str], timestamp_us: int
    ) -> tuple[Command, list[str]]:
        """Check a new request and write its nonce to the disk.

        Returns:
            The command and the argument vector to execute.
        Raises:
            Denied: with the refusal for the client.
        """
        candidate = Candidate(request_id, argv, timestamp_us, int(self._clock() * 1e6))
        for check in self._checks:
            check(candidate)
        self._persist_nonce(candidate)
        assert candidate.command is not None
        assert candidate.command_argv is not None
        return candidate.command, candidate.command_argv

    def _check_nonce(self, candidate: Candidate) -> None:
        if candidate.id in self.nonces:
            raise Denied(LOST)

    def _check_clock(self, candidate: Candidate) -> None:
        now_us, timestamp_us = candidate.now_us, candidate.timestamp_us
        if not self.nonces.is_fresh(timestamp_us, now_us):
            side = "ago" if timestamp_us < now_us else "ahead"
            text = f"asked {abs(now_us - timestamp_us) / 1e6:.0f} s {side}"
            raise Denied(Refusal("clock", text, now_us))

    def _check_penalty(self, candidate: Candidate) -> None:
        key_id = candidate.id.key_id
        if self._steady() < self._penalty_until_s.get(key_id, 0.0):
            raise denied("busy", f"an argument took too long to check; {key_id} may ask again soon")

    def _check_policy(self, candidate: Candidate) -> None:
        """Also finds the command. A slow match costs the key a penalty."""
        key_id = candidate.id.key_id
        try:
            found = permit(self.policy, key_id, candidate.argv)
        except MatchTimeout:
            self._penalty_until_s[key_id] = self._steady() + EXEC_MATCH_PENALTY_S
            raise
        candidate.command, candidate.command_argv = found

    def _check_stopping(self, candidate: Candidate) -> None:
        if self.is_stopping:
            raise denied("stopping", "the server is ending")

    def _check_capacity(self, candidate: Candidate) -> None:
        command = candidate.command
        assert command is not None
        running = [each for record in self._records.values() if (each := record.running_command)]
        same = sum(each.name == command.name for each in running)
        if same >= command.concurrent_max:
            text = f"{command.name} is running {same} of {command.concurrent_max} allowed times"
            raise denied("busy", text)
        kept = sum(record.kept_bytes for record in self._records.values())
        if (
            len(running) >= EXEC_CONCURRENT_MAX
            or kept + command.output_bytes_max > EXEC_KEPT_BYTES_MAX
            or self.nonces.is_full()
        ):
            raise denied("busy", "the server runs or remembers as much as it can")

    def _check_audit_log(self, candidate: Candidate) -> None:
        if not self.is_log_written():
            text = "the server could not write its log, and runs nothing without a record"
            raise denied("broken", text)

    def _persist_nonce(self, candidate: Candidate) -> None:
        """When this returns, the nonce is on the disk."""
        try:
            self.nonces.add(candidate.id, candidate.timestamp_us, candidate.now_us)
        except OSError as error:
            why = error.strerror or error
            log.error("cannot write the nonces to %s: %s; nothing runs", self.nonces.path, why)
            text = "the server cannot write its nonces, so it runs nothing"
            raise denied("broken", text) from None
