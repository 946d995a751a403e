"""csrc/fn_accept.h"""
from fastnet.cdefs.counters cimport fn_closed
from fastnet.cdefs.sys cimport sockaddr_storage
from fastnet.cdefs.context cimport fn_context

cdef extern from "fn_accept.h" nogil:
    enum:
        FN_SWEEP_MAX
    struct fn_acceptor:
        int full
    fn_acceptor fn_acceptor_open(const fn_context *context, int extra_fd)
    void fn_turn_away(const fn_context *context, int fd, const sockaddr_storage *peer, fn_closed why)
    int fn_names_peers(const fn_context *context)
    int fn_admit(const fn_context *context, int fd, const sockaddr_storage *peer)
    int fn_accept_failed(const fn_context *context, int error)
    int fn_accept(const fn_context *context, int listener, int flags, sockaddr_storage *peer)
    int fn_acceptor_next(fn_acceptor *acceptor, sockaddr_storage *peer)
