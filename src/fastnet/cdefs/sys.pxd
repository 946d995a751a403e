"""csrc/fn_sys.h"""
from libc.stdint cimport uint32_t, uint64_t
from posix.types cimport pid_t

cdef extern from "fn_sys.h" nogil:
    int ECANCELED, ENOBUFS, ENOTCONN, ENOSYS, ETIMEDOUT, EPERM, EACCES
    int MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC, SOCK_CLOEXEC, F_GETFL, F_SETFL, O_NONBLOCK
    int EAGAIN, ESHUTDOWN, EMFILE, ECONNABORTED, ENOMEM, EINVAL, EBADF, ECHILD
    int EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLEXCLUSIVE
    int EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, EPOLL_CLOEXEC
    int SOCK_NONBLOCK, SHUT_RDWR, SHUT_WR, SOCK_STREAM, EINPROGRESS, EINTR

    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    struct sockaddr_storage:
        pass

    int errno
    int fcntl(int fd, int command, int argument)
    ssize_t fn_recv(int fd, void *p, size_t n, int flags)
    ssize_t fn_send(int fd, const void *p, size_t n, int flags)
    int fn_getpeername(int fd, sockaddr_storage *peer)
    int close(int fd)
    int shutdown(int fd, int how)
    int epoll_create1(int flags)
    int epoll_wait(int epoll, epoll_event *events, int n, int timeout_ms)
    int fn_epoll_wait(int epoll, epoll_event *events, int n, int timeout_ms)
    int fn_epoll_set(int epoll, int operation, int fd, uint32_t events, uint64_t tag)
    int fn_pidfd_open(pid_t pid)
    void *fn_map(size_t bytes)
    void fn_unmap(void *p, size_t bytes)

    enum:
        FD_SETSIZE
    ctypedef struct fd_set:
        pass
    void FD_SET(int fd, fd_set *set)
    void FD_CLR(int fd, fd_set *set)
    int FD_ISSET(int fd, fd_set *set)
    int fn_select(int bound, fd_set *reads, fd_set *writes, int timeout_ms)

    ctypedef unsigned long eventfd_t
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int initial, int flags)
    int eventfd_read(int fd, eventfd_t *value)
    int eventfd_write(int fd, eventfd_t value)
