"""Leave the terminal, but only once it is known that all went well.

Facts. A daemon is a process in a session of its own without a controlling terminal; a second fork
makes sure it can never get one, for only the leader of a session can (setsid(2), credentials(7)).
fork(2) copies one thread and every lock.
Decision: the launching process forks before it has a thread, then waits on a pipe until the daemon
has said that it listens, or why it does not. The launcher speaks for it: what a start prints,
raises and exits with is the same with
--daemon and without. The daemon has /dev/null on its standard descriptors from its first moment on,
so it never holds the pipe of a script that waits for the launcher's output to end.
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
"""Files of a daemon are writable for its user only, whatever the shell it was started from
allows.
"""


def launch(body: Callable[[Callable[[Events], None]], int]) -> Events:
    """Run body in a daemon and return the events it tells first. Raises what it raised before that.

    body: gets a function that takes events; the first call is passed on to the launcher. Its result
    is the exit code.
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
            told = pipe.read()
    finally:
        os.close(source)
    return understand(told)


def understand(told: bytes) -> Events:
    """The daemon's first words: events to pass on, or an error to raise."""
    if not told:
        raise FastnetError(
            "the daemon died before it listened", "Start it without --daemon to see why"
        )
    words = json.loads(told)
    if "events" in words:
        events: Events = words["events"]
        return events
    kind = getattr(errors, words["kind"], FastnetError)
    raise kind(words["message"], words["hint"])


def leave(body: Callable[[Callable[[Events], None]], int], target: int) -> NoReturn:
    """In the first child: become a daemon and run body. Does not return."""
    code = EXIT_UNEXPECTED
    try:
        os.setsid()
        if os.fork():
            code = 0
        else:
            detach()
            code = run(body, target)
    finally:
        os._exit(code)


def detach() -> None:
    """Hold on to no folder, no terminal and no mask of the launcher's."""
    os.umask(UMASK)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def run(body: Callable[[Callable[[Events], None]], int], target: int) -> int:
    """Run body; tell the launcher its first events or its error through target."""
    waiting = [target]

    def tell(words: dict[str, Any]) -> None:
        if waiting:
            pipe = waiting.pop()
            try:
                os.write(pipe, json.dumps(words).encode())
            finally:
                os.close(pipe)

    try:
        return body(lambda events: tell({"events": events}))
    except FastnetError as error:
        tell({"kind": type(error).__name__, "message": error.message, "hint": error.hint})
        return error.exit_code
    except BaseException as error:
        tell(
            {
                "kind": "FastnetError",
                "message": f"unexpected {type(error).__name__}: {error}",
                "hint": "",
            }
        )
        return EXIT_UNEXPECTED
