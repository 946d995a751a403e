/* A batch of datagrams, taken by one recvmmsg(2); fn_replies.h answers it.

Facts. A system call costs more than a small datagram. With UDP_GRO a train of datagrams that were joined on the way arrives
whole, with the size to cut it by (udp(7)). A buffer that is too short truncates silently unless one looks at MSG_TRUNC.
SO_RXQ_OVFL tells how many the kernel has dropped since the socket was made.
Decision: every buffer takes the largest train, so nothing is truncated that could be held.
Cost: 4 MiB of address space, of which a server of small datagrams touches 64 pages. */
#ifndef FN_DATAGRAM_H
#define FN_DATAGRAM_H

#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "fn_access.h"
#include "fn_slots.h"
#include "fn_work.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    FN_BATCH = 64,
    FN_DATAGRAM_STRIDE = 65536 + 320, /* no power of two, or all buffers would compete for the same cache sets */
    FN_DATAGRAM_ROOM = 65536,
    FN_DATAGRAM_BYTES_MAX = 65507,
    FN_TRAIN_MAX = 64,
    FN_PIECES = 1024,
    FN_CALLS = 256, /* datagrams given to a service at once */
    FN_PORT_UNPRIVILEGED = 1024,
    FN_SEND_PATIENCE_MS = 10
};

struct fn_train {
    uint32_t peer, segment, segments, bytes, first, pieces;
    int ended; /* its last datagram is shorter than the others, so nothing may follow */
};

struct fn_batch {
    int fd;
    const struct fn_work *work;
    struct fn_counters *row;
    uint16_t port;            /* our own, in network order */
    uint32_t join_bytes_max;  /* longest datagram that may be joined; 0: none */
    uint32_t drops;           /* what the kernel had dropped when it last told */
    char *memory;
    uint32_t trains, pieces, replies;
    int taken;
    struct mmsghdr in[FN_BATCH], out[FN_BATCH];
    struct iovec room[FN_BATCH], piece[FN_PIECES];
    struct sockaddr_storage peer[FN_BATCH];
    struct fn_train train[FN_BATCH];
    struct fn_reply reply[FN_PIECES];
    struct fn_calls calls;
    struct fn_call call[FN_CALLS];
    char in_control[FN_BATCH][CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(int))];
    char out_control[FN_BATCH][CMSG_SPACE(sizeof(uint16_t))];
};

/* A batch for a bound socket. Returns NULL without memory. */
static inline struct fn_batch *fn_batch_open(const struct fn_work *work, int fd) {
    struct sockaddr_storage own;
    socklen_t size = sizeof own;
    int one = 1;
    struct fn_batch *batch = fn_map(sizeof *batch);
    if (!batch) return NULL;
    batch->fd = fd, batch->work = work, batch->row = fn_row(work, 0);
    batch->join_bytes_max = FN_DATAGRAM_BYTES_MAX, batch->taken = FN_BATCH;
    batch->calls = (struct fn_calls){.call = batch->call, .row = batch->row};
    batch->memory = fn_map((size_t)FN_BATCH * FN_DATAGRAM_STRIDE);
    if (!batch->memory) {
        fn_unmap(batch, sizeof *batch);
        return NULL;
    }
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one);
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one); /* without it trains come cut, which is as right */
    if (getsockname(fd, (struct sockaddr *)&own, &size) == 0)
        batch->port = own.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&own)->sin6_port : ((struct sockaddr_in *)&own)->sin_port;
    return batch;
}

static inline void fn_batch_close(struct fn_batch *batch) {
    if (!batch) return;
    fn_unmap(batch->memory, (size_t)FN_BATCH * FN_DATAGRAM_STRIDE);
    fn_unmap(batch, sizeof *batch);
}

/* Whether a peer is not to be answered: it is not let in, or it is a port that answers by itself, and would do so for ever. */
static inline int fn_batch_ignores(const struct fn_batch *batch, const struct sockaddr_storage *peer) {
    uint16_t port = peer->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)peer)->sin6_port
                                                : ((const struct sockaddr_in *)peer)->sin_port;
    if (!batch->work->answer_any_port && (port == batch->port || ntohs(port) < FN_PORT_UNPRIVILEGED)) return 1;
    return !fn_access_allows(&batch->work->access, peer);
}

/* One recvmmsg(2) of `most` messages, without waiting. Returns how many there were or -errno (-EAGAIN: nothing is queued). */
static inline int fn_batch_take(struct fn_batch *batch, unsigned int most) {
    int n;
    for (int i = 0; i < batch->taken; i++) {
        batch->room[i] = (struct iovec){batch->memory + (size_t)i * FN_DATAGRAM_STRIDE, FN_DATAGRAM_ROOM};
        batch->in[i].msg_hdr = (struct msghdr){.msg_name = &batch->peer[i], .msg_namelen = sizeof batch->peer[i],
                                               .msg_iov = &batch->room[i], .msg_iovlen = 1,
                                               .msg_control = batch->in_control[i],
                                               .msg_controllen = sizeof batch->in_control[i]};
    }
    FN_RETRY(n, recvmmsg(batch->fd, batch->in, most, MSG_DONTWAIT, NULL));
    batch->taken = n > 0 ? n : 0; /* only what a call has written must be made anew for the next */
    return n;
}

/* Count message i of a batch and look what it is: its bytes, and the size to cut them by. Returns NULL if it is not to be
   given to the service. */
static inline char *fn_batch_train(struct fn_batch *batch, uint32_t i, uint32_t *bytes, uint32_t *segment) {
    struct msghdr *header = &batch->in[i].msg_hdr;
    struct fn_counters *row = batch->row;
    uint32_t n = *bytes = *segment = batch->in[i].msg_len, datagrams;
    for (struct cmsghdr *note = CMSG_FIRSTHDR(header); note; note = CMSG_NXTHDR(header, note)) {
        if (note->cmsg_level == IPPROTO_UDP && note->cmsg_type == UDP_GRO) memcpy(segment, CMSG_DATA(note), sizeof *segment);
        if (note->cmsg_level == SOL_SOCKET && note->cmsg_type == SO_RXQ_OVFL) {
            uint32_t drops;
            memcpy(&drops, CMSG_DATA(note), sizeof drops);
            fn_count(&row->kernel_drops, drops - batch->drops);
            batch->drops = drops;
        }
    }
    datagrams = n ? (n + *segment - 1) / *segment : 1;
    fn_count(&row->messages, datagrams);
    fn_count(&row->bytes_in, n);
    if (header->msg_flags & MSG_TRUNC)
        fn_count(&row->truncated, 1);
    else if (fn_batch_ignores(batch, &batch->peer[i]))
        fn_count(&row->unanswered, datagrams);
    else
        return batch->room[i].iov_base;
    return NULL;
}

#endif
