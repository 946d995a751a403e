"""What can go wrong, as classes; each knows the exit code of its kind.

    FastnetError                 1   anything below
    ├── ConfigError              3   an option, a TOML file or an environment variable makes no sense
    ├── NetworkError (OSError)   4   bind, connect, time-out: the network or the address said no
    ├── TransferError            5   a transfer failed; `code` is a stable word for why, `report` what was moved
    │   ├── TransferRefused      5   the other side, or what stands at the target, said no; nothing was changed
    │   └── TransferUnconfirmed  6   all was sent, and nobody said that it arrived
    ├── ExecDenied            5   the server of remote commands said no; nothing was run
    ├── ExecLost              6   a remote command may have run, and nobody knows how it ended
    ├── ChatRefused              5   the chat server said no: the name is taken, or the chat is full
    └── UnsupportedError         7   asked for by name, and this host or this build does not have it

A wrong word on the command line is click's own UsageError, exit code 2. An interrupt is 130. A
message is one sentence of what was tried, on what and why it failed; `hint` says what to do about
it.
"""

from __future__ import annotations

import os

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

EXIT_EXEC_TIMED_OUT = 8
EXIT_EXEC_KILLED = 9
EXIT_EXEC_FAILED = 10
EXIT_EXEC_UNSTARTED = 11


class FastnetError(Exception):
    """Base of every error that fastnet raises on its own account."""

    exit_code = EXIT_UNEXPECTED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigError(FastnetError):
    """A setting is wrong, alone or together with another one."""

    exit_code = 3


class NetworkError(FastnetError, OSError):
    """The network said no. It is an OSError too, with `errno` kept where there is one."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "", errno: int | None = None) -> None:
        FastnetError.__init__(self, message, hint)
        self.errno = errno


class TransferError(FastnetError):
    """A transfer did not end well. code: a stable word (apps/transfer/events.py). report: the
    TransferReport so far, or None.
    """

    exit_code = 5

    def __init__(
        self, message: str, hint: str = "", code: str = "failed", report: object = None
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        self.report = report


class TransferRefused(TransferError):
    """The other side, or what stands at the target, said no. Nothing was changed."""


class TransferUnconfirmed(TransferError):
    """Everything was sent, and nobody said that it arrived."""

    exit_code = 6


class ExecDenied(FastnetError):
    """A server of remote commands said no, and ran nothing. code: a stable word for why."""

    exit_code = 5

    def __init__(self, message: str, hint: str = "", code: str = "denied") -> None:
        super().__init__(message, hint)
        self.code = code


class ChatRefused(FastnetError):
    """A chat server does not let somebody in under this name."""

    exit_code = 5
    code = "refused"


class ExecLost(FastnetError):
    """A remote command was taken, and its outcome is not to be had any more: the server restarted,
    or it is too late.
    """

    exit_code = 6
    code = "lost"


class UnsupportedError(FastnetError):
    """Something asked for by name is not to be had here."""

    exit_code = 7


def reason(error: OSError) -> str:
    """The system's words for an OSError, in lower case and without the number."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error.strerror or error).lower()


def printable(text: str) -> str:
    """text with everything that is not a printable character or a space escaped, for terminals and
    logs.

    Messages quote what users, files and peers wrote; a newline in it would forge a line, an escape
    sequence repaint a screen.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
