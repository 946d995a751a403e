"""What a log line looks like, and what it can never look like."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastnet.config.process import ProcessConfig
from fastnet.errors import ConfigError, printable
from fastnet.process.logs import PRINTED, JsonFormat, Logs, TextFormat, log

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (\w+) \[\d+\] (.*)")


def record(
    message: str, level: int = logging.INFO, error: BaseException | None = None
) -> logging.LogRecord:
    found = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("fastnet", level, "", 0, "%s", (message,), found)


@pytest.fixture
def debug() -> Iterator[None]:
    before = log.level
    log.setLevel(logging.DEBUG)
    yield
    log.setLevel(before)


def test_a_line_has_time_with_zone_level_pid_and_message() -> None:
    found = LINE.fullmatch(TextFormat().format(record("hello", logging.WARNING)))
    assert found is not None
    assert found.groups() == ("warning", "hello")


@given(st.text())
def test_no_message_makes_a_second_line_or_an_escape_sequence(text: str) -> None:
    for line in (TextFormat().format(record(text)), JsonFormat().format(record(text))):
        assert len(line.splitlines()) == 1
        assert line.isprintable()


@given(st.text())
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    assert printable(text) == text or not text.isprintable()


def caught(message: str) -> BaseException:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


@pytest.mark.usefixtures("debug")
def test_a_traceback_is_indented_so_that_no_line_of_it_passes_for_a_record() -> None:
    text = TextFormat().format(
        record("failed", error=caught("x\n2030-01-01T00:00:00.000+00:00 info [1] forged"))
    )
    first, *rest = text.split("\n")
    assert LINE.fullmatch(first)
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_without_debug_there_is_no_traceback() -> None:
    assert "\n" not in TextFormat().format(record("failed", error=caught("x")))
    assert "traceback" not in json.loads(JsonFormat().format(record("failed", error=caught("x"))))


def test_errors_go_to_both_files_and_the_rest_to_one(tmp_path: Path) -> None:
    config = ProcessConfig(log_file=str(tmp_path / "log"), error_log=str(tmp_path / "errors"))
    with Logs(config):
        log.info("one")
        log.error("two")
        log.debug("three")
    found = {name: (tmp_path / name).read_text().splitlines() for name in ("log", "errors")}
    assert [line.split()[-1] for line in found["log"]] == ["one", "two"]
    assert [line.split()[-1] for line in found["errors"]] == ["two"]


def test_what_the_terminal_was_told_is_logged_only_in_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Logs(ProcessConfig(error_log=str(tmp_path / "errors"))):
        log.error("printed", extra=PRINTED)
        log.info("news")
    assert "printed" not in capsys.readouterr().err
    assert "printed" in (tmp_path / "errors").read_text()


def test_closing_leaves_logging_as_it_was() -> None:
    before = (log.level, log.propagate, list(log.handlers))
    with Logs(ProcessConfig(log_level="debug")):
        assert log.isEnabledFor(logging.DEBUG)
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_an_unwritable_log_file_is_a_config_error_and_leaves_no_handler(
    tmp_path: Path,
) -> None:
    before = list(log.handlers)
    with pytest.raises(ConfigError, match="cannot write --error-log"):
        Logs(ProcessConfig(log_file=str(tmp_path / "log"), error_log=str(tmp_path)))
    assert log.handlers == before


def test_a_name_that_is_not_unicode_can_be_logged(tmp_path: Path) -> None:
    with Logs(ProcessConfig(log_file=str(tmp_path / "log"))):
        log.info("%s", "a\udcff")
    assert "a\\udcff" in (tmp_path / "log").read_text(sys.getfilesystemencoding())
