"""Small files into a pack, native: csrc/fn_smallfile.h. Twin: gather_py.py."""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free

from fastnet.cdefs.smallfile cimport fn_small_read

import os

from fastnet.apps.transfer.protocol.frames import PACKED
from fastnet.apps.transfer.protocol.transcript import ROW
from fastnet.apps.transfer.smallfiles.contract import Gathered


cdef struct File:
    const char *place
    const char *identity
    size_t size


cdef Py_ssize_t read_all(const File *files, Py_ssize_t count, char *to, size_t room) noexcept nogil:
    """Read one after the other. Returns how many went well before the first that did not."""
    cdef Py_ssize_t read = 0
    cdef const File *each
    while read < count:
        each = &files[read]
        if each.size > room or fn_small_read(each.place, each.identity, to, each.size) < 0:
            break
        to += each.size
        room -= each.size
        read += 1
    return read


def gather(files, room not None, digest_of):
    """Read files into `room`, which is large enough for all of them."""
    cdef Py_ssize_t count = len(files), i = 0, read = 0
    cdef size_t at = 0
    cdef File *array = <File *>calloc(max(count, 1), sizeof(File))
    cdef Py_buffer into
    cdef list texts = []
    if array == NULL:
        raise MemoryError
    try:
        for index, entry, place in files:
            place, identity = os.fsencode(place), entry.extra.encode("ascii")
            if b"\0" in place:
                break
            texts += (place, identity)
            array[i].place, array[i].identity, array[i].size = place, identity, entry.size
            i += 1
        PyObject_GetBuffer(room, &into, PyBUF_WRITABLE)
        try:
            with nogil:
                read = read_all(array, i, <char *>into.buf, <size_t>into.len)
        finally:
            PyBuffer_Release(&into)
    finally:
        free(array)
    return rows_of(files[:read], room, digest_of)


def rows_of(files, room, digest_of):
    """The rows of files that stand one after another in `room`."""
    cdef list table = [], proof = []
    cdef Py_ssize_t at = 0, size
    packed, row = PACKED.pack, ROW.pack
    view = memoryview(room)
    for index, entry, place in files:
        size = entry.size
        digest = digest_of(view[at:at + size])
        table.append(packed(index, size))
        table.append(digest)
        proof.append(row(index, size))
        proof.append(digest)
        at += size
    return Gathered(len(files), at, b"".join(table), b"".join(proof))
