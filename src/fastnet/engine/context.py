"""What one loop is given to run: listeners, service, limits, counters and the stop signal.

Stream and datagram engines take the same value. Native engines get it unpacked into a
struct fn_context by context_c.pyx, whose fields have the same names.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastnet.engine.stop import StopSignal
from fastnet.limits import Limits
from fastnet.metrics.counters import CounterTable
from fastnet.transport.access import AccessList


@dataclass(frozen=True)
class LoopContext:
    """The arguments of one loop."""

    listeners: Sequence[socket.socket]
    """Bound sockets; the engine leaves them open."""

    service: Any
    """A service.contract.Service for pure engines, a NativeService for native ones."""

    limits: Limits
    """Bounds of this loop."""

    stop: StopSignal
    """The request to drain or to stop, shared by all loops of a server."""

    counters: CounterTable
    """Row 0 is the loop's own; row i + 1 belongs to connection slot, thread or child i."""

    access: AccessList = field(default_factory=AccessList)
    """Networks whose peers are admitted or rejected."""

    trace_fd: int = -1
    """Pipe that takes connection records (metrics/connection_log.py), or -1."""

    cpu: int | None = None
    """Processor to which the starter of the loop has bound it; None: any."""

    reloader: Any = None
    """Reloads the service's file (server/reload.py) in a worker process; None: no file."""
