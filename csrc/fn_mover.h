/* Steps of the movers copy, sendfile and splice: file to socket and back (mover/contract.py).
 *
 * Facts and decisions are those of the pure twins, mover/copy_py.py, sendfile_py.py and
 * splice_py.py; the names are the same. Slices are in fn_mover_slice.h. A step returns the bytes
 * moved, 0 at the end of the source, or -errno (-EAGAIN: nothing to move now). sendfile(2) and
 * splice(2) have no MSG_NOSIGNAL: SIGPIPE must be ignored. */
#ifndef FN_MOVER_H
#define FN_MOVER_H

#include <limits.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "fn_sys.h"

/* The offset argument for a pipe or terminal. */
#define FN_NO_OFFSET (-1)
/* In fn_mover.copies: this mover is not made for this direction. */
#define FN_WRONG_WAY (-1)

struct fn_mover {
    size_t buffer_bytes;            /* size of the buffer */
    size_t step_bytes;              /* most bytes of a zero-copy step */
    size_t wake_bytes;              /* bytes that a file waits for in the socket */
    char *buffer;                   /* allocated by the first copy */
    const char *passed;             /* where in it the bytes of the last step are */
    size_t held_from, held_to;      /* range of held bytes in the buffer (M6) */
    int pipe_out, pipe_in;          /* read and write end; -1: none */
    size_t pipe_bytes;              /* size of the pipe */
    size_t piped;                   /* bytes in the pipe */
    int copies;                     /* why it copies: 0 it does not, FN_WRONG_WAY, or an errno */
    int waits_for_pipe;             /* the last -EAGAIN was the file's, not the socket's */
    int low_water;                  /* SO_RCVLOWAT as set here; 0 and 1: as it was */
    uint64_t moved;                 /* total bytes; written by one thread, read by any */
    void (*tap)(void *reader, const char *data, size_t n); /* observes the bytes (M12), or NULL */
    void *reader;                   /* first argument of tap */
};

typedef ssize_t (*fn_step)(struct fn_mover *, int sock, int file, int64_t offset, size_t count);

/* Count n moved bytes and pass them to the tap. */
static inline void fn_mover_moved(struct fn_mover *m, size_t n) {
    __atomic_store_n(&m->moved, m->moved + n, __ATOMIC_RELAXED);
    if (m->tap) m->tap(m->reader, m->passed, n);
}

static inline size_t fn_least(size_t a, size_t b) { return a < b ? a : b; }

/* Make room for n bytes in the buffer. Returns 0 or -ENOMEM. */
static inline int fn_mover_room(struct fn_mover *m, size_t n) {
    if (m->buffer && m->buffer_bytes >= n) return 0;
    if (m->buffer_bytes < n) m->buffer_bytes = n;
    char *wider = realloc(m->buffer, m->buffer_bytes);
    if (!wider) return -ENOMEM;
    m->buffer = wider;
    return 0;
}

/* Hold the bytes of a read(2) that returned got. Returns got. */
static inline ssize_t fn_mover_held(struct fn_mover *m, ssize_t got) {
    m->held_from = 0;
    m->held_to = got > 0 ? (size_t)got : 0;
    return got;
}

/* Returns 0 if a pipe is ready for event, -EAGAIN if not, or -errno. */
static inline int fn_pipe_ready(struct fn_mover *m, int pipe_fd, short event) {
    struct pollfd ask = {.fd = pipe_fd, .events = event};
    int ready = fn_poll(&ask, 1, 0);
    m->waits_for_pipe = ready == 0;
    if (ready > 0) return 0;
    return ready == 0 ? -EAGAIN : ready;
}

/* Bytes, up to most, that a pipe reported as writable takes without blocking (pipe(7)). */
static inline size_t fn_pipe_portion(int pipe_fd, size_t most) {
    struct stat status;
    if (fstat(pipe_fd, &status) == 0 && S_ISREG(status.st_mode)) return most;
    return fn_least(most, PIPE_BUF);
}

/* Copy from a file or pipe to the socket. */
static inline ssize_t fn_copy_out(struct fn_mover *m, int sock, int file, int64_t offset,
                                  size_t count) {
    ssize_t got = fn_mover_room(m, 1);
    if (got < 0) return got;
    if (offset != FN_NO_OFFSET) {
        m->passed = m->buffer;
        FN_RETRY(got, pread(file, m->buffer, fn_least(count, m->buffer_bytes), offset));
        return got > 0 ? fn_send(sock, m->buffer, (size_t)got, MSG_DONTWAIT) : got;
    }
    if (m->held_from == m->held_to) {
        got = fn_pipe_ready(m, file, POLLIN);
        if (got < 0) return got;
        FN_RETRY(got, read(file, m->buffer, fn_least(count, m->buffer_bytes)));
        if (fn_mover_held(m, got) <= 0) return got;
    }
    m->passed = m->buffer + m->held_from;
    size_t held = fn_least(count, m->held_to - m->held_from);
    ssize_t sent = fn_send(sock, m->passed, held, MSG_DONTWAIT);
    if (sent > 0) m->held_from += (size_t)sent;
    return sent;
}

