"""Digests of extents, and of files out of them.

Facts. A digest over a whole file cannot be resumed in its middle, so a resumed transfer would read
all of it again, and a zero-copy mover never has the bytes in this process. xxh3-128 hashes the
L2 cache at many times the speed of a copy.
Decision: each extent has its own digest. A quick one is taken in the buffer of a mover that copies,
which is faster on two processors than to move without a copy and read the page cache again. A slow
one (blake2b, sha256) is taken by a second thread, which reads the page cache through a buffer of
DIGEST_BUFFER_BYTES while the bytes travel without a copy. A file's digest is that of its only
extent, or, when there are more, the digest of their records (offset, length, digest) in the order
of the file. Holes have no record: they are in the offsets.
Cost: a copy more on each side, or one more pass over the page cache; docs/benchmarks.md has both,
and the ways not taken.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Protocol

from fastnet.limits import DIGEST_BUFFER_BYTES

RECORD = struct.Struct("!QQ")
"""Offset and length of an extent, before its digest."""


class Hasher(Protocol):
    """Interface of the hashers of hashlib and xxhash."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


DigestFunction = Callable[[bytes | memoryview], bytes]


class NullHasher:
    """The hasher of `--digest none`."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Ignore the data."""

    def digest(self) -> bytes:
        return b""


def new_xxh3() -> Hasher:
    import xxhash

    hasher: Hasher = xxhash.xxh3_128()
    return hasher


def new_blake2b() -> Hasher:
    import hashlib  # here and below: it loads OpenSSL, which xxh3 does not need

    return hashlib.blake2b(digest_size=32)


def new_sha256() -> Hasher:
    import hashlib

    return hashlib.sha256()


ALGORITHMS: dict[str, tuple[Callable[[], Hasher], int]] = {
    "xxh3-128": (new_xxh3, 16),
    "blake2b": (new_blake2b, 32),
    "sha256": (new_sha256, 32),
    "none": (NullHasher, 0),
}
"""How to start one, and the bytes of its digest.

The first is the default; blake2b and sha256 also stand up to forgers.
"""


def xxh3_function() -> DigestFunction:
    import xxhash

    function: DigestFunction = xxhash.xxh3_128_digest
    return function


DIGEST_FUNCTIONS = {"xxh3-128": xxh3_function}
"""Where one call gives the digest of what is in memory: half the time for 4 KiB.

The others are started, fed and ended.
"""


class Algorithm:
    """One row of ALGORITHMS.

    of: the digest of bytes in memory. is_quick: it takes less time than a copy.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_quick = name == "xxh3-128"
        self.new, self.size = ALGORITHMS[name]
        self.of: DigestFunction = DIGEST_FUNCTIONS[name]() if name in DIGEST_FUNCTIONS else self._of

    def _of(self, data: bytes | memoryview, /) -> bytes:
        hasher = self.new()
        hasher.update(data)
        return hasher.digest()

    def of_extent(self, file_fd: int, offset: int, count: int) -> bytes:
        """The digest of `count` bytes of a file, or of fewer when it ends before.

        Raises OSError.
        """
        if not self.size:
            return b""
        hasher, read = self.new(), 0
        buffer = memoryview(bytearray(min(count, DIGEST_BUFFER_BYTES)))
        while read < count:
            n = os.preadv(file_fd, [buffer[: count - read]], offset + read)
            if not n:
                break
            hasher.update(buffer[:n])
            read += n
        return hasher.digest()


class FileDigest:
    """The digest of a file, from its extents, in whatever order they are added."""

    def __init__(self, algorithm: Algorithm) -> None:
        self._algorithm = algorithm
        self._rows = bytearray()
        self._row_bytes = RECORD.size + algorithm.size

    def __len__(self) -> int:
        return len(self._rows) // self._row_bytes

    def add(self, offset: int, count: int, digest: bytes) -> None:
        self._rows += RECORD.pack(offset, count) + digest

    def of_size(self, size: int) -> bytes:
        """The digest of a file of `size` bytes: a plain one when one extent holds all of it.

        Raises ValueError when extents overlap, or end beyond.
        """
        if not size:
            return self._algorithm.of(b"")
        rows = sorted(
            bytes(self._rows[at : at + self._row_bytes])
            for at in range(0, len(self._rows), self._row_bytes)
        )
        ends = 0
        for row in rows:
            offset, count = RECORD.unpack_from(row)
            if offset < ends:
                raise ValueError("extents overlap")
            ends = offset + count
        if ends > size:
            raise ValueError("an extent ends beyond the file")
        if len(rows) == 1 and RECORD.unpack_from(rows[0]) == (0, size):
            return rows[0][RECORD.size :]
        return self._algorithm.of(b"".join([*rows, RECORD.pack(size, 0)]))
