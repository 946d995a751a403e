"""The suites of fastnet.testing: every row of ours passes, and broken ones are found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fastnet.engine.context import LoopContext
from fastnet.engine.stream import ENGINES
from fastnet.mover import MOVERS
from fastnet.mover.copy_py import Mover as CopyMover
from fastnet.service import SERVICES
from fastnet.service.contract import END, Conn, Item, Service
from fastnet.testing import check_engine, check_mover, check_service
from fastnet.testing.engine import check_half_close_is_drained, check_stop_ends_connections
from tests.support.movers import rows


@pytest.mark.parametrize("name", ["echo", "discard", "chargen"])
def test_our_services_conform(name: str) -> None:
    module = SERVICES.load(name, "python")
    check_service(module.create, engines=["select", "iterative"])


@pytest.mark.parametrize("row", rows())
def test_our_movers_conform(row: tuple[str, str]) -> None:
    of = MOVERS[row[0]]
    check_mover(MOVERS.load(*row).Mover, sends=of.sends, receives=of.receives)


def test_our_engines_drain_a_half_close(engine: str, backend: str) -> None:
    check_half_close_is_drained(engine, backend)


def test_our_engines_end_connections_when_stopped(engine: str, backend: str) -> None:
    check_stop_ends_connections(engine, backend)


def test_an_engine_may_be_given_as_its_function() -> None:
    check_engine(ENGINES.load("select", "python").run)


class ByChunk(Service):
    """Breaks S2: its reply shows how the input was cut."""

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        return (view[:1],)


class Shared(Service):
    """Breaks S8: its connections share what they have received."""

    def __init__(self) -> None:
        self.received = 0

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        self.received += len(view)
        return ()

    def eof(self, conn: Conn) -> Sequence[Item]:
        return (str(self.received).encode(), END)


class Text(Service):
    """Breaks S2: its items are no bytes."""

    def data(self, conn: Conn, view: memoryview) -> Sequence[Item]:
        return ("text",)  # type: ignore[return-value]


@pytest.mark.parametrize(("broken", "sentence"), [(ByChunk, "S2"), (Shared, "S8"), (Text, "S2")])
def test_a_broken_service_is_found_with_its_sentence(broken: type[Service], sentence: str) -> None:
    with pytest.raises(AssertionError, match=f"^{sentence}"):
        check_service(broken, engines=["select"])


def test_an_engine_that_returns_before_it_is_stopped_is_found() -> None:
    def run(context: LoopContext) -> None:
        listener = context.listeners[0]
        listener.setblocking(True)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(1))

    with pytest.raises(AssertionError, match=r"^E1"):
        check_stop_ends_connections(run, "python")


class OneByteLess(CopyMover):
    """Breaks M4: an extent is short by one byte."""

    def send_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]:
        return super().send_some(sock_fd, file_fd, offset, max(count - 1, 1), slice_s)


def test_a_mover_that_sends_a_byte_less_is_found() -> None:
    with pytest.raises(AssertionError, match=r"^M4"):
        check_mover(OneByteLess)
