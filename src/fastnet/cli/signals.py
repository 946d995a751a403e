"""Signals of commands that run one job: some interrupt it, some let it finish."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ShouldStop = Callable[[], bool]


@contextmanager
def interrupted_by(*numbers: int) -> Iterator[None]:
    """Raise KeyboardInterrupt on these signals too, so that temporary files are removed."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def two_signals() -> Iterator[ShouldStop]:
    """On SIGINT and SIGTERM: the first requests a stop, the second raises KeyboardInterrupt.

    Yields a function that returns whether a stop was requested.
    """
    seen: list[int] = []

    def on_signal(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before = [
        (number, signal.signal(number, on_signal)) for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def run_until_signal(run: Callable[[ShouldStop], None], keep_open: bool) -> None:
    """Call `run` with a function that returns whether it should stop.

    keep_open: the first signal requests a stop; otherwise every signal interrupts.
    """
    if keep_open:
        with interrupted_by(signal.SIGHUP), two_signals() as should_stop:
            run(should_stop)
    else:
        with interrupted_by(signal.SIGTERM, signal.SIGHUP):
            run(lambda: False)
