/* Slices of a mover: steps and waits for the socket, for a bounded time without the GIL.
 *
 * Facts. On loopback packets of 64 KiB arrive one by one; waking for every packet costs four times
 * the system calls of waking for every fourth. poll(2) obeys SO_RCVLOWAT on TCP sockets, and
 * reports the end of the stream whatever it says (tcp(7), socket(7)).
 * Decision: a file waits for MOVER_WAKE_BYTES, or for the rest of the extent, at most until the
 * slice is over. The pure twin is mover/copy_py.py. */
#ifndef FN_MOVER_SLICE_H
#define FN_MOVER_SLICE_H

#include "fn_clock.h"
#include "fn_mover.h"

/* Wait until a pipe is ready. Returns 0, or -errno when the connection fails meanwhile. */
static inline int fn_pipe_wait(int pipe_fd, short event, int sock, int timeout_ms) {
    struct pollfd ask[2] = {{.fd = pipe_fd, .events = event}, {.fd = sock}};
    int ready = fn_poll(ask, 2, timeout_ms), code = 0;
    socklen_t size = sizeof code;
    if (ready < 0) return ready;
    if (!ask[1].revents) return 0;
    getsockopt(sock, SOL_SOCKET, SO_ERROR, &code, &size);
    return code ? -code : -EPIPE;
}

/* Set SO_RCVLOWAT, so that poll(2) reports the socket readable from this many bytes, or at its end
 * (socket(7)). */
static inline void fn_mover_low_water(struct fn_mover *m, int sock, int bytes) {
    if (bytes == m->low_water || (bytes <= 1 && m->low_water <= 1)) return;
    setsockopt(sock, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof bytes);
    m->low_water = bytes;
}

/* Steps and waits until count bytes are moved, the source ends (*ended) or slice_ms is over. out:
 * file to socket. Returns 0 or -errno; *moved counts in either case. */
static inline int fn_move_slice(struct fn_mover *m, fn_step step, int out, int sock, int file,
                                int64_t offset, uint64_t count, uint32_t slice_ms, uint64_t *moved,
                                int *ended) {
    uint64_t ends = fn_now_ns() + slice_ms * 1000000ull, now;
    short sock_event = out ? POLLOUT : POLLIN, pipe_event = out ? POLLIN : POLLOUT;
    while (*moved < count) {
        m->waits_for_pipe = 0;
        int64_t at = offset == FN_NO_OFFSET ? FN_NO_OFFSET : offset + (int64_t)*moved;
        ssize_t n = step(m, sock, file, at, count - *moved);
        if (n > 0) {
            *moved += (uint64_t)n;
            fn_mover_moved(m, (size_t)n);
        } else if (n != -EAGAIN) {
            *ended = n == 0;
            return (int)n;
        }
        now = fn_now_ns();
        if (now >= ends) break;
        if (n > 0) continue;
        int left_ms = (int)((ends - now + 999999) / 1000000), result;
        if (!out && offset != FN_NO_OFFSET) {
            fn_mover_low_water(m, sock, (int)fn_least(count - *moved, m->wake_bytes));
        }
        if (m->waits_for_pipe) {
            result = fn_pipe_wait(file, pipe_event, sock, left_ms);
        } else {
            struct pollfd ask = {.fd = sock, .events = sock_event};
            result = fn_poll(&ask, 1, left_ms);
        }
        if (result < 0) return result;
    }
    return 0;
}

/* fn_move_slice, and SO_RCVLOWAT set back. */
static inline int fn_move_some(struct fn_mover *m, fn_step step, int out, int sock, int file,
                               int64_t offset, uint64_t count, uint32_t slice_ms, uint64_t *moved,
                               int *ended) {
    int result;
    result = fn_move_slice(m, step, out, sock, file, offset, count, slice_ms, moved, ended);
    fn_mover_low_water(m, sock, 1);
    return result;
}

#endif
