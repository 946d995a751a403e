"""Server: opens the listeners of a plan, starts its loops, and stops them in order.

Facts. Native loops run without the GIL, so threads of one process use all cores; pure-Python loops
need a process each for that. Python runs signal handlers only in the main thread, between
bytecodes.
Decision: loops never run in the caller's thread. The caller's thread is free for signals and for
waiting, native and pure servers are run by the same code, and no loop needs to check for signals.
Cost: one thread that sleeps.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType

from fastnet.endpoint import Endpoint
from fastnet.engine import affinity
from fastnet.engine.context import LoopContext
from fastnet.engine.stop import NOW, StopSignal
from fastnet.metrics.counters import CounterTable, Statistics, statistics
from fastnet.server.plan import ServerPlan
from fastnet.server.reload import Reloader
from fastnet.server.workers import WorkerProcesses
from fastnet.service import SERVICES
from fastnet.transport import TRANSPORTS
from fastnet.transport.contract import Listener


class Server:
    """A running plan. Use it as a context, or call start, and then drain, wait and close.

    Args:
        plan: The decisions about it.
        trace_fd: The write end of a pipe for records of closed connections, or -1.
    """

    def __init__(self, plan: ServerPlan, trace_fd: int = -1) -> None:
        self.plan = plan
        self.endpoint: Endpoint = plan.endpoint
        """Where it listens; the port is known after start."""
        self._trace_fd = trace_fd
        self._transport = TRANSPORTS.load(plan.endpoint.transport, "python")
        self._listeners: list[Listener] = []
        self._counters: list[CounterTable] = []
        self._threads: list[threading.Thread] = []
        self._processes: WorkerProcesses | None = None
        self._reloader: Reloader | None = None
        self._stop: StopSignal | None = None
        self._failure: BaseException | None = None
        self._running = 0
        self._lock = threading.Lock()
        """Guards _running: how many loops have not ended."""
        self.ended_fd = -1
        """Becomes readable when all loops have ended, on request or not; -1 unless it runs."""

    def start(self) -> Server:
        """Listen and serve.

        Raises NetworkError, ConfigError or UnsupportedError, and then leaves nothing open.
        """
        self._listen(self.plan.workers)
        try:
            self._start_loops(self.plan.workers)
        except BaseException:
            self.close(drain_s=0)
            self._close_listeners()
            raise
        return self

    def _start_loops(self, workers: int) -> None:
        engine = self.plan.engines.load(self.plan.choice.engine, self.plan.choice.backend)
        service = self.plan.service()
        row, settings = SERVICES[self.plan.config.service], self.plan.config.settings
        if row.load is not None:
            service.answer_up_to(self.plan.limits.unvalidated_reply_bytes_max)
            path = settings[row.path_setting]
            self._reloader = Reloader(path, partial(row.load, settings), service.replace)
            self._reloader.load()
        self._stop = StopSignal()
        self.ended_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._counters = [CounterTable(self.plan.rows) for _ in range(workers)]
        works = [
            LoopContext(
                *(
                    [listener],
                    service,
                    self.plan.limits,
                    self._stop,
                    counters,
                    self.plan.access,
                    self._trace_fd,
                    cpu,
                ),
                reloader=self._reloader,
            )
            for listener, counters, cpu in zip(
                self._each_listener(workers), self._counters, self.plan.cpus, strict=True
            )
        ]
        self._start_each(engine.run, works)
        if self._reloader is not None:
            self._reloader.start(self._stop)

    def _start_each(self, run: Callable[[LoopContext], None], works: list[LoopContext]) -> None:
        """Start a thread or a process for each loop."""
        if self.plan.processes:
            self._running = 1
            self._processes = WorkerProcesses(run, works, self._ended)
            self._processes.start()
            return
        for i, context in enumerate(works):
            name = f"fastnet-{self.plan.config.service}-{i}"
            thread = threading.Thread(
                target=self._run_loop, args=(run, context), name=name, daemon=True
            )
            with self._lock:
                self._running += 1
            thread.start()
            self._threads.append(thread)

    def _listen(self, workers: int) -> None:
        options = self.plan.config.socket_options
        endpoint = self.plan.endpoint
        try:
            # A Unix socket cannot be bound twice, so its loops share one listener; a port can be,
            # and each loop has its own.
            for _ in range(workers if TRANSPORTS[endpoint.transport].shared else 1):
                self._listeners.append(self._transport.listen(endpoint, options))
                self.endpoint = self._listeners[0].endpoint
                # Only the port is copied: the host "::" would make the next listener IPv6-only.
                endpoint = replace(endpoint, port=self.endpoint.port)
                options = replace(options, claim=False)
        except BaseException:
            self._close_listeners()
            raise

    def _each_listener(self, workers: int) -> list[socket.socket]:
        return [self._listeners[i % len(self._listeners)].sock for i in range(workers)]

    def _run_loop(self, run: Callable[[LoopContext], None], context: LoopContext) -> None:
        """The body of a loop's thread."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            affinity.bind(context.cpu)
            run(context)
        except BaseException as error:
            self._failure = self._failure or error
            context.stop.now()
        finally:
            self._ended()

    def _ended(self) -> None:
        """A loop, or all worker processes, have ended."""
        with self._lock:
            self._running -= 1
            if self._running == 0:
                os.eventfd_write(self.ended_fd, 1)

    def reload(self) -> str:
        """Request a reload of the service's file, whether it has changed or not.

        Returns the path of the file, "" if the service has none.
        """
        if self._reloader is None:
            return ""
        self._reloader.request()
        return self._reloader.path

    def drain(self) -> None:
        """Stop accepting and let open connections finish. Returns immediately."""
        if self._stop is not None:
            self._stop.drain()

    def stop_now(self) -> None:
        """Close every connection. Returns immediately."""
        if self._stop is not None:
            self._stop.now()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all loops have ended; False if they have not within timeout_s.

        Raises the error of a loop that failed.
        """
        ended = (
            self._processes.wait(timeout_s)
            if self._processes
            else join_all(self._threads, timeout_s)
        )
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return ended

    def close(self, drain_s: float | None = None) -> None:
        """Drain for up to drain_s seconds (None: the config's), then close all connections.

        Joins the threads and releases the listeners.
        """
        if self._stop is None:
            return
        timeout_s = self.plan.config.drain if drain_s is None else drain_s
        try:
            if self._stop.state != NOW:
                self.drain()
                if not self.wait(timeout_s):
                    self.stop_now()
            self.wait()
        finally:
            # after a failure the other loops still stop, and use what is closed below
            join_all(self._threads, None)
            stop, self._stop = self._stop, None
            if self._reloader is not None:
                stop.drain()
                self._reloader.join()
                self._reloader = None
            self._threads.clear()
            self._processes = None
            self._close_listeners()
            stop.close()
            if self.ended_fd >= 0:
                os.close(self.ended_fd)
                self.ended_fd = -1

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def statistics(self) -> Statistics:
        """The counters since the start; also after the server has ended."""
        return statistics(self._counters)

    def worker_statistics(self) -> list[Statistics]:
        """The counters of each loop."""
        return [statistics([table]) for table in self._counters]

    def __str__(self) -> str:
        return f"{self.endpoint} ({self.plan.description})"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def join_all(threads: list[threading.Thread], timeout_s: float | None) -> bool:
    """Join threads within one timeout for all. Returns whether all have ended."""
    import time

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for thread in threads:
        thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
