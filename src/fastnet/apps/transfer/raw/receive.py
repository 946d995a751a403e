"""Receive a file raw: from a sender that listens, or the first that connects and sends."""

from __future__ import annotations

import socket

from fastnet.apps.transfer.events import OnEvent, TransferEvent
from fastnet.apps.transfer.raw.session import RawOptions, RawSession
from fastnet.apps.transfer.raw.target import RawTarget
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import accept_first_sender, dial_until, listening
from fastnet.endpoint import Endpoint


def receive_file(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    overwrite: str = "never",
    retry_s: float = 0.0,
) -> TransferReport:
    """Connect to a sender and receive one file.

    Raises NetworkError, TransferRefused (it exists) and TransferError.
    """
    with RawTarget(path, overwrite) as target, dial_until(endpoint, retry_s) as sock:
        return receive(sock, target, options, on_event)


def accept_file(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    overwrite: str = "never",
    wait_s: float | None = None,
) -> TransferReport:
    """Listen and receive one file from the first peer that sends data or FIN.

    A file may be empty.

    wait_s: seconds to wait for that; None for no limit. Raises as `receive_file` does.
    """
    with RawTarget(path, overwrite) as target:
        with listening(endpoint) as (listener, where):
            on_event(TransferEvent("listening", endpoint=str(where)))
            sock = accept_first_sender(listener, where, wait_s)
        with sock:
            return receive(sock, target, options, on_event)


def receive(
    sock: socket.socket, target: RawTarget, options: RawOptions, on_event: OnEvent
) -> TransferReport:
    """Receive one file from a connected sender, and emit the report."""
    report = RawSession(sock, options, on_event).receive(target)
    on_event(TransferEvent("report", report=report))
    return report
