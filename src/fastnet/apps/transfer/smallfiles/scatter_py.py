"""A pack into files under their names. The contract is contract.py.

Facts. A file that was opened without a name (O_TMPFILE, open(2)) is gone with its last descriptor;
linkat(2) gives it its name at one instant. Not every file system can do that (NFS, FAT); there
`make` raises OSError, as for any other reason.
"""

from __future__ import annotations

import os

from fastnet.apps.transfer.digest import DigestFunction
from fastnet.apps.transfer.protocol.entry import FILE, Entry
from fastnet.apps.transfer.protocol.frames import ProtocolError, unpack_files
from fastnet.apps.transfer.protocol.transcript import ROW
from fastnet.apps.transfer.smallfiles.contract import Expected, Scattered
from fastnet.apps.transfer.target.root import Parts, Root, plain, times


def scatter(
    pack: bytearray, expected: Expected, at: int, digest_bytes: int, digest_of: DigestFunction
) -> Scattered:
    """Make the files of a pack. at: which of expected.due comes first."""
    try:
        files = unpack_files(pack, digest_bytes)
    except ProtocolError:
        return Scattered(0, 0, b"")
    size, proof = 0, list[bytes]()
    for (index, content, digest), due in zip(
        files, expected.due[at : at + len(files)], strict=False
    ):
        entry = expected.entries[due]
        if (
            index != due
            or entry.kind != FILE
            or len(content) != entry.size
            or digest_of(content) != digest
        ):
            break
        try:
            make(expected.root, expected.places[index], entry, content)
        except (OSError, ValueError):
            break
        proof += (ROW.pack(index, entry.size), digest)
        size += entry.size
    return Scattered(len(proof) // 2, size, b"".join(proof))


def make(root: Root, parts: Parts, entry: Entry, content: memoryview) -> None:
    """A file without a name, which gets its name when it is whole.

    Raises OSError, and then there is nothing.
    """
    name = plain(parts)
    folder = root.hold(parts[:-1])
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            while content:
                content = content[os.write(fd, content) :]
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=times(entry.mtime_ns))
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(fd)
    finally:
        os.close(folder)
