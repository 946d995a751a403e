"""csrc/fn_mmsg.h"""
from libc.stdint cimport uint32_t

cdef extern from "fn_mmsg.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int fd, mmsghdr *messages, uint32_t size, int flags, void *timeout)
    int sendmmsg(int fd, mmsghdr *messages, uint32_t size, int flags)
