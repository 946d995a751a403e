"""Small files into a pack.

The contract is contract.py; what a row is, docs/protocol.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from fastnet.apps.transfer.digest import DigestFunction
from fastnet.apps.transfer.protocol.entry import Entry
from fastnet.apps.transfer.protocol.frames import PACKED
from fastnet.apps.transfer.protocol.transcript import ROW
from fastnet.apps.transfer.smallfiles.contract import Announced, Gathered
from fastnet.apps.transfer.source.identity import identity


def gather(files: Sequence[Announced], room: bytearray, digest_of: DigestFunction) -> Gathered:
    """Read files into `room`, which is large enough for all of them."""
    at, table, proof = 0, list[bytes](), list[bytes]()
    with memoryview(room) as view:
        for index, entry, place in files:
            content = view[at : at + entry.size]
            if not read_whole(place, entry, content):
                break
            digest = digest_of(content)
            table += (PACKED.pack(index, entry.size), digest)
            proof += (ROW.pack(index, entry.size), digest)
            at += entry.size
            content.release()
    return Gathered(len(table) // 2, at, b"".join(table), b"".join(proof))


def read_whole(place: str, entry: Entry, content: memoryview) -> bool:
    """Fill `content` from a file.

    Returns False when it is not there, not as announced, or shorter.
    """
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        found = os.fstat(fd)
        if (
            not stat.S_ISREG(found.st_mode)
            or found.st_size < entry.size
            or identity(found) != entry.extra
        ):
            return False
        read = 0
        while read < len(content):
            got = os.preadv(fd, [content[read:]], read)
            if not got:
                return False
            read += got
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
