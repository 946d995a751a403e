"""fastnet for asyncio: the same calls, awaited. The loop is never blocked.

    async with fastnet.aio.serve("echo", "tcp://127.0.0.1:0") as server: ...
    report = await fastnet.aio.send("disk.img", "tcp://host:9000", on_event=print)

Facts. A transfer waits in system calls without the GIL, and a server's loops are threads of their
own.
Decision: each call runs in a thread made for it, so a hundred transfers are not queued behind the
default executor's few. Events are handed to the loop. Who is cancelled tells the transfer to stop,
and waits for that: what was opened is closed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastnet import api
from fastnet.apps.transfer import api as transfers
from fastnet.apps.transfer.events import OnEvent, TransferEvent
from fastnet.apps.transfer.report import TransferReport
from fastnet.server.server import Server

T = TypeVar("T")


async def send(
    *arguments: Any, on_event: OnEvent | None = None, **options: Any
) -> TransferReport | None:
    """`fastnet.send`, awaited. on_event is called in the loop's thread; cancelling it stops the
    transfer.
    """
    return await _stoppable(transfers.send, arguments, on_event, options)


async def receive(
    *arguments: Any, on_event: OnEvent | None = None, **options: Any
) -> TransferReport | None:
    """`fastnet.receive`, awaited. on_event is called in the loop's thread; cancelling it stops the
    transfer.
    """
    return await _stoppable(transfers.receive, arguments, on_event, options)


@asynccontextmanager
async def serve(*arguments: Any, **options: Any) -> AsyncIterator[Server]:
    """`fastnet.serve` as an asynchronous context, which drains at its end."""
    server = await _in_thread(lambda: api.serve(*arguments, **options))
    try:
        yield server
    finally:
        await _in_thread(server.close)


async def _stoppable(
    run: Callable[..., TransferReport | None],
    arguments: tuple[Any, ...],
    on_event: OnEvent | None,
    options: dict[str, Any],
) -> TransferReport | None:
    loop = asyncio.get_running_loop()
    stopping = threading.Event()

    def tell(event: TransferEvent) -> None:
        if on_event is not None:
            loop.call_soon_threadsafe(on_event, event)

    work = asyncio.ensure_future(
        _in_thread(lambda: run(*arguments, on_event=tell, should_stop=stopping.is_set, **options))
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stopping.set()
        await asyncio.wait([work])
        work.exception()  # it was stopped; that is no news
        raise


async def _in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises, from a thread of its own."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def live() -> None:
        try:
            result, error = work(), None
        except BaseException as problem:
            loop.call_soon_threadsafe(settle, None, problem)
        else:
            loop.call_soon_threadsafe(settle, result, error)

    thread = threading.Thread(target=live, name="fastnet.aio")
    thread.start()
    try:
        return await done
    finally:
        if done.done():
            thread.join()  # it has said its last word
