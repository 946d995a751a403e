/* System calls: each returns a count or -errno, retries EINTR and never raises SIGPIPE.
 *
 * Facts. A signal may interrupt any of these before it has done anything (signal(7)); the handlers
 * are Python's and run in the main thread, so a loop has nothing to do about it. send(2) to a
 * socket whose peer has closed raises SIGPIPE unless MSG_NOSIGNAL is set.
 * Decision: the retry and MSG_NOSIGNAL stand here and nowhere else. close(2) is not retried: on
 * Linux the descriptor is closed even after EINTR, and may already belong to another thread. */
#ifndef FN_SYS_H
#define FN_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define FN_RETRY(result, call)              \
    do {                                    \
        result = (call);                    \
    } while (result < 0 && errno == EINTR); \
    if (result < 0) result = -errno

/* recv(2). Returns bytes read, 0 at end of stream, or -errno (-EAGAIN: nothing to read now). */
static inline ssize_t fn_recv(int fd, void *p, size_t n, int flags) {
    ssize_t got;
    FN_RETRY(got, recv(fd, p, n, flags));
    return got;
}

/* send(2). Returns bytes taken by the kernel, perhaps fewer than n, or -errno (-EAGAIN: its buffer
 * is full). */
static inline ssize_t fn_send(int fd, const void *p, size_t n, int flags) {
    ssize_t sent;
    FN_RETRY(sent, send(fd, p, n, flags | MSG_NOSIGNAL));
    return sent;
}

/* One sendmsg(2) for several pieces. Returns like fn_send. */
static inline ssize_t fn_send_parts(int fd, struct iovec *part, int parts, int flags) {
    struct msghdr message = {.msg_iov = part, .msg_iovlen = (size_t)parts};
    ssize_t sent;
    FN_RETRY(sent, sendmsg(fd, &message, flags | MSG_NOSIGNAL));
    return sent;
}

/* accept4(2) with close-on-exec. peer may be NULL. flags: SOCK_NONBLOCK or 0. Returns the
 * descriptor or -errno. */
static inline int fn_accept4(int listener, struct sockaddr_storage *peer, int flags) {
    socklen_t size = sizeof *peer;
    int fd;
    FN_RETRY(fd, accept4(listener, (struct sockaddr *)peer, peer ? &size : NULL,
                         flags | SOCK_CLOEXEC));
    return fd;
}

/* getpeername(2). Returns 0 or -errno (-ENOTCONN: the peer has already disconnected). */
static inline int fn_getpeername(int fd, struct sockaddr_storage *peer) {
    socklen_t size = sizeof *peer;
    return getpeername(fd, (struct sockaddr *)peer, &size) < 0 ? -errno : 0;
}

/* poll(2). timeout_ms: -1 waits for ever. Returns the number of ready descriptors or -errno. */
static inline int fn_poll(struct pollfd *fds, nfds_t n, int timeout_ms) {
    int ready;
    FN_RETRY(ready, poll(fds, n, timeout_ms));
    return ready;
}

/* epoll_wait(2). Returns the number of events or -errno. */
static inline int fn_epoll_wait(int epoll, struct epoll_event *events, int n, int timeout_ms) {
    int ready;
    FN_RETRY(ready, epoll_wait(epoll, events, n, timeout_ms));
    return ready;
}

/* epoll_ctl(2) with our own 64-bit tag. Returns 0 or -errno. */
static inline int fn_epoll_set(int epoll, int operation, int fd, uint32_t events, uint64_t tag) {
    struct epoll_event event = {.events = events, .data.u64 = tag};
    return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/* select(2). bound: one more than the highest descriptor. timeout_ms: -1 waits for ever. Returns
 * the number of bits set or -errno. EINTR returns 0, because the sets are then undefined. */
static inline int fn_select(int bound, fd_set *reads, fd_set *writes, int timeout_ms) {
    struct timeval timeout = {
        .tv_sec = timeout_ms / 1000,
        .tv_usec = (timeout_ms % 1000) * 1000,
    };
    int ready = select(bound, reads, writes, NULL, timeout_ms < 0 ? NULL : &timeout);
    if (ready >= 0) {
        return ready;
    }
    return errno == EINTR ? 0 : -errno;
}

/* SO_RCVTIMEO and SO_SNDTIMEO: recv and send on a blocking socket return -EAGAIN after ms
 * (socket(7)). */
static inline void fn_set_socket_timeout(int fd, uint32_t ms) {
    struct timeval timeout = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
}

/* Anonymous memory from mmap(2): zeros, not backed until touched. Returns NULL without memory. */
static inline void *fn_map(size_t bytes) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static inline void fn_unmap(void *p, size_t bytes) {
    if (p) {
        munmap(p, bytes);
    }
}

/* pidfd_open(2) by number, for C libraries older than the call. Returns a descriptor or -errno. */
static inline int fn_pidfd_open(pid_t pid) {
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

#endif
