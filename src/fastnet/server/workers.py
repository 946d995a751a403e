"""Worker processes: one event loop each, monitored and restarted.

Facts. The GIL lets one thread of a process run Python at a time, and a descriptor limit is that of
a process. A listener stays open as long as any process holds it, and connections stay queued on it.
Decision: the parent opens all listeners and keeps them, each worker serves one. When a worker dies
(kill -9, out of memory) the parent counts its connections as killed and forks a new worker on the
same listener, so queued connections are served. A worker whose parent has died drains and ends: it
reads end of file on a pipe whose write end only the parent has.
Cost: one thread of the parent that sleeps in poll(2).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from fastnet.engine import affinity
from fastnet.engine.context import LoopContext
from fastnet.engine.forked import become_child, keep_only, reap
from fastnet.engine.stop import RUN
from fastnet.limits import WORKER_RESTART_S
from fastnet.metrics.counters import CLOSED, CLOSED_REASONS, KILLED, WRITE_BUFFER_BYTES

log = logging.getLogger("fastnet")

DEATH_NOTE_BYTES_MAX = select.PIPE_BUF
"""Error text of a failed worker; up to this size a write to a pipe is atomic (pipe(7))."""


class WorkerProcesses:
    """One process for each loop context, until all have ended after a stop."""

    def __init__(
        self,
        run: Callable[[LoopContext], None],
        works: Sequence[LoopContext],
        ended: Callable[[], None],
    ) -> None:
        """Args: the loop of an engine, its contexts, and a callback for the end of the last one."""
        self._run = run
        self._on_all_ended = ended
        self._works = works
        self._alive: dict[int, tuple[int, int, float, int]] = {}
        """By pidfd: index of the context, pid, time of the fork, read end of the death note."""
        self._lifeline_out, self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._watcher = threading.Thread(target=self._watch, name="fastnet-workers", daemon=True)

    def start(self) -> None:
        try:
            for index in range(len(self._works)):
                self._spawn(index)
        finally:
            self._watcher.start()

    def pids(self) -> list[int]:
        """Process ids of the workers alive now."""
        return [pid for _, pid, _, _ in list(self._alive.values())]

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until all workers have ended. False if they have not within timeout_s."""
        self._watcher.join(timeout_s)
        return not self._watcher.is_alive()

    def _spawn(self, index: int) -> None:
        # Signals are blocked until the child has reset the parent's handlers: it shares the pipe
        # they write to, and a Ctrl-C in between would be delivered to the parent twice.
        death_note_fd, to_parent = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._be_worker(self._works[index], to_parent)
        except BaseException:
            os.close(death_note_fd)
            raise
        finally:
            os.close(to_parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._alive[os.pidfd_open(pid)] = (index, pid, time.monotonic(), death_note_fd)

    def _be_worker(self, context: LoopContext, to_parent: int) -> None:
        """Run the loop in the new process. Does not return."""
        status = 1
        try:
            become_child()
            kept = {
                context.stop.drain_fd,
                context.stop.now_fd,
                context.trace_fd,
                self._lifeline_out,
                to_parent,
            }
            keep_only({*kept, *(listener.fileno() for listener in context.listeners)})
            log_to_standard_error()
            threading.Thread(target=self._end_with_parent, args=(context,), daemon=True).start()
            affinity.bind(context.cpu)
            if context.reloader is not None:
                context.reloader.start(context.stop, quiet=True)
            self._run(context)
            status = 0
        except BaseException as error:
            # the log files are closed in a worker; the parent logs the error
            os.write(
                to_parent,
                f"{type(error).__name__}: {error}".encode(errors="replace")[:DEATH_NOTE_BYTES_MAX],
            )
        finally:
            os._exit(status)

    def _end_with_parent(self, context: LoopContext) -> None:
        os.read(self._lifeline_out, 1)
        context.stop.drain()

    def _watch(self) -> None:
        """Body of the monitoring thread: reap workers, and restart those that died."""
        while self._alive:
            poll = select.poll()
            for pidfd in self._alive:
                poll.register(pidfd, select.POLLIN)
            for pidfd, _ in poll.poll():
                self._ended(pidfd)
        os.close(self._lifeline)
        os.close(self._lifeline_out)
        self._on_all_ended()

    def _ended(self, pidfd: int) -> None:
        index, pid, born_s, death_note_fd = self._alive.pop(pidfd)
        os.close(pidfd)
        reap(pid)
        note = read_death_note(death_note_fd)
        context = self._works[index]
        count_killed(context)
        if context.stop.state != RUN:
            return
        log.error(
            "worker %d (pid %d) died%s; starting another",
            index,
            pid,
            f" of {note}" if note else "",
        )
        if time.monotonic() - born_s < WORKER_RESTART_S:
            # It died right after its start: do not fork in a tight loop. A stop ends the wait.
            select.select([context.stop.drain_fd], [], [], WORKER_RESTART_S)
        if context.stop.state == RUN:
            self._spawn(index)


def log_to_standard_error() -> None:
    """In a worker: remove the handlers of log files, whose descriptors are closed and reused."""
    for handler in log.handlers[:]:
        if getattr(handler, "stream", None) is not sys.stderr:
            log.removeHandler(handler)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    log.propagate = False


def read_death_note(death_note_fd: int) -> str:
    """The error that a failed worker wrote, or ""."""
    try:
        return os.read(death_note_fd, DEATH_NOTE_BYTES_MAX).decode(errors="replace")
    except BlockingIOError:
        return ""
    finally:
        os.close(death_note_fd)


def count_killed(context: LoopContext) -> None:
    """Count the open connections of a dead worker as killed, so that the sums stay right."""
    for index in range(context.counters.rows):
        context.counters.row(index)[WRITE_BUFFER_BYTES] = 0
    total = context.counters.total()
    closed = sum(total[f"closed_{why}"] for why in CLOSED_REASONS)
    context.counters.row(0)[CLOSED + KILLED] += max(0, total["accepted"] - closed)
