"""Handler service, native: one entry into Python for a batch of datagrams.

Facts. Taking the GIL costs as much as answering a small datagram, and more when another thread
holds it.
Decision: it is taken once a batch. Replies are not copied: the list of a batch keeps them until the
next one, by when they are sent. A peer's address is made once and kept, for formatting it costs
more than the call. The pure twin is handler_py.py.
"""

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint32_t

from fastnet.cdefs.counters cimport fn_count
from fastnet.cdefs.inet cimport (
    AF_INET, AF_INET6, AF_UNIX, FN_SUN_PATH_OFFSET, INET6_ADDRSTRLEN, inet_ntop, ntohl, ntohs,
    sockaddr_in, sockaddr_in6, sockaddr_un,
)
from fastnet.cdefs.service cimport fn_call, fn_calls, fn_reply_add, fn_service
from fastnet.cdefs.sys cimport sockaddr_storage
from fastnet.engine.context_c cimport NativeService

from fastnet.limits import HANDLER_PEERS_KEPT
from fastnet.service.handler_py import HandlerErrorLog, as_bytes

cdef extern from "Python.h":
    object PyUnicode_DecodeFSDefaultAndSize(const char *text, Py_ssize_t n)

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t size)

cdef Py_ssize_t PEERS_KEPT = HANDLER_PEERS_KEPT


cdef object local_name(const char *path, size_t room):
    """A Unix socket's name: bytes for an abstract one, else str."""
    if path[0] == 0:
        return PyBytes_FromStringAndSize(path, room)
    return PyUnicode_DecodeFSDefaultAndSize(path, strnlen(path, room))


cdef object address(const sockaddr_storage *peer, uint32_t peer_bytes):
    """A peer as recvfrom of Python's socket returns it; peer_bytes: length of its name."""
    cdef char text[INET6_ADDRSTRLEN]
    cdef const sockaddr_in *v4 = <const sockaddr_in *>peer
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>peer
    if v4.sin_family == AF_UNIX:
        return local_name((<const sockaddr_un *>peer).sun_path, peer_bytes - FN_SUN_PATH_OFFSET)
    if v4.sin_family == AF_INET6:
        inet_ntop(v4.sin_family, &v6.sin6_addr, text, INET6_ADDRSTRLEN)
        flow = ntohl(v6.sin6_flowinfo) & 0xFFFFF
        return text.decode("ascii"), ntohs(v6.sin6_port), flow, v6.sin6_scope_id
    inet_ntop(v4.sin_family, &v4.sin_addr, text, INET6_ADDRSTRLEN)
    return text.decode("ascii"), ntohs(v4.sin_port)


cdef class NativeHandler(NativeService):
    cdef object handler, error_log
    cdef dict peers

    cdef object peer_of(self, const sockaddr_storage *peer, uint32_t peer_bytes):
        cdef bytes packed
        if peer_bytes == 0:
            return None
        if (<const sockaddr_in *>peer).sin_family == AF_INET:
            peer_bytes = 8  # the rest is padding
        packed = PyBytes_FromStringAndSize(<const char *>peer, peer_bytes)
        found = self.peers.get(packed)
        if found is None:
            if len(self.peers) >= PEERS_KEPT:
                self.peers.clear()
            found = self.peers[packed] = address(peer, peer_bytes)
        return found

    cdef object reply_to(self, fn_call *call, fn_calls *calls):
        """The reply to one datagram as bytes, or None."""
        peer = self.peer_of(call.peer, call.peer_bytes)
        try:
            data = PyMemoryView_FromObject(PyBytes_FromStringAndSize(call.bytes, call.n))
            reply = self.handler(data, peer)
            return reply if reply is None or PyBytes_CheckExact(reply) else as_bytes(reply)
        except BaseException as error:
            fn_count(&calls.row.handler_errors, 1)
            self.error_log.log_error(peer, error)
        return None

    cdef int answer_batch(self, fn_calls *calls) except -1:
        cdef list kept = []
        cdef uint32_t i
        Py_XDECREF(<PyObject *>calls.kept)
        calls.kept = NULL
        if calls.n == 0:
            return 0
        Py_INCREF(kept)
        calls.kept = <void *>kept
        for i in range(calls.n):
            reply = self.reply_to(&calls.call[i], calls)
            if reply is not None:
                kept.append(reply)
                fn_reply_add(
                    &calls.call[i].reply, PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply)
                )
        return 0


cdef void batch(const fn_service *service, fn_calls *calls) noexcept nogil:
    with gil:
        (<NativeHandler>service.own).answer_batch(calls)


def create(handler):
    cdef NativeHandler service = NativeHandler(b"")
    service.handler = handler
    service.error_log = HandlerErrorLog()
    service.peers = {}
    service.c.batch = batch
    return service
