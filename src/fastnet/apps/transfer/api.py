"""`fastnet.send` and `fastnet.receive`: files and folders from here to there, and a report that
says
what arrived.

`on_event` is called in the thread of the transfer with a TransferEvent; `stopped` is asked several
times a second whether to give up. Both sides may listen or connect. Wire format: docs/protocol.md.
Decision: each of the two loads its own side of the protocol when it is called, for a short transfer
is over sooner than the other side's modules are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.digest import ALGORITHMS, Algorithm
from fastnet.apps.transfer.events import ErrorCode, OnEvent, TransferEvent
from fastnet.apps.transfer.protocol.handshake import Hello
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import dial_endpoint, listen_endpoint
from fastnet.apps.transfer.session.manager import Host, Opened, never
from fastnet.apps.transfer.session.session import SessionOptions
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError, TransferError, TransferRefused, UnsupportedError, reason
from fastnet.limits import STREAMS_MAX
from fastnet.mover import choose
from fastnet.transport.congestion import check

if TYPE_CHECKING:
    from fastnet.apps.transfer.session.receiver import ReceivePolicy, Receiver
    from fastnet.apps.transfer.session.sender import Sender
    from fastnet.apps.transfer.source.walk import Filter
    from fastnet.apps.transfer.target.placement import Inbox

STDOUT = 1
STDOUT_PATH = "-"


def ignore(event: TransferEvent) -> None:
    """The on_event of who does not listen."""


def send(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    endpoint: str | Endpoint,
    *,
    listen: bool = False,
    keep_open: bool = False,
    chosen: Filter | None = None,
    limit_rate_bytes_s: float | None = None,
    on_event: OnEvent = ignore,
    stopped: Callable[[], bool] = never,
    **options: Any,
) -> TransferReport | None:
    """Send files and folders, and return when the receiver has said that it has them under their
    final
    names.

    paths: one path or several; a folder goes with everything below it; "-" is standard input.
    endpoint: where the receiver listens, or with listen=True where to wait for it
    ("tcp://127.0.0.1:0" picks a port, which the event `listening` tells). keep_open: listening,
    serve any number of receivers until `stopped` says True. chosen: which files below the folders
    go, None for all. limit_rate_bytes_s: bytes a second, None for no limit. options: fields of
    fastnet.apps.transfer.session.session.SessionOptions, such as token=b"...", digest="blake2b",
    stall_s=30.0. Returns the report (of the last transfer, with keep_open; None when there was
    none). Raises TransferRefused (the receiver said no), TransferUnconfirmed (all sent, no answer),
    TransferError, NetworkError, ConfigError.
    """
    from fastnet.apps.transfer.session.sender import Sender
    from fastnet.apps.transfer.source.walk import Filter, walk
    from fastnet.ratelimit import ByteRateLimiter

    settled, chosen = _options(options, "send"), chosen or Filter()
    names = [
        os.fsdecode(each) for each in ([paths] if isinstance(paths, str | os.PathLike) else paths)
    ]
    if not names:
        raise ConfigError("there is nothing to send", "Name a file or a folder")

    def leave_out(path: str, why: str) -> None:
        on_event(TransferEvent("message", text=f"{path} is left out: {why}"))

    walked = walk(names, chosen, leave_out, settled.backend)

    if settled.compress:
        compression.check()

    def make(opened: Opened) -> Sender:
        if settled.compress != opened.peer.compress and settled.compress:
            message = "the receiver cannot undo zstd: it lacks the package zstandard"
            raise UnsupportedError(
                message,
                "Install it there (pip install 'fastnet-io[zstd]'), or leave --compress out",
            )
        entries, places = walk(names, chosen, leave_out, settled.backend) if keep_open else walked
        algorithm = Algorithm(settled.digest)
        pace = ByteRateLimiter(limit_rate_bytes_s)
        return Sender(
            *(
                opened.connection,
                algorithm,
                settled,
                on_event,
                opened.number,
                opened.stopped,
                opened.congestion,
            ),
            entries=entries,
            places=places,
            pace=pace,
            compressor=compression.Compressor() if settled.compress else None,
        )

    hello = Hello(
        *("send", settled.token),
        digest=settled.digest,
        dry_run=settled.dry_run,
        compress=settled.compress,
        streams=settled.streams,
    )
    host = Host(hello, settled, make, on_event, stopped, keep_open)
    return _run(host, endpoint, listen)


def receive(
    endpoint: str | Endpoint,
    *,
    into: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    listen: bool = True,
    keep_open: bool = False,
    overwrite: str = "never",
    policy: ReceivePolicy | None = None,
    on_event: OnEvent = ignore,
    stopped: Callable[[], bool] = never,
    **options: Any,
) -> TransferReport | None:
    """Receive what one sender sends, and return when all of it has its final name.

    endpoint: where to listen, or with listen=False where the sender listens. into: the folder that
    nothing leaves, made when it is not there; the current one by default. output: the file to make
    of the one file that comes; "-" is standard output. overwrite: "never" refuses what exists and
    differs, "always" replaces, "older" replaces what is older and skips the rest, "rename" finds
    another name. policy: limits, fsync, who is asked; None for the usual limits. keep_open,
    on_event, stopped, options, the report and what is raised: as for `send`.
    """
    from fastnet.apps.transfer.session.receiver import ReceivePolicy, Receiver
    from fastnet.apps.transfer.target.placement import OVERWRITE

    settled, policy = _options(options, "receive"), policy or ReceivePolicy()
    if overwrite not in OVERWRITE:
        raise ConfigError(f"overwrite is {overwrite!r}", f"It is one of {', '.join(OVERWRITE)}")
    if into is not None and output is not None:
        raise ConfigError(
            "into and output at once", "A folder for whatever comes, or a name for one file"
        )
    with ExitStack() as stack:
        inbox, out_fd = _inbox(stack, into, output, overwrite)

        def make(opened: Opened) -> Receiver:
            if opened.peer.digest not in ALGORITHMS:
                message = (
                    f"the sender takes digests with {opened.peer.digest!a}, which is not known here"
                )
                raise TransferRefused(
                    message, f"Known are {', '.join(ALGORITHMS)}", ErrorCode.REFUSED
                )
            algorithm = Algorithm(opened.peer.digest)
            return Receiver(
                *(
                    opened.connection,
                    algorithm,
                    settled,
                    on_event,
                    opened.number,
                    opened.stopped,
                    opened.congestion,
                ),
                inbox=inbox,
                policy=policy,
                out_fd=out_fd,
            )

        hello = Hello(
            *("recv", settled.token),
            dry_run=settled.dry_run,
            compress="" if compression.why_not() else compression.NAME,
            streams=1 if inbox.root is None else STREAMS_MAX,
        )
        host = Host(hello, settled, make, on_event, stopped, keep_open)
        return _run(host, endpoint, listen)


def _options(given: dict[str, Any], direction: str) -> SessionOptions:
    try:
        options = SessionOptions(**given)
    except TypeError as error:
        raise ConfigError(str(error).replace("SessionOptions.__init__()", "a transfer")) from None
    if options.digest not in ALGORITHMS:
        raise ConfigError(
            f"there is no digest {options.digest!r}", f"Known are {', '.join(ALGORITHMS)}"
        )
    if not 1 <= options.streams <= STREAMS_MAX:
        raise ConfigError(
            f"there cannot be {options.streams} streams", f"Between 1 and {STREAMS_MAX}"
        )
    if options.compress not in ("", compression.NAME):
        raise ConfigError(
            f"there is no compression {options.compress!r}", f"Known is {compression.NAME}"
        )
    check(options.congestion)
    if options.mover != "auto":
        choose(direction, -1, options.mover, options.backend)
    return options


def _inbox(
    stack: ExitStack,
    into: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    overwrite: str,
) -> tuple[Inbox, int]:
    """Where things go, and the descriptor of a stream."""
    from fastnet.apps.transfer.target.placement import Inbox
    from fastnet.apps.transfer.target.root import Root
    from fastnet.apps.transfer.target.writers import patient

    path = os.fsdecode(output) if output is not None else ""
    if path == STDOUT_PATH:
        return Inbox(None, overwrite), patient(stack, STDOUT)
    try:
        if path and os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # a FIFO, /dev/null
            stack.callback(os.close, fd)
            return Inbox(None, overwrite), patient(stack, fd)
        folder, name = os.path.split(path) if path else (os.fsdecode(into or "."), "")
        if path and (not name or os.path.isdir(path)):
            raise TransferRefused(
                f"{path} is a folder", "Say --into for a folder", ErrorCode.TARGET
            )
        is_new = not os.path.lexists(folder or ".")
        root = stack.enter_context(Root(folder or "."))
        if is_new:
            stack.callback(remove_if_empty, folder)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "not a path"
        where = path or os.fsdecode(into or ".")
        raise TransferError(
            f"cannot write {where}: {why}", "Check the path and its permissions", ErrorCode.TARGET
        ) from error
    return Inbox(root, overwrite, name or None), STDOUT


def remove_if_empty(folder: str) -> None:
    """The folder that was made for what would come, when nothing came."""
    with suppress(OSError):
        os.rmdir(folder)


def state_folder() -> str:
    """Where a listener keeps the certificate that it made (XDG Base Directory Specification)."""
    return os.path.join(
        os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "fastnet"
    )


def _run(host: Host, endpoint: str | Endpoint, listen: bool) -> TransferReport | None:
    options = host.options.tls
    if options is not None:
        from fastnet.transport import tls

        host.context = (
            tls.server_context(options, state_folder()) if listen else tls.client_context(options)
        )
        if listen:
            pin = tls.fingerprint_of(host.context.certificate)
            host.on_event(
                TransferEvent("message", text=f"this side's certificate is --tls-fingerprint {pin}")
            )
    if listen:
        return host.listen(listen_endpoint(str(endpoint)))
    return host.connect(dial_endpoint(str(endpoint)))
