"""The one place where a native loop's -errno becomes an exception."""
from cpython.exc cimport PyErr_SetFromErrno
from libc cimport errno as c_errno


cdef inline int raise_errno(int result) except -1:
    """Return result if it is not negative; raise the OSError subclass of -result otherwise."""
    if result < 0:
        c_errno.errno = -result
        PyErr_SetFromErrno(OSError)
        return -1
    return result
