"""Log of a serving process: handlers for standard error and files, formats, log rotation.

Facts. logrotate renames a log file and sends SIGHUP; until then the process writes to the old one
through its descriptor. A record is one line: text with a newline, an escape sequence or a
bidirectional override (in a path, a host name, a user's text) could forge the next line or repaint
the reader's terminal.
Decision: files are opened for appending before anything listens, so that a wrong path is an error
of the start; on SIGHUP they are reopened, and where that fails, the old file stays in use, which is
logged. Unprintable characters are escaped as in Python literals. A log that cannot be written (disk
full) never stops a server. An event that was printed on the terminal ("listening on ...") is logged
with `extra=PRINTED`, and then in files only.

    2024-02-29T13:37:00.123+01:00 info [4711] message
    {"time": "2024-02-29T13:37:00.123+01:00", "level": "info", "pid": 4711,
     "logger": "fastnet", "message": "message"}
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime
from typing import TextIO

from fastnet.config.process import ProcessConfig
from fastnet.errors import ConfigError, printable, reason

PRINTED = {"is_printed": True}
"""For `extra`: the record was printed on the terminal as an event."""

log = logging.getLogger("fastnet")


def moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def traceback_of(record: logging.LogRecord) -> list[str]:
    """The lines of a record's traceback; none unless the log level is debug."""
    if not record.exc_info or not log.isEnabledFor(logging.DEBUG):
        return []
    text = logging.Formatter().formatException(record.exc_info)
    return [printable(line) for line in text.splitlines()]


class TextFormat(logging.Formatter):
    """Text lines. Those of a traceback are indented, so that none looks like a record."""

    def format(self, record: logging.LogRecord) -> str:
        level, message = record.levelname.lower(), printable(record.getMessage())
        head = f"{moment(record)} {level} [{record.process}] {message}"
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


class StderrHandler(logging.StreamHandler[TextIO]):
    """Standard error, without the records that were printed as events."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(record, "is_printed", False) and bool(super().filter(record))

    def handleError(self, record: logging.LogRecord) -> None:
        return


class LogFile(logging.Handler):
    """A file that can be reopened; each line is one write(2), so processes can share it."""

    def __init__(self, path: str, option: str) -> None:
        super().__init__()
        self.path = path
        self.is_whole = True
        """Whether the last line was written completely."""
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
        """Continue in a new file of the same name. Raises OSError, and then keeps the old one."""
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
    """A descriptor for appending; O_NONBLOCK, because the path may be a FIFO."""
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640
    )


class Logs:
    """The log handlers of a serving process. Raises ConfigError for an unwritable file."""

    def __init__(self, config: ProcessConfig) -> None:
        self._handlers: list[logging.Handler] = []
        self._before = (log.level, log.propagate)
        try:
            if config.log_file is None:
                handler: logging.Handler = StderrHandler()
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
        """Whether the last line of each file was written completely."""
        return all(handler.is_whole for handler in self._handlers if isinstance(handler, LogFile))

    def reopen(self) -> None:
        """Reopen the files, as logrotate requests it."""
        for handler in self._handlers:
            if isinstance(handler, LogFile):
                try:
                    handler.reopen()
                except OSError as error:
                    log.error(
                        "cannot open the log %s again: %s; the old file stays in use",
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
