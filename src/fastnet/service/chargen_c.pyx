"""Character generator (RFC 864), native: one constant block for all connections, never copied.
Twin: chargen_py.py.
"""

from fastnet.cdefs.service cimport FN_STABLE, fn_reply, fn_reply_add, fn_service
from fastnet.engine.context_c cimport NativeService
from fastnet.service.chargen_py import DATAGRAM_LEAST, DATAGRAM_MOST, block

cdef size_t LEAST = DATAGRAM_LEAST
cdef size_t MOST = DATAGRAM_MOST


cdef void more(const fn_service *service, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, service.text, service.text_bytes)
    reply.flags = FN_STABLE


cdef void go_on(const fn_service *service, fn_reply *reply) noexcept nogil:
    pass


cdef void some(const fn_service *service, char *bytes, size_t n, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, service.text, LEAST if n < LEAST else MOST if n > MOST else n)


def create():
    cdef NativeService service = NativeService(block())
    service.c.sent = more
    service.c.eof = go_on
    service.c.datagram = some
    return service
