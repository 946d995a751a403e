"""One connection after another; the next one waits in the accept queue.

Fact. The queue is the kernel's: a waiting client is connected and may send, but no process reads.
Decision: kept for teaching and for tests of clients against a busy server; the idle timeout keeps
one silent client from blocking it for ever.
"""

from libc.stdlib cimport free, malloc

from fastnet.cdefs.accept cimport fn_acceptor, fn_acceptor_init, fn_acceptor_next
from fastnet.cdefs.blocking cimport fn_blocking_serve
from fastnet.cdefs.context cimport fn_context, fn_row
from fastnet.cdefs.sys cimport EAGAIN, ENOMEM, ESHUTDOWN, sockaddr_storage
from fastnet._errno_c cimport raise_errno
from fastnet.engine.context_c cimport NativeLoopContext


cdef int serve(const fn_context *context, char *buffer) noexcept nogil:
    cdef fn_acceptor acceptor = fn_acceptor_init(context, -1)
    cdef sockaddr_storage peer
    cdef int fd
    while True:
        fd = fn_acceptor_next(&acceptor, &peer)
        if fd >= 0:
            fn_blocking_serve(context, fn_row(context, 0), fd, &peer, buffer)
        elif fd != -EAGAIN:
            return 0 if fd == -ESHUTDOWN else fd


def run(context):
    """Serve the context's listeners until it is stopped (engine/stream/contract.py)."""
    cdef NativeLoopContext native = NativeLoopContext(context)
    cdef int result = -ENOMEM
    cdef char *buffer
    with nogil:
        buffer = <char *>malloc(native.c.read_bytes)
        if buffer != NULL:
            result = serve(&native.c, buffer)
        free(buffer)
    raise_errno(result)
