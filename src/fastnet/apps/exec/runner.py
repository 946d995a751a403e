"""Execution of one command: a process without a shell, its pipes and its time limit.

    state        event                              next state
    (none)       the process cannot be started      ENDED         outcome "not started"
    (none)       the process is started             RUNNING
    RUNNING      the time limit passes              TERMINATING   SIGTERM to the group
    TERMINATING  EXEC_KILL_GRACE_S passes           KILLING       SIGKILL to the group
    KILLING      EXEC_KILL_GRACE_S passes           ENDED         gives up on the process
    any          the leader ends                    ENDED
    any          kill() when the server ends        ENDED

Facts. kill(2) reaches a whole process group, and the group's id is not reused while its leader is a
zombie that was not waited for. A pidfd becomes readable when its process ends (pidfd_open(2)). A
pipe stays open while any descendant of the command holds it, which may be longer than the command.
Decision: each command leads a session and a process group. When the leader has ended, the rest of
its group is killed before the leader is waited for, and the output is what is in the pipes then.
Output beyond the limit is read and dropped, so that the command does not block on it and its exit
status stays its own. Nothing here waits: the server polls the descriptors and deadlines. A
descendant in a session of its own (setsid(2)) is killed with the other orphans (orphans.py). A
leader that this user may not kill, because it runs as another user, is left alone EXEC_KILL_GRACE_S
after the SIGKILL: the execution ends without it, and the log says so.
"""

from __future__ import annotations

import logging
import os
import pwd
import secrets
import select
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fastnet.apps.exec.orphans import MARK, Orphans
from fastnet.apps.exec.policy import PATH, Command
from fastnet.apps.exec.wire import (
    ERROR_CUT,
    EXITED,
    KILLED,
    OUTPUT_CUT,
    TIMED_OUT,
    UNSTARTED,
    Status,
)
from fastnet.limits import EXEC_KILL_GRACE_S, READ_BYTES

log = logging.getLogger("fastnet")

DRAIN_READS = 32
"""Reads from each pipe after the leader's end: a pipe holds 64 KiB, and a process that still
writes then is not part of the command.
"""


class ExecutionState(Enum):
    """State of a command; the transitions are in the opening of this module."""

    RUNNING = "running"
    TERMINATING = "terminating"
    KILLING = "killing"
    ENDED = "ended"


@dataclass(frozen=True)
class ExecutionOutcome:
    """How a command ended, and what it wrote."""

    status: Status
    """State, lengths and duration."""
    written: bytes = b""
    """Standard output, then standard error."""


