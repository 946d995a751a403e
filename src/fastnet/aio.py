"""fastnet for asyncio: the same calls, awaited; the event loop is never blocked.

    async with fastnet.aio.serve("echo", "tcp://127.0.0.1:0") as server: ...
    report = await fastnet.aio.send("disk.img", "tcp://host:9000", on_event=print)

Facts. A transfer blocks in system calls without the GIL, and a server's loops are threads.
Decision: each call runs in a thread made for it, so a hundred transfers do not queue for the few
threads of the default executor. Events are handed to the event loop. Cancelling a call stops the
transfer and waits until it has closed what it had open.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol, TypeVar, Unpack

from fastnet import api
from fastnet.apps.transfer import api as transfers
from fastnet.apps.transfer.api import PathLike
from fastnet.apps.transfer.events import OnEvent, TransferEvent
from fastnet.apps.transfer.options import ReceiveOptions, ReceivePolicy, SendOptions, ShouldStop
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.source.walk import Filter
from fastnet.config.serve_options import ServeOptions
from fastnet.endpoint import Endpoint
from fastnet.limits import CONNECT_TIMEOUT_S
from fastnet.server.server import Server


class Closable(Protocol):
    """A server or a socket."""

    def close(self) -> object: ...


T = TypeVar("T")
R = TypeVar("R", covariant=True)
C = TypeVar("C", bound=Closable)


async def send(
    paths: PathLike | Sequence[PathLike],
    endpoint: str | Endpoint,
    *,
    listen: bool = False,
    file_filter: Filter | None = None,
    limit_rate_bytes_s: float | None = None,
    on_event: OnEvent | None = None,
    **options: Unpack[SendOptions],
) -> TransferReport:
    """Send files and folders, and return once the receiver has acknowledged them.

    Args, Returns, Raises: As for :func:`fastnet.send`. `on_event` is called in the event loop's
    thread. Cancelling the call cancels the transfer, so there is no `should_stop`.

    Example:
        >>> report = await fastnet.aio.send("disk.img", "tcp://host:9000", on_event=print)
    """
    run = partial(
        transfers.send,
        *(paths, endpoint),
        listen=listen,
        file_filter=file_filter,
        limit_rate_bytes_s=limit_rate_bytes_s,
        **options,
    )
    return await _cancellable(run, on_event)


async def serve_files(
    paths: PathLike | Sequence[PathLike],
    endpoint: str | Endpoint,
    *,
    file_filter: Filter | None = None,
    limit_rate_bytes_s: float | None = None,
    on_event: OnEvent | None = None,
    **options: Unpack[SendOptions],
) -> TransferReport | None:
    """Listen and send files and folders to any number of receivers, until cancelled.

    Args, Returns, Raises: As for :func:`fastnet.serve_files`; see :func:`send` for `on_event`.

    Example:
        >>> serving = asyncio.create_task(fastnet.aio.serve_files("release/", "tcp://:9000"))
    """
    run = partial(
        transfers.serve_files,
        *(paths, endpoint),
        file_filter=file_filter,
        limit_rate_bytes_s=limit_rate_bytes_s,
        **options,
    )
    return await _cancellable(run, on_event)


async def receive(
    endpoint: str | Endpoint,
    *,
    into: PathLike | None = None,
    output: PathLike | None = None,
    listen: bool = True,
    overwrite: str = "never",
    policy: ReceivePolicy | None = None,
    on_event: OnEvent | None = None,
    **options: Unpack[ReceiveOptions],
) -> TransferReport:
    """Receive from one sender, and return once everything has its final name.

    Args, Returns, Raises: As for :func:`fastnet.receive`; see :func:`send` for `on_event`.

    Example:
        >>> report = await fastnet.aio.receive("tcp://0.0.0.0:9000", into="inbox")
    """
    run = partial(
        transfers.receive,
        endpoint,
        into=into,
        output=output,
        listen=listen,
        overwrite=overwrite,
        policy=policy,
        **options,
    )
    return await _cancellable(run, on_event)


async def serve_inbox(
    endpoint: str | Endpoint,
    into: PathLike = ".",
    *,
    overwrite: str = "never",
    policy: ReceivePolicy | None = None,
    on_event: OnEvent | None = None,
    **options: Unpack[ReceiveOptions],
) -> TransferReport | None:
    """Listen, and receive from any number of senders until the call is cancelled.

    Args, Returns, Raises: As for :func:`fastnet.serve_inbox`; see :func:`send` for `on_event`.

    Example:
        >>> serving = asyncio.create_task(fastnet.aio.serve_inbox("tcp://:9000", "inbox"))
    """
    run = partial(
        transfers.serve_inbox,
        *(endpoint, into),
        overwrite=overwrite,
        policy=policy,
        **options,
    )
    return await _cancellable(run, on_event)


@asynccontextmanager
async def serve(
    service: str | api.Handler,
    endpoint: str | Endpoint = "tcp://127.0.0.1:0",
    **options: Unpack[ServeOptions],
) -> AsyncIterator[Server]:
    """Serve while the asynchronous context is open; its end drains the connections.

    Args, Raises: As for :func:`fastnet.serve`.

    Example:
        >>> async with fastnet.aio.serve("echo", "tcp://127.0.0.1:0") as server:
        ...     print(server.endpoint)
    """
    server = await _opened(lambda: api.serve(service, endpoint, **options))
    try:
        yield server
    finally:
        await _in_thread(server.close)


async def connect(
    endpoint: str | Endpoint,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **options: Unpack[api.ConnectOptions],
) -> socket.socket:
    """Connect to a server and return a non-blocking socket.

    It suits ``loop.sock_recv`` and its like, and ``asyncio.open_connection(sock=sock)``.

    Args, Raises: As for :func:`fastnet.connect`. When the call is cancelled, the attempt lasts
    until its time-out and the socket is closed.

    Example:
        >>> sock = await fastnet.aio.connect("tcp://localhost:7")
        >>> reader, writer = await asyncio.open_connection(sock=sock)
    """
    sock = await _opened(lambda: api.connect(endpoint, timeout_s=timeout_s, **options))
    sock.setblocking(False)
    return sock


class Emitting(Protocol[R]):
    """A transfer whose arguments are bound, but for the two that the event loop gives."""

    def __call__(self, *, on_event: OnEvent | None, should_stop: ShouldStop | None) -> R: ...


async def _cancellable(run: Emitting[R], on_event: OnEvent | None) -> R:
    """Run a transfer in a thread.

    A cancelled call cancels it and waits until it has ended.
    """
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def emit(event: TransferEvent) -> None:
        if on_event is not None:
            loop.call_soon_threadsafe(on_event, event)

    work = asyncio.ensure_future(
        _in_thread(lambda: run(on_event=emit, should_stop=cancelled.is_set))
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        await asyncio.wait([work])
        work.exception()  # retrieved, or asyncio would log it
        raise


async def _opened(open_it: Callable[[], C]) -> C:
    """Open something in a thread.

    When the call is cancelled, close it as soon as it is open.
    """
    attempt = asyncio.ensure_future(_in_thread(open_it))
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        attempt.add_done_callback(_close_result)
        raise


def _close_result(attempt: asyncio.Future[C]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        threading.Thread(target=attempt.result().close, name="fastnet.aio").start()


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own; return its result or raise its exception."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def resolve_future(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run_work() -> None:
        try:
            result, error = work(), None
        except BaseException as problem:
            loop.call_soon_threadsafe(resolve_future, None, problem)
        else:
            loop.call_soon_threadsafe(resolve_future, result, error)

    thread = threading.Thread(target=run_work, name="fastnet.aio")
    thread.start()
    try:
        return await done
    finally:
        if done.done():
            thread.join()  # it ends right after it has set the result
