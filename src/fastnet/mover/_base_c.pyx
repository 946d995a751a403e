"""Base class of the native movers: a struct fn_mover; a row only sets its two steps."""

import os

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from fastnet._errno_c cimport raise_errno
from fastnet.cdefs.mover cimport FN_WRONG_WAY, fn_mover, fn_mover_moved, fn_step
from fastnet.cdefs.mover_slice cimport fn_move_some

from fastnet.errors import reason
from fastnet.limits import MOVER_BUFFER_BYTES, MOVER_STEP_BYTES, MOVER_WAKE_BYTES


cdef class NativeMover:
    """One direction of one socket; the contract is fastnet.mover.contract."""

    def __cinit__(self):
        memset(&self.c, 0, sizeof(fn_mover))
        self.c.buffer_bytes = MOVER_BUFFER_BYTES
        self.c.step_bytes = MOVER_STEP_BYTES
        self.c.wake_bytes = MOVER_WAKE_BYTES
        self.c.pipe_out = self.c.pipe_in = -1

    def __dealloc__(self):
        free(self.c.buffer)

    @property
    def moved_bytes(self):
        return self.c.moved

    @property
    def held_bytes(self):
        return self.c.piped + self.c.held_to - self.c.held_from

    @property
    def runs(self):
        return "copy" if self.c.copies else self.name

    @property
    def reason(self):
        if self.c.copies == FN_WRONG_WAY:
            return f"{self.name} only sends"
        return f"{self.name}: {reason(OSError(self.c.copies, ''))}" if self.c.copies else ""

    @property
    def tap(self):
        return self.reader

    @tap.setter
    def tap(self, reader):
        self.reader = reader
        self.c.reader = <void *>reader
        self.c.tap = NULL
        if reader is not None:
            self.c.tap = call_tap

    def send(self, int sock_fd, int file_fd, long long offset, unsigned long long count):
        """One step, file to socket (M1 to M4)."""
        return self.one_step(self.out, sock_fd, file_fd, offset, count)

    def receive(self, int sock_fd, int file_fd, long long offset, unsigned long long count):
        """One step, socket to file (M1 to M3, M5, M6)."""
        return self.one_step(self.into, sock_fd, file_fd, offset, count)

    def send_some(
        self, int sock_fd, int file_fd, long long offset, unsigned long long count, double slice_s
    ):
        """Steps of `send` and waits, for `slice_s` seconds at most (M9)."""
        return self.some(self.out, True, sock_fd, file_fd, offset, count, slice_s)

    def receive_some(
        self, int sock_fd, int file_fd, long long offset, unsigned long long count, double slice_s
    ):
        """Steps of `receive` and waits, for `slice_s` seconds at most (M9)."""
        return self.some(self.into, False, sock_fd, file_fd, offset, count, slice_s)

    def close(self):
        """Drop what is held, and the pipe."""
        self.c.held_from = self.c.held_to = self.c.piped = 0
        if self.c.pipe_in >= 0:
            os.close(self.c.pipe_in)
            os.close(self.c.pipe_out)
            self.c.pipe_in = self.c.pipe_out = -1

    cdef int one_step(
        self, fn_step step, int sock, int file, long long offset, unsigned long long count
    ) except -1:
        cdef ssize_t n
        with nogil:
            n = step(&self.c, sock, file, offset, count)
            if n > 0:
                fn_mover_moved(&self.c, n)
        return raise_errno(<int>n)

    cdef tuple some(
        self, fn_step step, bint out, int sock, int file, long long offset,
        unsigned long long count, double slice_s
    ):
        cdef uint64_t moved = 0
        cdef int ended = 0, result
        cdef uint32_t slice_ms = <uint32_t>(slice_s * 1000)
        with nogil:
            result = fn_move_some(
                &self.c, step, out, sock, file, offset, count, slice_ms, &moved, &ended
            )
        raise_errno(result)
        return moved, bool(ended)


cdef void call_tap(void *reader, const char *data, size_t n) noexcept with gil:
    """Call the tap (M12). A memoryview that it keeps would change under it."""
    (<object>reader)(PyMemoryView_FromMemory(<char *>data, n, PyBUF_READ))
