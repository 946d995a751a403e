"""Echo (RFC 862), native: the reply is the buffer the bytes were read into.

Nothing is copied. The pure twin is echo_py.py.
"""

from fastnet.cdefs.service cimport fn_reply, fn_reply_add, fn_service
from fastnet.engine.context_c cimport NativeService


cdef void echo(const fn_service *service, char *bytes, size_t n, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, bytes, n)


cdef void echo_and_suffix(
    const fn_service *service, char *bytes, size_t n, fn_reply *reply
) noexcept nogil:
    fn_reply_add(reply, bytes, n)
    fn_reply_add(reply, service.text, service.text_bytes)


def create(bytes suffix=b""):
    cdef NativeService service = NativeService(suffix)
    service.c.data = service.c.datagram = echo_and_suffix if suffix else echo
    return service
