"""Daemon: detaches from the terminal, and reports success or an error to the launcher.

Facts. A daemon is a process in a session of its own without a controlling terminal; a second fork
prevents it from ever getting one, because only the leader of a session can (setsid(2),
credentials(7)). fork(2) copies one thread and every lock.
Decision: the launcher forks before it has a thread, then waits on a pipe until the daemon reports
that it listens, or its error. The launcher passes both on: output, errors and exit code of a start
are the same with --daemon and without. The daemon has /dev/null on its standard descriptors from
the beginning, so it never keeps open the pipe of a script that reads the launcher's output.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from fastnet import errors
from fastnet.errors import EXIT_UNEXPECTED, FastnetError

Events = list[dict[str, Any]]

UMASK = 0o022
"""Files of a daemon are writable for its user only, independent of the shell's umask."""


def launch(body: Callable[[Callable[[Events], None]], int]) -> Events:
    """Run `body` in a daemon; returns its first events.

    Args:
        body: Gets a function that reports events; the first call is sent to the launcher. Returns
            the exit code of the daemon.
    Raises:
        FastnetError: The error that `body` raised before its first events.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    source, target = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(source)
        leave(body, target)
    os.close(target)
    try:
        os.waitpid(pid, 0)
        with open(source, "rb", closefd=False) as pipe:
            report = pipe.read()
    finally:
        os.close(source)
    return read_report(report)


def read_report(report: bytes) -> Events:
    """The daemon's first events; raises the error that it reported instead."""
    if not report:
        raise FastnetError(
            "the daemon died before it listened", "Start it without --daemon to see why"
        )
    message = json.loads(report)
    if "events" in message:
        events: Events = message["events"]
        return events
    kind = getattr(errors, message["kind"], FastnetError)
    raise kind(message["message"], message["hint"])


def leave(body: Callable[[Callable[[Events], None]], int], target: int) -> NoReturn:
    """In the first child: fork the daemon, which runs `body`. Does not return."""
    code = EXIT_UNEXPECTED
    try:
        os.setsid()
        if os.fork():
            code = 0
        else:
            detach()
            code = run_body(body, target)
    finally:
        os._exit(code)


def detach() -> None:
    """Give up the directory, the standard descriptors and the umask of the launcher."""
    os.umask(UMASK)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def run_body(body: Callable[[Callable[[Events], None]], int], target: int) -> int:
    """Run `body`; send its first events or its error to the launcher through `target`."""
    waiting = [target]

    def send(message: dict[str, Any]) -> None:
        if waiting:
            pipe = waiting.pop()
            try:
                os.write(pipe, json.dumps(message).encode())
            finally:
                os.close(pipe)

    try:
        return body(lambda events: send({"events": events}))
    except FastnetError as error:
        send({"kind": type(error).__name__, "message": error.message, "hint": error.hint})
        return error.exit_code
    except BaseException as error:
        send(
            {
                "kind": "FastnetError",
                "message": f"unexpected {type(error).__name__}: {error}",
                "hint": "",
            }
        )
        return EXIT_UNEXPECTED
