"""What is in a folder, native: csrc/fn_readdir.h. Twin: survey_py.py."""

from libc.stdio cimport snprintf
from posix.stat cimport struct_stat
from posix.time cimport timespec

from fastnet.cdefs.readdir cimport fn_survey, fn_survey_close, fn_survey_folder

import os

from fastnet.apps.transfer.source.identity import BLOCK_BYTES as PY_BLOCK_BYTES
from fastnet.apps.transfer.smallfiles.contract import Found

cdef long long BLOCK_BYTES = PY_BLOCK_BYTES


cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefault(const char *text)


cdef inline long long in_ns(timespec time) noexcept:
    return time.tv_sec * <long long>1000000000 + time.tv_nsec


cdef object identity(const struct_stat *status):
    """identity.identity."""
    cdef char text[80]
    snprintf(
        text, sizeof(text), "%llx-%llx-%llx", <unsigned long long>status.st_dev,
        <unsigned long long>status.st_ino, in_ns(status.st_ctim),
    )
    return (<bytes>text).decode("ascii")


def survey(folder):
    """Everything in the folder at this path, by name. Raises OSError."""
    cdef fn_survey all
    cdef const struct_stat *status
    cdef size_t i
    cdef int result
    cdef list found = []
    place = os.fsencode(folder)
    cdef const char *path = place
    all.found, all.names = NULL, NULL
    all.count = all.room = all.names_bytes = all.names_room = 0
    try:
        with nogil:
            result = fn_survey_folder(&all, path)
        if result < 0:
            where = place
            if all.count:
                where = os.path.join(place, all.names + all.found[all.count - 1].name)
            raise OSError(-result, os.strerror(-result), os.fsdecode(where))
        for i in range(all.count):
            status = &all.found[i].status
            found.append(Found(
                PyUnicode_DecodeFSDefault(all.names + all.found[i].name),
                status.st_mode,
                in_ns(status.st_mtim),
                status.st_size,
                identity(status),
                min(status.st_size, status.st_blocks * BLOCK_BYTES),
            ))
    finally:
        fn_survey_close(&all)
    found.sort()
    return found
