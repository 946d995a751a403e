"""Character generator (RFC 864), native: one constant block, never copied.

The pure twin is chargen_py.py.
"""

from fastnet.cdefs.service cimport FN_REPLY_STATIC, fn_reply, fn_reply_add, fn_service
from fastnet.engine.context_c cimport NativeService
from fastnet.service.chargen_py import DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX, block

cdef size_t BYTES_MIN = DATAGRAM_BYTES_MIN
cdef size_t BYTES_MAX = DATAGRAM_BYTES_MAX


cdef void sent(const fn_service *service, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, service.text, service.text_bytes)
    reply.flags = FN_REPLY_STATIC


cdef void eof(const fn_service *service, fn_reply *reply) noexcept nogil:
    pass


cdef void datagram(
    const fn_service *service, char *bytes, size_t n, fn_reply *reply
) noexcept nogil:
    cdef size_t reply_bytes = n
    if n < BYTES_MIN:
        reply_bytes = BYTES_MIN
    elif n > BYTES_MAX:
        reply_bytes = BYTES_MAX
    fn_reply_add(reply, service.text, reply_bytes)


def create():
    cdef NativeService service = NativeService(block())
    service.c.sent = sent
    service.c.eof = eof
    service.c.datagram = datagram
    return service
