"""Character generator (RFC 864), native: one constant block for all connections, never copied. Twin: chargen_py.py."""

from fastnet.cdefs.service cimport FN_STABLE, fn_reply, fn_reply_add, fn_service
from fastnet.cdefs.work_c cimport NativeService
from fastnet.service.chargen_py import block


cdef void more(const fn_service *service, fn_reply *reply) noexcept nogil:
    fn_reply_add(reply, service.text, service.text_bytes)
    reply.flags = FN_STABLE


cdef void go_on(const fn_service *service, fn_reply *reply) noexcept nogil:
    pass


def create():
    cdef NativeService service = NativeService(block())
    service.c.sent = more
    service.c.eof = go_on
    return service
