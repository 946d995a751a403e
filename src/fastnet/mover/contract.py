"""Mover contract: moves an extent between a file and a socket, one bounded step at a time.

A mover is an object for one direction of one socket:

 M1. `send` and `receive` are one bounded step: at most `count` bytes and at most MOVER_STEP_BYTES,
     one or two system calls.
 M2. A step never waits for the socket, which must be non-blocking. It raises BlockingIOError when
     the socket takes nothing, or has nothing.
 M3. A step works at `offset` and leaves the file's own offset alone. NO_OFFSET is for a pipe or
     terminal, which has none: it is read and written in sequence; a step raises BlockingIOError
     rather than wait for it.
 M4. `send` returns the bytes that the socket took; 0 only when the file ends at or before `offset`,
     or the pipe ended. Before `count` bytes are through, 0 means that the file shrank: the caller
     decides what follows.
 M5. `receive` returns the bytes that are in the file now; 0 only for the peer's end of stream (its
     FIN) with all in the file.
 M6. Bytes that a step took from a socket or pipe and could not pass on are held, counted in
     `held_bytes`, and go first in the next step, which the caller makes at the offset where this
     one ended. An error of the file (ENOSPC, EFBIG, EDQUOT) is raised as OSError, each time, until
     the held bytes fit; no byte taken from the socket is lost.
 M7. An error of the socket (ECONNRESET, EPIPE) is raised once, as OSError: the kernel clears it
     when it reports it.
 M8. `moved_bytes` is the sum of what all steps returned, true at any time, also after an error and
     in another thread.
 M9. `send_some` and `receive_some` make steps until `count` bytes are through, the end is met or
     `slice_s` is over, and wait for the socket in between. They return (bytes, ended); the native
     ones hold no GIL. `ended` means what 0 means in M4 and M5. (0, False) says that nothing could
     be moved for the whole slice: the caller adds those up to a time-out. A file is not written to
     for each packet: less than MOVER_WAKE_BYTES may wait in the socket for the end of the stream or
     of the slice (SO_RCVLOWAT, set back to 1 on return). A pipe gets every byte immediately.
M10. A file or file system that cannot do what the mover does best (EINVAL, ENOSYS, EOPNOTSUPP,
     ESPIPE) costs speed and nothing else: the mover copies from then on, `runs` is "copy" and
     `reason` the cause.
M11. `close` releases its memory and pipe, and drops held bytes. An extent that is not complete
     ends with its mover.
M12. `tap` observes the bytes: it is called with every piece that has been moved, once, in order,
     from a buffer that is still in the processor's cache and changes when it returns; it may not
     raise. Only a mover whose `runs` is "copy" has the bytes in memory; for another one it must be
     None.
M13. A mover of the pure and one of the native twin do the same with the same arguments.

Which mover can do which direction is in its row (`sends`, `receives`); asked for the other, it
copies (M10). The sentences are cited by tests/contract. SIGPIPE must be ignored, as Python does
from its start: sendfile(2) has no flag for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

NO_OFFSET = -1
"""The offset argument for a pipe or terminal."""

Tap = Callable[[memoryview], object]


class Mover(Protocol):
    """Interface of class `Mover` in each row's module. Sizes and offsets are bytes."""

    tap: Tap | None

    @property
    def moved_bytes(self) -> int: ...

    @property
    def held_bytes(self) -> int: ...

    @property
    def runs(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def send(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int: ...

    def receive(self, sock_fd: int, file_fd: int, offset: int, count: int) -> int: ...

    def send_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]: ...

    def receive_some(
        self, sock_fd: int, file_fd: int, offset: int, count: int, slice_s: float
    ) -> tuple[int, bool]: ...

    def close(self) -> None: ...
