"""fastnet.aio: the same as the blocking calls, and the loop runs meanwhile."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import fastnet
from fastnet import aio
from fastnet.errors import NetworkError
from fastnet.limits import MIB


class Listening:
    """An on_event that tells where a side listens, and counts."""

    def __init__(self) -> None:
        self.endpoint: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()
        self.kinds: list[str] = []

    def __call__(self, event: fastnet.TransferEvent) -> None:
        asyncio.get_running_loop()  # raises unless we are called in the loop's thread
        self.kinds.append(event.kind)
        if event.kind == "start":
            self.started.set()
        if event.kind == "listening":
            self.endpoint.set_result(event.endpoint or "")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(2 * MIB))
    return path


def test_several_transfers_run_concurrently_with_the_loop(source, tmp_path) -> None:
    async def one(number: int) -> None:
        listening = Listening()
        inbox = tmp_path / f"inbox{number}"
        receiving = asyncio.create_task(
            aio.receive("tcp://127.0.0.1:0", into=inbox, on_event=listening)
        )
        sent = await aio.send(source, await listening.endpoint)
        received = await receiving
        assert sent is not None
        assert received is not None
        assert sent.digest == received.digest
        assert (inbox / "source").read_bytes() == source.read_bytes()
        assert "report" in listening.kinds

    async def every() -> int:
        ticks = 0
        loop = asyncio.get_running_loop()

        def tick() -> None:
            nonlocal ticks, again
            ticks += 1
            again = loop.call_soon(tick)

        again = loop.call_soon(tick)
        await asyncio.gather(*map(one, range(8)))
        again.cancel()
        return ticks

    assert asyncio.run(every()) > 100


def test_a_cancelled_transfer_stops_and_leaves_nothing_open(source, tmp_path) -> None:
    async def cancelled() -> None:
        listening = Listening()
        receiving = asyncio.create_task(
            aio.receive("tcp://127.0.0.1:0", into=tmp_path / "inbox", on_event=listening)
        )
        sending = asyncio.create_task(
            aio.send(source, await listening.endpoint, limit_rate_bytes_s=MIB / 2)
        )
        await listening.started.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        with pytest.raises(fastnet.TransferError):
            await receiving

    asyncio.run(cancelled())
    assert not (tmp_path / "inbox" / "source").exists()


def test_errors_are_those_of_the_call(source, tmp_path) -> None:
    with pytest.raises(NetworkError):
        asyncio.run(aio.send(source, f"unix:{tmp_path}/no_listener"))


def test_a_server_answers_inside_of_its_context_and_is_gone_after_it() -> None:
    async def talk() -> None:
        async with aio.serve("echo", "tcp://127.0.0.1:0") as server:
            where = server.endpoint
            reader, writer = await asyncio.open_connection(where.host, where.port)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(where.host, where.port)

    asyncio.run(talk())
