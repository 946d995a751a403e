"""csrc/fn_accept.h"""
from fastnet.cdefs.counters cimport fn_closed
from fastnet.cdefs.sys cimport sockaddr_storage
from fastnet.cdefs.work cimport fn_work

cdef extern from "fn_accept.h" nogil:
    enum:
        FN_SWEEP_MAX
    struct fn_acceptor:
        int full
    fn_acceptor fn_acceptor_open(const fn_work *work, int extra_fd)
    void fn_turn_away(const fn_work *work, int fd, const sockaddr_storage *peer, fn_closed why)
    int fn_names_peers(const fn_work *work)
    int fn_admit(const fn_work *work, int fd, const sockaddr_storage *peer)
    int fn_accept_failed(const fn_work *work, int error)
    int fn_accept(const fn_work *work, int listener, int flags, sockaddr_storage *peer)
    int fn_acceptor_next(fn_acceptor *acceptor, sockaddr_storage *peer)
