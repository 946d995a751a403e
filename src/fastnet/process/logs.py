"""The log of a serving process: where it goes, what a line looks like, and how files change under
it.

Facts. logrotate renames a log file and sends SIGHUP; until then the process writes to the old one
through its descriptor. A log line is one line: whoever can put a newline, an escape sequence or a
bidirectional override into logged text (a path, a host name, a service's own words) can forge the
next line or repaint the terminal of who reads it.
Decision: files are opened for appending before anything listens, so that a wrong path is an error
of the start; on SIGHUP they are opened anew, and a file that cannot be is kept in its old place,
which is logged. Everything unprintable is escaped, as Python would write it. A log that cannot be
written (disk full) never stops a server. What the terminal was told as an event ("listening on
...") is logged with `extra=TOLD`, and then only in files.

    2024-02-29T13:37:00.123+01:00 info [4711] message
    {"time": "2024-02-29T13:37:00.123+01:00", "level": "info", "pid": 4711, "logger": "fastnet", "message": "message"}
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TextIO

from fastnet.config.process import ProcessConfig
from fastnet.errors import ConfigError, printable, reason

TOLD = {"told": True}
"""For `extra`: the terminal has this already."""

log = logging.getLogger("fastnet")


def moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def traceback_of(record: logging.LogRecord) -> list[str]:
    """The lines of a record's traceback; none unless the log is at debug."""
    if not record.exc_info or not log.isEnabledFor(logging.DEBUG):
        return []
    text = logging.Formatter().formatException(record.exc_info)
    return [printable(line) for line in text.splitlines()]


class TextFormat(logging.Formatter):
    """Lines to read. Those of a traceback are indented, so that none can pass for a record."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{moment(record)} {record.levelname.lower()} [{record.process}] {printable(record.getMessage())}"
        return "\n    ".join([head, *traceback_of(record)])


class JsonFormat(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": moment(record),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        trace = traceback_of(record)
        return json.dumps(values | ({"traceback": trace} if trace else {}))


FORMATS = {"text": TextFormat, "json": JsonFormat}


class Terminal(logging.StreamHandler[TextIO]):
    """Standard error, without what it was told already."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(record, "told", False) and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:
        return


class LogFile(logging.Handler):
    """A file that can be opened again under its name. A line is one write(2), so lines of several
    processes stay whole.
    """

    def __init__(self, path: str, option: str) -> None:
        super().__init__()
        self.path = path
        self.is_whole = True
        """Whether the last line is in it, all of it."""
        try:
            self._fd = open_log(path)
        except OSError as error:
            hint = "Choose a file this user may write, or make its folder first"
            raise ConfigError(f"cannot write --{option} {path}: {reason(error)}", hint) from error

    def emit(self, record: logging.LogRecord) -> None:
        line = (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        try:
            self.is_whole = os.write(self._fd, line) == len(line)
        except OSError:
            self.is_whole = False

    def reopen(self) -> None:
        """Go on in a new file of the same name. Raises OSError, and then goes on in the old one."""
        fresh = open_log(self.path)
        assert self.lock is not None
        with self.lock:
            old, self._fd = self._fd, fresh
        os.close(old)

    def close(self) -> None:
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_log(path: str) -> int:
    """A descriptor to append to. Opening must not wait, as a FIFO without a reader would make
    it.
    """
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640
    )


class Logs:
    """The handlers of this process while it serves. Raises ConfigError for a file that cannot be
    written.
    """

    def __init__(self, config: ProcessConfig) -> None:
        self._handlers: list[logging.Handler] = []
        self._before = (log.level, log.propagate)
        try:
            if config.log_file is None:
                handler: logging.Handler = Terminal()
            else:
                handler = LogFile(config.log_file, "log-file")
            self._add(handler, config)
            if config.error_log is not None:
                errors = LogFile(config.error_log, "error-log")
                errors.setLevel(logging.ERROR)
                self._add(errors, config)
        except BaseException:
            self.close()
            raise
        log.setLevel(config.log_level.upper())
        log.propagate = False

    def _add(self, handler: logging.Handler, config: ProcessConfig) -> None:
        handler.setFormatter(FORMATS[config.log_format]())
        self._handlers.append(handler)
        log.addHandler(handler)

    def are_whole(self) -> bool:
        """Whether each file has taken its last line."""
        return all(handler.is_whole for handler in self._handlers if isinstance(handler, LogFile))

    def reopen(self) -> None:
        """After logrotate: go on in new files."""
        for handler in self._handlers:
            if isinstance(handler, LogFile):
                try:
                    handler.reopen()
                except OSError as error:
                    log.error(
                        "cannot open the log %s again: %s; going on in the old file",
                        handler.path,
                        reason(error),
                    )

    def close(self) -> None:
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        self._handlers.clear()
        level, log.propagate = self._before
        log.setLevel(level)

    def __enter__(self) -> Logs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
