"""One command: started without a shell, watched, bounded, and gone with everything it started.

Facts. A process group dies by one kill(2), and its number is not given away while its leader is a
zombie nobody has waited for. A pidfd becomes readable when its process ends (pidfd_open(2)). A pipe
stays open as long as anybody below the command holds it, which may be much longer than the command.
Decision: each command leads a session and a group of its own. At the time limit the group gets
SIGTERM and EXEC_KILL_GRACE_S later SIGKILL. When the leader has ended, whatever it left behind is
killed before the leader is waited for, and output is what is in the pipes then. Output beyond the
limit is read and dropped, so that the command does not block on it and its exit status stays its
own. Nothing waits here: descriptors and deadlines are the server's to poll. What made a session of
its own (setsid(2)) is killed then too, with the rest of what the command started (orphans.py). A
leader that we may not kill, as it runs as another user, is left to itself EXEC_KILL_GRACE_S after
the SIGKILL: the execution ends without it, and the log says so.
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

LAST_READS = 32
"""Reads from each pipe after the leader's end; a pipe holds 64 KiB, and who still writes then is
not part of the command.
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote: its output, then its error output."""

    status: Status
    written: bytes = b""


class Stream:
    """The read end of one pipe and what has come out of it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        os.set_blocking(file.fileno(), False)
        self.kept = bytearray()
        self.cut = False

    def read(self, room: int) -> int:
        """Read once and keep at most `room` bytes. Returns what was kept, or -1 at the end of the
        stream or of patience.
        """
        try:
            data = os.read(self.file.fileno(), READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            return -1
        kept = min(len(data), room)
        self.cut = self.cut or kept < len(data)
        self.kept += data[:kept]
        return kept


class Execution:
    """A command that runs. `outcome` is None until it has ended; then it holds no process and no
    descriptor.
    """

    def __init__(self, command: Command, argv: list[str], orphans: Orphans) -> None:
        """Start it. One that cannot be started has its outcome at once."""
        self.command = command
        self.orphans = orphans
        self.mark = secrets.token_hex(8)
        self.outcome: Outcome | None = None
        self.streams: dict[int, Stream] = {}
        self.room = command.output_bytes_max
        self.is_late = False
        self.is_killed = False
        self.started_s = time.monotonic()
        self.deadline_s: float | None = self.started_s + command.time_limit_s
        try:
            self.process, self.pidfd = start(command, argv, self.mark)
        except (OSError, subprocess.SubprocessError, KeyError) as error:
            number = error.errno if isinstance(error, OSError) and error.errno else 0
            self._end(Outcome(Status(UNSTARTED, number)))
            return
        orphans.leaders.add(self.process.pid)
        self.output, self.error = Stream(self.process.stdout), Stream(self.process.stderr)
        self.streams = {each.file.fileno(): each for each in (self.output, self.error)}

    def descriptors(self) -> list[int]:
        """What to poll for input."""
        return [*self.streams, self.pidfd] if self.outcome is None else []

    def ready(self, fd: int) -> None:
        """One of the descriptors is readable: read once, or note the end."""
        if fd == self.pidfd:
            self._leader_ended()
        elif fd in self.streams:
            kept = self.streams[fd].read(self.room)
            self.room -= max(0, kept)
            if kept < 0:
                del self.streams[fd]

    def tick(self, now_s: float) -> None:
        """Enforce the time limit."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return
        if self.is_killed:
            self._give_up()
            return
        self.is_killed = self.is_late
        kill_group(self.process.pid, signal.SIGKILL if self.is_late else signal.SIGTERM)
        self.deadline_s = now_s + EXEC_KILL_GRACE_S
        self.is_late = True

    def kill(self) -> None:
        """End it now, because the server ends. It is waited for, as long as after a time limit."""
        if self.outcome is None:
            kill_group(self.process.pid, signal.SIGKILL)
            ended = select.select([self.pidfd], [], [], EXEC_KILL_GRACE_S)[0]
            self._leader_ended() if ended else self._give_up()

    def _leader_ended(self) -> None:
        """The process is a zombie: take its group along, read what is left, and wait for it."""
        kill_group(self.process.pid, signal.SIGKILL)
        self._read_last()
        code = self.process.wait()
        state = TIMED_OUT if self.is_late else KILLED if code < 0 else EXITED
        self._close(state, abs(code))

    def _give_up(self) -> None:
        """The process does not end: end the execution without it."""
        log.error(
            "process %d of %s cannot be killed and runs on", self.process.pid, self.command.name
        )
        self._read_last()
        self.process.returncode = -signal.SIGKILL  # nobody waits for it but orphans.py
        self._close(TIMED_OUT if self.is_late else KILLED, signal.SIGKILL)

    def _read_last(self) -> None:
        for stream in list(self.streams.values()):
            for _ in range(LAST_READS):
                kept = stream.read(self.room)
                self.room -= max(0, kept)
                if kept < 0 or (kept == 0 and not stream.cut):
                    break

    def _close(self, state: int, number: int) -> None:
        """Give the descriptors back, end what the command left behind, and say how it ended."""
        output, error = bytes(self.output.kept), bytes(self.error.kept)
        flags = OUTPUT_CUT * self.output.cut | ERROR_CUT * self.error.cut
        self.streams.clear()
        self.output.file.close()
        self.error.file.close()
        os.close(self.pidfd)
        self.pidfd = -1
        self.orphans.leaders.discard(self.process.pid)
        self.orphans.kill(self.mark)
        self._end(
            Outcome(
                Status(state, number, len(output), len(error), flags, self._took_us()),
                output + error,
            )
        )

    def _took_us(self) -> int:
        return int((time.monotonic() - self.started_s) * 1e6)

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.deadline_s = None


def start(command: Command, argv: list[str], mark: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process and its pidfd. Texts are UTF-8, whatever the locale.

    Raises OSError (no program, no process, no descriptor), KeyError (the user is gone).
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
    """What makes a command another user's, with all groups of that user and none of ours."""
    if not user or os.geteuid() != 0:
        return {}
    found = pwd.getpwnam(user)
    groups = os.getgrouplist(user, found.pw_gid)
    return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": groups}


def kill_group(pid: int, number: int) -> None:
    """A signal to everybody in a group; nobody left, or only others' set-user-ID programs, is
    fine.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
