"""csrc/fn_mover.h"""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "fn_mover.h" nogil:
    int FN_WRONG_WAY

    struct fn_mover:
        size_t buffer_bytes, step_bytes, wake_bytes, held_from, held_to, pipe_bytes, piped
        char *buffer
        int pipe_out, pipe_in, copies
        uint64_t moved
        void (*tap)(void *reader, const char *data, size_t n) noexcept
        void *reader

    ctypedef ssize_t (*fn_step)(
        fn_mover *, int sock, int file, int64_t offset, size_t count) noexcept
    void fn_mover_moved(fn_mover *m, size_t n)
    ssize_t fn_copy_out(fn_mover *m, int sock, int file, int64_t offset, size_t count)
    ssize_t fn_copy_in(fn_mover *m, int sock, int file, int64_t offset, size_t count)
    ssize_t fn_sendfile_out(fn_mover *m, int sock, int file, int64_t offset, size_t count)
    ssize_t fn_sendfile_in(fn_mover *m, int sock, int file, int64_t offset, size_t count)
    ssize_t fn_splice_out(fn_mover *m, int sock, int file, int64_t offset, size_t count)
    ssize_t fn_splice_in(fn_mover *m, int sock, int file, int64_t offset, size_t count)
