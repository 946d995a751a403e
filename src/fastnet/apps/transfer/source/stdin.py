"""Standard input, as a source of unknown length.

Facts. A pipe holds 64 KiB by default, 1 MiB when asked (fcntl(2), F_SETPIPE_SZ). Setting it
non-blocking would set it for every process that shares it.
Decision: wait with poll(2), then read once what is there.
"""

from __future__ import annotations

import fcntl
import os
import select
from contextlib import suppress
from types import TracebackType

from fastnet.limits import MOVER_PIPE_BYTES

STDIN = 0


class StdinSource:
    """Standard input."""

    def __init__(self) -> None:
        self._buffer = bytearray(MOVER_PIPE_BYTES)
        self._poll = select.poll()
        self._poll.register(STDIN, select.POLLIN)
        with suppress(OSError):
            fcntl.fcntl(STDIN, fcntl.F_SETPIPE_SZ, MOVER_PIPE_BYTES)

    def read(self, wait_s: float) -> bytes | None:
        """The bytes in the pipe, b"" at its end, None after `wait_s` seconds. Raises OSError."""
        if not self._poll.poll(wait_s * 1000):
            return None
        return os.read(STDIN, len(self._buffer))

    def __enter__(self) -> StdinSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        pass
