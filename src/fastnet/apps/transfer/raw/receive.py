"""Receive a file raw: from a sender that listens, or from the first one that connects and
speaks.
"""

from __future__ import annotations

import socket

from fastnet.apps.transfer.events import OnEvent, TransferEvent
from fastnet.apps.transfer.raw.send import nothing
from fastnet.apps.transfer.raw.session import RawOptions, RawSession
from fastnet.apps.transfer.raw.target import Target
from fastnet.apps.transfer.report import TransferReport
from fastnet.apps.transfer.session.listen import dial_until, first_to_speak, listening
from fastnet.endpoint import Endpoint


def pull(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    overwrite: str = "never",
    retry_s: float = 0.0,
) -> TransferReport:
    """Connect to a sender and receive one file. Raises NetworkError, TransferRefused (it exists)
    and TransferError.
    """
    with Target(path, overwrite) as target, dial_until(endpoint, retry_s) as sock:
        return receive(sock, target, options, on_event)


def await_push(
    path: str,
    endpoint: Endpoint,
    options: RawOptions,
    on_event: OnEvent,
    *,
    overwrite: str = "never",
    wait_s: float | None = None,
) -> TransferReport:
    """Listen and receive one file from the first peer that sends something, or ends without: a file
    may be empty.

    wait_s: give up when nobody did so for so long; None waits for ever. Raises as `pull` does.
    """
    with Target(path, overwrite) as target:
        with listening(endpoint) as (listener, where):
            on_event(TransferEvent("listening", endpoint=str(where)))
            sock = first_to_speak(listener, where, wait_s)
        with sock:
            return receive(sock, target, options, on_event)


def receive(
    sock: socket.socket, target: Target, options: RawOptions, on_event: OnEvent
) -> TransferReport:
    report = RawSession(sock, options, on_event, nothing).receive(target)
    on_event(TransferEvent("report", report=report))
    return report
