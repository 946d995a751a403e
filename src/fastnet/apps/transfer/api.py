"""Send and receive files and folders by fastnet/1: functions of the library.

Either side may listen while the other connects. Wire format: docs/protocol.md.
Decision: each function loads only its own side of the protocol, when it is called: a transfer of a
few files takes less time than loading the other side's modules.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from fastnet.apps.transfer import compression
from fastnet.apps.transfer.digest import ALGORITHMS
from fastnet.apps.transfer.events import OnEvent, TransferEvent, one_at_a_time
from fastnet.apps.transfer.options import (
    ReceiveOptions,
    ReceivePolicy,
    SendOptions,
    ShouldStop,
    TransferOptions,
)
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import dial_endpoint, listen_endpoint
from fastnet.apps.transfer.session.manager import SessionManager
from fastnet.endpoint import Endpoint
from fastnet.errors import ConfigError
from fastnet.limits import STREAMS_MAX
from fastnet.mover import choose
from fastnet.transport.congestion import check

if TYPE_CHECKING:
    from fastnet.apps.transfer.session.receiver_factory import ReceiverFactory
    from fastnet.apps.transfer.session.sender_factory import SenderFactory
    from fastnet.apps.transfer.source.walk import Filter

PathLike = str | os.PathLike[str]


def ignore(event: TransferEvent) -> None:
    """The on_event of a call without one."""


def never() -> bool:
    """The should_stop of a call without one."""
    return False


def send(
    paths: PathLike | Sequence[PathLike],
    endpoint: str | Endpoint,
    *,
    listen: bool = False,
    file_filter: Filter | None = None,
    limit_rate_bytes_s: float | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    **options: Unpack[SendOptions],
) -> TransferReport:
    """Send files and folders, and return once the receiver has acknowledged them.

    Args:
        paths: One path or several; a folder is sent recursively; "-" is standard input.
        endpoint: Where the receiver listens: ``tcp://HOST:PORT`` or ``unix:PATH``.
        listen: Listen at `endpoint` for one receiver instead; ``tcp://127.0.0.1:0`` picks a port,
            which the event ``listening`` reports.
        file_filter: Which files below the folders are sent; None for all.
        limit_rate_bytes_s: Upper bound of bytes a second; None for no bound.
        on_event: Called in the transfer's thread with each :class:`TransferEvent`.
        should_stop: Polled several times a second; true cancels the transfer.
        options: See :class:`SendOptions`.

    Returns:
        The report; its ``confirmed_bytes`` are on the receiver's disk under their final names.

    Raises:
        TransferRefused: The receiver declined.
        TransferUnconfirmed: All bytes were sent, and no acknowledgement was received.
        TransferError: Any other failure of the transfer.
        NetworkError: The peer cannot be reached, or the address cannot be bound.
        ConfigError: An argument or an option is invalid.

    Example:
        >>> fastnet.send("disk.img", "tcp://host:9000", digest="blake2b").confirmed_bytes

    See also: docs/transfer.md; wire format in docs/protocol.md.
    """
    factory = _sender_factory(options, paths, file_filter, limit_rate_bytes_s, on_event, False)
    return _one_report(_manager(factory, should_stop, False), endpoint, listen)


def serve_files(
    paths: PathLike | Sequence[PathLike],
    endpoint: str | Endpoint,
    *,
    file_filter: Filter | None = None,
    limit_rate_bytes_s: float | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    **options: Unpack[SendOptions],
) -> TransferReport | None:
    """Listen, and send files and folders to any number of receivers at the same time.

    Args:
        paths: One path or several; a folder is sent recursively, as it is when a receiver connects.
        endpoint: Where to listen: ``tcp://HOST:PORT`` or ``unix:PATH``.
        file_filter: Which files below the folders are sent; None for all.
        limit_rate_bytes_s: Upper bound of bytes a second to each receiver; None for no bound.
        on_event: Called with each :class:`TransferEvent` in the threads of the transfers, one call
            at a time; a failed transfer is an event ``error``.
        should_stop: Polled several times a second; true stops admitting receivers, and the call
            returns when running transfers have ended.
        options: See :class:`SendOptions`.

    Returns:
        The report of the last successful transfer; None if there was none.

    Raises:
        NetworkError: The address cannot be bound, or no receiver connected within ``wait_s``.
        TransferError: A path cannot be read.
        ConfigError: An argument or an option is invalid.

    Example:
        >>> fastnet.serve_files("release/", "tcp://0.0.0.0:9000", should_stop=stop.is_set)

    See also: docs/transfer.md.
    """
    factory = _sender_factory(options, paths, file_filter, limit_rate_bytes_s, on_event, True)
    return _run(_manager(factory, should_stop, True), endpoint, True)


def receive(
    endpoint: str | Endpoint,
    *,
    into: PathLike | None = None,
    output: PathLike | None = None,
    listen: bool = True,
    overwrite: str = "never",
    policy: ReceivePolicy | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    **options: Unpack[ReceiveOptions],
) -> TransferReport:
    """Receive from one sender, and return once everything has its final name.

    Args:
        endpoint: Where to listen: ``tcp://HOST:PORT`` or ``unix:PATH``.
        into: The folder that received files stay below, created if missing; default the current
            folder.
        output: The name of the one file that is received; "-" is standard output.
        listen: False connects to `endpoint`, where the sender listens.
        overwrite: What to do with an existing file that differs: "never" refuses the transfer,
            "always" replaces it, "older" replaces it if it is older, "rename" keeps both.
        policy: Limits, fsync and confirmation by a person; None for the default limits.
        on_event: Called in the transfer's thread with each :class:`TransferEvent`.
        should_stop: Polled several times a second; true cancels the transfer.
        options: See :class:`ReceiveOptions`.

    Returns:
        The report of the transfer.

    Raises:
        TransferRefused: A file exists and differs, or the sender or the policy declined.
        TransferError: Any other failure of the transfer.
        NetworkError: The address cannot be bound, or no sender was found in time.
        ConfigError: An argument or an option is invalid.

    Example:
        >>> fastnet.receive("tcp://0.0.0.0:9000", into="inbox").files

    See also: docs/transfer.md; wire format in docs/protocol.md.
    """
    with _receiver_factory(options, into, output, overwrite, policy, on_event) as factory:
        return _one_report(_manager(factory, should_stop, False), endpoint, listen)


def serve_inbox(
    endpoint: str | Endpoint,
    into: PathLike = ".",
    *,
    overwrite: str = "never",
    policy: ReceivePolicy | None = None,
    on_event: OnEvent | None = None,
    should_stop: ShouldStop | None = None,
    **options: Unpack[ReceiveOptions],
) -> TransferReport | None:
    """Listen, and receive from any number of senders into a folder at the same time.

    Args:
        endpoint: Where to listen: ``tcp://HOST:PORT`` or ``unix:PATH``.
        into: The folder that received files stay below, created if missing; default the current
            folder.
        overwrite: As for :func:`receive`, for each transfer.
        policy: Limits, fsync and confirmation by a person, for each transfer.
        on_event: Called with each :class:`TransferEvent` in the threads of the transfers, one call
            at a time; a failed transfer is an event ``error``.
        should_stop: Polled several times a second; true stops admitting senders, and the call
            returns when running transfers have ended.
        options: See :class:`ReceiveOptions`.

    Returns:
        The report of the last successful transfer; None if there was none.

    Raises:
        NetworkError: The address cannot be bound, or no sender connected within ``wait_s``.
        TransferError: The folder cannot be written.
        ConfigError: An argument or an option is invalid.

    Example:
        >>> fastnet.serve_inbox("tcp://0.0.0.0:9000", "inbox", should_stop=stop.is_set)

    See also: docs/transfer.md.
    """
    with _receiver_factory(options, into, None, overwrite, policy, on_event) as factory:
        return _run(_manager(factory, should_stop, True), endpoint, True)


def _sender_factory(
    options: Mapping[str, Any],
    paths: PathLike | Sequence[PathLike],
    file_filter: Filter | None,
    limit_rate_bytes_s: float | None,
    on_event: OnEvent | None,
    keep_open: bool,
) -> SenderFactory:
    from fastnet.apps.transfer.session.sender_factory import SenderFactory

    several = [paths] if isinstance(paths, str | os.PathLike) else paths
    names = [os.fsdecode(path) for path in several]
    if not names:
        raise ConfigError("there is nothing to send", "Name a file or a folder")
    return SenderFactory(
        names,
        checked_options(options, "send"),
        one_at_a_time(on_event or ignore),
        file_filter=file_filter,
        limit_rate_bytes_s=limit_rate_bytes_s,
        keep_open=keep_open,
    )


def _receiver_factory(
    options: Mapping[str, Any],
    into: PathLike | None,
    output: PathLike | None,
    overwrite: str,
    policy: ReceivePolicy | None,
    on_event: OnEvent | None,
) -> ReceiverFactory:
    from fastnet.apps.transfer.session.receiver_factory import ReceiverFactory

    return ReceiverFactory(
        checked_options(options, "receive"),
        one_at_a_time(on_event or ignore),
        into=None if into is None else os.fsdecode(into),
        output=None if output is None else os.fsdecode(output),
        overwrite=overwrite,
        policy=policy,
    )


def _manager(
    factory: SenderFactory | ReceiverFactory, should_stop: ShouldStop | None, keep_open: bool
) -> SessionManager:
    return SessionManager(
        factory.hello(),
        factory.options,
        factory,
        factory.on_event,
        should_stop or never,
        keep_open=keep_open,
    )


def _one_report(manager: SessionManager, endpoint: str | Endpoint, listen: bool) -> TransferReport:
    report = _run(manager, endpoint, listen)
    assert report is not None, "one transfer ends with a report or raises"
    return report


def _run(manager: SessionManager, endpoint: str | Endpoint, listen: bool) -> TransferReport | None:
    options = manager.options.tls
    if options is not None:
        from fastnet.transport import tls

        manager.tls_context = (
            tls.server_context(options, state_folder()) if listen else tls.client_context(options)
        )
        if listen:
            pin = tls.fingerprint_of(manager.tls_context.certificate)
            text = f"this side's certificate is --tls-fingerprint {pin}"
            manager.on_event(TransferEvent("message", text=text))
    if listen:
        return manager.listen(listen_endpoint(str(endpoint)))
    return manager.connect(dial_endpoint(str(endpoint)))


def checked_options(given: Mapping[str, Any], direction: str) -> TransferOptions:
    """Options for "send" or "receive" from keyword arguments. Raises ConfigError."""
    try:
        options = TransferOptions(**given)
    except TypeError as error:
        message = str(error).replace("TransferOptions.__init__()", "a transfer")
        raise ConfigError(message) from None
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


def state_folder() -> str:
    """Where a listener keeps its self-made certificate (XDG Base Directory Specification)."""
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state_home, "fastnet")
