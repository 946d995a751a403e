"""Errors, as classes with the exit code of their kind.

    FastnetError                 1   base class
    ├── ConfigError              3   an option, TOML file or environment variable is not valid
    ├── NetworkError (OSError)   4   bind, connect or a timeout failed
    ├── TransferError            5   a transfer failed; `code` is a stable word for the reason,
    │   │                            `report` the TransferReport until then
    │   ├── TransferRefused      5   the peer refused, or a file exists; nothing was changed
    │   └── TransferUnconfirmed  6   all was sent, and no acknowledgement arrived
    ├── ExecDenied               5   the exec server refused; nothing was run
    ├── ExecLost                 6   a remote command may have run; its outcome is unknown
    ├── ChatRefused              5   the chat server refused: the name is taken, or it is full
    └── UnsupportedError         7   requested by name, and absent on this host or in this build

A usage error on the command line is click's own UsageError, exit code 2. An interrupt is 130. A
message is one sentence: what was tried, on what, why it failed; `hint` is what to do about it.
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
    """Base of the errors that fastnet raises."""

    exit_code = EXIT_UNEXPECTED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ConfigError(FastnetError):
    """A setting is not valid, alone or together with another one."""

    exit_code = 3


class NetworkError(FastnetError, OSError):
    """A network operation failed. It is an OSError too, with `errno` where there is one."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "", errno: int | None = None) -> None:
        FastnetError.__init__(self, message, hint)
        self.errno = errno


class TransferError(FastnetError):
    """A transfer failed."""

    exit_code = 5

    def __init__(
        self, message: str, hint: str = "", code: str = "failed", report: object = None
    ) -> None:
        super().__init__(message, hint)
        self.code = code
        """A stable word for the reason (apps/transfer/events.py)."""
        self.report = report
        """The TransferReport until the failure, or None."""


class TransferRefused(TransferError):
    """The peer refused, or a file at the target exists. Nothing was changed."""


class TransferUnconfirmed(TransferError):
    """Everything was sent, and no acknowledgement arrived."""

    exit_code = 6


class ExecDenied(FastnetError):
    """An exec server refused a request and ran nothing. code: a stable word for the reason."""

    exit_code = 5

    def __init__(self, message: str, hint: str = "", code: str = "denied") -> None:
        super().__init__(message, hint)
        self.code = code


class ChatRefused(FastnetError):
    """A chat server refused a user name."""

    exit_code = 5
    code = "refused"


class ExecLost(FastnetError):
    """A remote command was accepted, and its outcome is not available any more."""

    exit_code = 6
    code = "lost"


class UnsupportedError(FastnetError):
    """A feature requested by name is absent on this host or in this build."""

    exit_code = 7


def reason(error: OSError) -> str:
    """strerror(3) of an OSError, in lower case and without the number."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error.strerror or error).lower()


def printable(text: str) -> str:
    """Escape every character that is not printable, for terminals and logs.

    Messages quote text of users, files and peers; a newline in it would forge a line, an escape
    sequence repaint the screen.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