/* Copy from the socket to a file or pipe. */
static inline ssize_t fn_copy_in(struct fn_mover *m, int sock, int file, int64_t offset,
                                 size_t count) {
    ssize_t got = fn_mover_room(m, 1);
    if (got < 0) return got;
    if (m->held_from == m->held_to) {
        got = fn_recv(sock, m->buffer, fn_least(count, m->buffer_bytes), MSG_DONTWAIT);
        if (fn_mover_held(m, got) <= 0) return got;
    }
    size_t most = fn_least(count, m->held_to - m->held_from);
    ssize_t written;
    m->passed = m->buffer + m->held_from;
    if (offset == FN_NO_OFFSET) {
        written = fn_pipe_ready(m, file, POLLOUT);
        if (written < 0) return written;
        FN_RETRY(written, write(file, m->passed, fn_pipe_portion(file, most)));
    } else {
        FN_RETRY(written, pwrite(file, m->passed, most, offset));
    }
    if (written > 0) m->held_from += (size_t)written;
    return written;
}

/* Whether result is an error of a file or socket that cannot be moved this way; if so, copy from
 * now on (M10). */
static inline int fn_mover_refused(struct fn_mover *m, ssize_t result) {
    if (result != -EINVAL && result != -ENOSYS && result != -EOPNOTSUPP && result != -ESPIPE) {
        return 0;
    }
    m->copies = (int)-result;
    return 1;
}

/* sendfile(2) from a file to the socket. */
static inline ssize_t fn_sendfile_out(struct fn_mover *m, int sock, int file, int64_t offset,
                                      size_t count) {
    if (!m->copies) {
        off_t at = offset;
        ssize_t sent = -ESPIPE;
        if (offset != FN_NO_OFFSET) {
            FN_RETRY(sent, sendfile(sock, file, &at, fn_least(count, m->step_bytes)));
        }
        if (!fn_mover_refused(m, sent)) return sent;
    }
    return fn_copy_out(m, sock, file, offset, count);
}

/* Copy: sendfile(2) cannot read from a socket. */
static inline ssize_t fn_sendfile_in(struct fn_mover *m, int sock, int file, int64_t offset,
                                     size_t count) {
    m->copies = FN_WRONG_WAY;
    return fn_copy_in(m, sock, file, offset, count);
}

/* One splice(2) into or out of the pipe. at: the file's offset, or NULL for a socket. */
static inline ssize_t fn_splice(int from, loff_t *from_at, int into, loff_t *into_at, size_t n) {
    ssize_t moved;
    FN_RETRY(moved, splice(from, from_at, into, into_at, n, SPLICE_F_NONBLOCK | SPLICE_F_MOVE));
    return moved;
}

/* Fill the empty pipe, then drain it. Exactly one of the two ends is a file and has an offset. */
static inline ssize_t fn_splice_through(struct fn_mover *m, int from, loff_t *from_at, int into,
                                        loff_t *into_at, size_t count) {
    if (!m->piped) {
        size_t most = fn_least(count, fn_least(m->pipe_bytes, m->step_bytes));
        ssize_t got = fn_splice(from, from_at, m->pipe_in, NULL, most);
        if (got <= 0) return got;
        m->piped = (size_t)got;
    }
    ssize_t moved = fn_splice(m->pipe_out, NULL, into, into_at, fn_least(count, m->piped));
    if (moved > 0) m->piped -= (size_t)moved;
    return moved;
}

/* splice(2) from a file to the socket. */
static inline ssize_t fn_splice_out(struct fn_mover *m, int sock, int file, int64_t offset,
                                    size_t count) {
    if (!m->copies) {
        loff_t at = offset;
        ssize_t sent = -ESPIPE;
        if (offset != FN_NO_OFFSET) sent = fn_splice_through(m, file, &at, sock, NULL, count);
        if (!fn_mover_refused(m, sent)) return sent;
        m->piped = 0; /* its bytes are in the file, and are read again */
    }
    return fn_copy_out(m, sock, file, offset, count);
}

/* splice(2) from the socket to a file. */
static inline ssize_t fn_splice_in(struct fn_mover *m, int sock, int file, int64_t offset,
                                   size_t count) {
    if (!m->copies) {
        loff_t at = offset;
        ssize_t got = -ESPIPE;
        if (offset != FN_NO_OFFSET) got = fn_splice_through(m, sock, NULL, file, &at, count);
        if (!fn_mover_refused(m, got)) return got;
        if (m->piped) { /* taken from the socket already: copy them */
            got = fn_mover_room(m, m->piped);
            if (got < 0) return got;
            FN_RETRY(got, read(m->pipe_out, m->buffer, m->piped));
            if (fn_mover_held(m, got) < 0) return got;
            m->piped = 0;
        }
    }
    return fn_copy_in(m, sock, file, offset, count);
}

#endif
