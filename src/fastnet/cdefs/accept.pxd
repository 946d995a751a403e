"""csrc/fn_accept.h"""
from fastnet.cdefs.context cimport fn_context
from fastnet.cdefs.counters cimport fn_closed
from fastnet.cdefs.sys cimport sockaddr_storage

cdef extern from "fn_accept.h" nogil:
    struct fn_acceptor:
        int full
    void fn_accept_reject(
        const fn_context *context, int fd, const sockaddr_storage *peer, fn_closed why
    )
    int fn_accept_needs_peer(const fn_context *context)
    int fn_accept_admit(const fn_context *context, int fd, const sockaddr_storage *peer)
    int fn_accept_error(const fn_context *context, int error)
    int fn_accept_one(
        const fn_context *context, int listener, int flags, sockaddr_storage *peer
    )
    void fn_accept_shutdown(const fn_context *context)
    fn_acceptor fn_acceptor_init(const fn_context *context, int extra_fd)
    int fn_acceptor_next(fn_acceptor *acceptor, sockaddr_storage *peer)