class PipeReader:
    """Read end of one pipe, and the bytes kept from it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        os.set_blocking(file.fileno(), False)
        self.kept = bytearray()
        self.was_cut = False
        """Whether bytes were dropped for want of room."""

    def read(self, room: int) -> int:
        """Read once and keep at most `room` bytes.

        Returns:
            How many bytes were kept; -1 at the end of the pipe.
        """
        try:
            data = os.read(self.file.fileno(), READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            return -1
        kept = min(len(data), room)
        self.was_cut = self.was_cut or kept < len(data)
        self.kept += data[:kept]
        return kept


class Execution:
    """A command and its process. Once `outcome` is set it holds no process and no descriptor.

    Args:
        command: Limits and identity.
        argv: The argument vector to execute.
        orphans: Kills what the command leaves behind.
    """

    def __init__(self, command: Command, argv: list[str], orphans: Orphans) -> None:
        """Start the process; if that fails, the outcome is set immediately."""
        self.command = command
        self.outcome: ExecutionOutcome | None = None
        """How it ended; None until then."""
        self.state = ExecutionState.RUNNING
        self.deadline_s: float | None = None
        """When handle_timer is due; None once ended."""
        self._orphans = orphans
        self._mark = secrets.token_hex(8)
        self._pipes: dict[int, PipeReader] = {}
        """Open pipes by descriptor."""
        self._room = command.output_bytes_max
        """Output that is still kept."""
        self._started_s = time.monotonic()
        try:
            self.process, self._pidfd = start_process(command, argv, self._mark)
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else 0
            self._end(ExecutionOutcome(Status(UNSTARTED, number)))
            return
        self.deadline_s = self._started_s + command.time_limit_s
        orphans.leaders.add(self.process.pid)
        self._output = PipeReader(self.process.stdout)
        self._error = PipeReader(self.process.stderr)
        self._pipes = {pipe.file.fileno(): pipe for pipe in (self._output, self._error)}

    def descriptors(self) -> list[int]:
        """Descriptors to poll for input."""
        return [*self._pipes, self._pidfd] if self.outcome is None else []

    def handle_readable(self, fd: int) -> None:
        """A descriptor is readable: read once, or handle the end of the leader."""
        if fd == self._pidfd:
            self._on_leader_ended()
        elif fd in self._pipes:
            kept = self._pipes[fd].read(self._room)
            self._room -= max(0, kept)
            if kept < 0:
                del self._pipes[fd]

    def handle_timer(self, now_s: float) -> None:
        """Enforce the time limit."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return
        match self.state:
            case ExecutionState.RUNNING:
                self.state = ExecutionState.TERMINATING
                kill_group(self.process.pid, signal.SIGTERM)
            case ExecutionState.TERMINATING:
                self.state = ExecutionState.KILLING
                kill_group(self.process.pid, signal.SIGKILL)
            case _:
                self._give_up()
                return
        self.deadline_s = now_s + EXEC_KILL_GRACE_S

    def kill(self) -> None:
        """Kill the command and wait for it, for up to EXEC_KILL_GRACE_S; the server ends."""
        if self.outcome is None:
            kill_group(self.process.pid, signal.SIGKILL)
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            ended = poll.poll(EXEC_KILL_GRACE_S * 1000)
            self._on_leader_ended() if ended else self._give_up()

    def drop_output(self) -> None:
        """Keep the status only."""
        if self.outcome is not None:
            self.outcome = ExecutionOutcome(self.outcome.status)

    def _on_leader_ended(self) -> None:
        """The leader is a zombie: kill its group, read what is left, wait for it."""
        kill_group(self.process.pid, signal.SIGKILL)
        self._drain_pipes()
        code = self.process.wait()
        state = self._timed_out_or(KILLED if code < 0 else EXITED)
        self._close(state, abs(code))

    def _give_up(self) -> None:
        """The leader cannot be killed: end the execution without it."""
        log.error(
            "process %d of %s cannot be killed and runs on", self.process.pid, self.command.name
        )
        self._drain_pipes()
        self.process.returncode = -signal.SIGKILL  # orphans.py waits for it
        self._close(self._timed_out_or(KILLED), signal.SIGKILL)

    def _timed_out_or(self, state: int) -> int:
        """TIMED_OUT once the time limit has passed, else `state`."""
        return state if self.state is ExecutionState.RUNNING else TIMED_OUT

    def _drain_pipes(self) -> None:
        for pipe in list(self._pipes.values()):
            for _ in range(DRAIN_READS):
                kept = pipe.read(self._room)
                self._room -= max(0, kept)
                if kept < 0 or (kept == 0 and not pipe.was_cut):
                    break

    def _close(self, state: int, number: int) -> None:
        """Close the descriptors, kill the orphans, set the outcome."""
        output, error = bytes(self._output.kept), bytes(self._error.kept)
        flags = OUTPUT_CUT * self._output.was_cut | ERROR_CUT * self._error.was_cut
        self._pipes.clear()
        self._output.file.close()
        self._error.file.close()
        os.close(self._pidfd)
        self._pidfd = -1
        self._orphans.leaders.discard(self.process.pid)
        self._orphans.kill(self._mark)
        status = Status(state, number, len(output), len(error), flags, self._took_us())
        self._end(ExecutionOutcome(status, output + error))

    def _took_us(self) -> int:
        return int((time.monotonic() - self._started_s) * 1e6)

    def _end(self, outcome: ExecutionOutcome) -> None:
        self.outcome = outcome
        self.state = ExecutionState.ENDED
        self.deadline_s = None


def start_process(
    command: Command, argv: list[str], mark: str
) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process of a command. Arguments are UTF-8, whatever the locale.

    Returns:
        The process and its pidfd.
    Raises:
        OSError: No program, process or descriptor.  KeyError: The user no longer exists.
    """
    environment = {"PATH": PATH} | dict(command.environment) | {MARK: mark}
    process = subprocess.Popen(
        [item.encode() for item in argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={name.encode(): value.encode() for name, value in environment.items()},
        cwd=command.directory,
        start_new_session=True,
        **identity(command.user),
    )
    try:
        return process, os.pidfd_open(process.pid)
    except OSError:
        with process:
            kill_group(process.pid, signal.SIGKILL)
        raise


def identity(user: str) -> dict[str, Any]:
    """Arguments of Popen that run a command as another user, with that user's groups only."""
    if not user or os.geteuid() != 0:
        return {}
    found = pwd.getpwnam(user)
    groups = os.getgrouplist(user, found.pw_gid)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": groups}


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a process group; one that is empty or that we may not signal is fine."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
