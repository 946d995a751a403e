"""What a mover is: the answer to "file to socket and back, how?".

A mover is an object for one direction of one socket. It moves an extent of a file, a piece at a
time:

 M1. `send` and `receive` are one bounded step: at most `count` bytes and at most MOVER_STEP_BYTES,
     one or two system calls.
 M2. A step never waits for the socket, which must be non-blocking. It raises BlockingIOError when
     the socket takes nothing, or has nothing.
 M3. A step works at `offset` and leaves the file's own offset alone. offset -1 is a stream (a pipe,
     a terminal, standard input or output): read and written where it stands; a step raises
     BlockingIOError rather than wait for it.
 M4. `send` returns the bytes that the socket took; 0 only when the file ends at or before `offset`,
     or the stream ended. Before `count` bytes are through, 0 means that the file shrank: what to do
     about it is the caller's decision.
 M5. `receive` returns the bytes that are in the file now; 0 only for the peer's end of stream (its
     FIN) with all in the file.
 M6. What a step took from a socket or a stream and could not pass on is held, counted in
     `held_bytes`, and goes first in the next step, which the caller makes at the offset where this
     one ended. An error of the file (ENOSPC, EFBIG, EDQUOT) is raised as OSError, each time, until
     what is held fits; nothing taken from the socket is lost.
 M7. An error of the socket (ECONNRESET, EPIPE) is raised once, as OSError: the kernel forgets it
     when it is told.
 M8. `moved_bytes` is the sum of what all steps returned, true at any time, also after an error and
     in another thread.
 M9. `send_some` and `receive_some` make steps until `count` bytes are through, the end is met or
     `slice_s` is over, and wait for the socket in between. They return (bytes, ended); the native
     ones hold no GIL. `ended` means what 0 means in M4 and M5. (0, False) says that nothing could
     be moved for the whole slice: the caller adds those up to a time-out. A file is not written to
     for each packet: less than MOVER_WAKE_BYTES may wait in the socket for the end of the stream or
     of the slice (SO_RCVLOWAT, set back to 1 on return). A stream gets what there is at once.
M10. A file or file system that cannot do what the mover does best (EINVAL, ENOSYS, EOPNOTSUPP,
     ESPIPE) costs speed and nothing else: the mover copies from then on, `runs` says "copy" and
     `reason` why.
M11. `close` gives back its memory and pipe, and drops what is held. An extent that was left
     unfinished ends with its mover.
M12. What `tap` is set to reads along: it is called with every piece that is through, once, in
     order, out of a buffer that is still in the processor's cache and changes when it returns; it
     may not raise. Only a mover whose `runs` is "copy" has the bytes in hand; for another one it
     must be None.
M13. A mover of the pure and one of the native twin do the same with the same arguments.

Which mover can do which direction is in its row (`sends`, `receives`); asked for the other, it
copies (M10). The sentences are cited by tests/contract. SIGPIPE must be ignored, as Python does
from its start: sendfile(2) has no flag for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

STREAM = -1
"""The offset of a file that has none."""


Tap = Callable[[memoryview], object]


class Mover(Protocol):
    """What the class `Mover` of each row's module makes. Descriptors are numbers; sizes and offsets
    are bytes.
    """

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
