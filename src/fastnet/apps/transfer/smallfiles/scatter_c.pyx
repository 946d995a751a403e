"""A pack into files under their names, native: csrc/fn_smallfile.h. Twin: scatter_py.py.

Files are made folder by folder: as many as follow one another in one folder are one run without the
GIL.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from posix.unistd cimport close

from fastnet.cdefs.smallfile cimport fn_small, fn_small_make

import os

from fastnet.apps.transfer.protocol.entry import FILE
from fastnet.apps.transfer.protocol.frames import COUNT, PACKED
from fastnet.apps.transfer.protocol.transcript import ROW
from fastnet.apps.transfer.smallfiles.contract import Scattered

cdef Py_ssize_t COUNT_BYTES = COUNT.size, PACKED_BYTES = PACKED.size

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t ntohl(uint32_t number)


cdef inline uint32_t number_at(const char *at) noexcept nogil:
    cdef uint32_t number
    memcpy(&number, at, sizeof(number))
    return ntohl(number)


cdef Py_ssize_t make_all(const fn_small *files, Py_ssize_t count) noexcept:
    """Make one after the other. Returns how many went well before the first that did not."""
    cdef Py_ssize_t made = 0
    with nogil:
        while made < count and fn_small_make(&files[made]) == 0:
            made += 1
    return made


cdef Py_ssize_t files_in(const char *pack, Py_ssize_t size, Py_ssize_t row) noexcept nogil:
    """How many files a pack has, 0 when it is not well-formed."""
    cdef Py_ssize_t count, i, left
    if size < COUNT_BYTES:
        return 0
    count = number_at(pack)
    left = size - COUNT_BYTES - count * row
    if left < 0:
        return 0
    for i in range(count):
        left -= number_at(pack + COUNT_BYTES + i * row + 4)
    return count if left == 0 else 0


def scatter(pack, expected, Py_ssize_t at, Py_ssize_t digest_bytes, digest_of):
    """Make the files of a pack. at: which of expected.due comes first."""
    cdef Py_buffer held
    cdef fn_small *files
    PyObject_GetBuffer(pack, &held, PyBUF_SIMPLE)
    try:
        count = files_in(<const char *>held.buf, held.len, PACKED_BYTES + digest_bytes)
        files = <fn_small *>calloc(max(count, 1), sizeof(fn_small))
        if files == NULL:
            raise MemoryError
        try:
            view = memoryview(pack)
            return scatter_rows(
                files, <const char *>held.buf, view, count, expected, at, digest_bytes, digest_of
            )
        finally:
            free(files)
    finally:
        PyBuffer_Release(&held)


cdef scatter_rows(
    fn_small *files, const char *pack, view, Py_ssize_t count, expected, Py_ssize_t at,
    Py_ssize_t digest_bytes, digest_of
):
    """Check files, and make those of one folder when the next one is in another."""
    cdef Py_ssize_t row = PACKED_BYTES + digest_bytes, begin = COUNT_BYTES + count * row
    cdef Py_ssize_t i, last, ready = 0, made = 0
    cdef const char *line = pack + COUNT_BYTES
    cdef uint32_t size
    cdef int folder = -1
    cdef list names = []
    root, due, entries, places = expected
    above = None
    try:
        for i in range(min(count, len(due) - at)):
            index, size = number_at(line), number_at(line + 4)
            entry = entries[due[at + i]]
            if index != due[at + i] or entry.kind != FILE or size != entry.size:
                break
            digest = digest_of(view[begin:begin + size])
            if memcmp(<const char *>digest, line + PACKED_BYTES, digest_bytes) != 0:
                break
            parts = places[index]
            last = len(parts) - 1
            name = os.fsencode(parts[last])
            if b"\0" in name:
                break
            if parts[:last] != above:
                made += make_all(files + made, ready - made)
                if made < ready:
                    break
                if folder >= 0:
                    close(folder)
                folder = -1
                above = parts[:last]
                folder = root.hold(above)
            names.append(name)
            files[i].folder, files[i].mode, files[i].mtime_ns = folder, entry.mode, entry.mtime_ns
            files[i].name, files[i].content, files[i].size = name, pack + begin, size
            ready += 1
            begin += size
            line += row
        made += make_all(files + made, ready - made)
    except OSError:  # of root.hold: those before it are made
        pass
    finally:
        if folder >= 0:
            close(folder)
    return result(pack, made, digest_bytes)


cdef result(const char *pack, Py_ssize_t made, Py_ssize_t digest_bytes):
    """Number, bytes and rows of the proof of the files that were made."""
    cdef const char *line = pack + COUNT_BYTES
    cdef Py_ssize_t size = 0, i
    cdef list proof = []
    pack_row = ROW.pack
    for i in range(made):
        proof.append(pack_row(number_at(line), number_at(line + 4)))
        proof.append(line[PACKED_BYTES:PACKED_BYTES + digest_bytes])
        size += number_at(line + 4)
        line += PACKED_BYTES + digest_bytes
    return Scattered(made, size, b"".join(proof))
