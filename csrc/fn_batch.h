/* A batch of datagrams, taken by one recvmmsg(2); fn_batch_reply.h answers it.
 *
 * Facts. A system call costs more than a small datagram. With UDP_GRO a train of datagrams that
 * were joined on the way arrives whole, with the size to cut it by (udp(7)). A buffer that is too
 * short truncates silently unless one looks at MSG_TRUNC. SO_RXQ_OVFL tells how many the kernel has
 * dropped since the socket was made. Unix sockets (unix(7)) know neither: they drop nothing, take
 * the notes that UDP cuts a train by for none of theirs, and give a peer without a name no address
 * at all.
 * Decision: every buffer takes the largest train or datagram, so nothing is truncated that could be
 * held. What a socket can do is asked of the socket.
 * Cost: 4 MiB of address space, 16 for a Unix socket, of which a server of small datagrams touches
 * 64 pages. */
#ifndef FN_DATAGRAM_H
#define FN_DATAGRAM_H

#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "fn_access.h"
#include "fn_slots.h"
#include "fn_context.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    FN_BATCH = 64,
    FN_STRIDE_MORE = 320, /* no power of two between buffers, or all would compete for the same cache sets */
    FN_TRAIN_MAX = 64,
    FN_TRAIN_ROOM = 65536,
    FN_PIECES = 1024,
    FN_CALLS = 256 /* datagrams given to a service in one call */
};

struct fn_train {
    uint32_t peer, segment, segments, bytes, first, pieces;
    int ended; /* its last datagram is shorter than the others, so nothing may follow */
};

struct fn_batch {
    int fd;
    const struct fn_context *context;
    struct fn_counters *row;
    int local;                /* a Unix socket */
    struct sockaddr_storage own;
    socklen_t own_bytes;
    uint32_t room_bytes;      /* of each buffer */
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

static inline size_t fn_batch_memory_bytes(const struct fn_batch *batch) {
    return (size_t)FN_BATCH * (batch->room_bytes + FN_STRIDE_MORE);
}

/* A batch for a bound socket. joins: trains are taken whole, and made. Returns NULL without memory.
 */
static inline struct fn_batch *fn_batch_open(const struct fn_context *context, int fd, int joins) {
    int one = 1;
    socklen_t size = sizeof one;
    struct fn_batch *batch = fn_map(sizeof *batch);
    if (!batch) return NULL;
    batch->fd = fd, batch->context = context, batch->row = fn_row(context, 0);
    batch->room_bytes = context->datagram_bytes_max > FN_TRAIN_ROOM ? context->datagram_bytes_max : FN_TRAIN_ROOM;
    batch->taken = FN_BATCH;
    batch->calls = (struct fn_calls){.call = batch->call, .row = batch->row};
    batch->memory = fn_map(fn_batch_memory_bytes(batch));
    if (!batch->memory) {
        fn_unmap(batch, sizeof *batch);
        return NULL;
    }
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one);
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &joins, sizeof joins); /* without it trains come cut, which is as right */
    if (joins && getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &one, &size) == 0) {
        batch->join_bytes_max = context->datagram_bytes_max;
    }
    batch->own_bytes = sizeof batch->own;
    if (getsockname(fd, (struct sockaddr *)&batch->own, &batch->own_bytes) < 0) batch->own_bytes = 0;
    batch->local = batch->own.ss_family == AF_UNIX;
    return batch;
}

static inline void fn_batch_close(struct fn_batch *batch) {
    if (!batch) return;
    fn_unmap(batch->memory, fn_batch_memory_bytes(batch));
    fn_unmap(batch, sizeof *batch);
}

static inline uint16_t fn_port(const struct sockaddr_storage *of) {
    return of->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)of)->sin6_port : ((const struct sockaddr_in *)of)->sin_port;
}

/* How many bytes the name of peer i of a batch has; 0: none, and what is in its place is an older
 * one's. */
static inline uint32_t fn_batch_peer_bytes(const struct fn_batch *batch, uint32_t i) {
    uint32_t bytes = batch->in[i].msg_hdr.msg_namelen;
    if (bytes > sizeof(struct sockaddr_un) && batch->local) return sizeof(struct sockaddr_un); /* a path without its NUL */
    return bytes > offsetof(struct sockaddr_un, sun_path) ? bytes : 0;
}

/* Whether peer i of a batch is not to be heard: it is not let in, or it answers by itself, and
 * would do so for ever. */
static inline int fn_batch_ignores(const struct fn_batch *batch, uint32_t i) {
    const struct sockaddr_storage *peer = &batch->peer[i];
    uint32_t bytes = fn_batch_peer_bytes(batch, i);
    if (batch->local)
        return !batch->context->answer_any_port && bytes == batch->own_bytes && memcmp(peer, &batch->own, bytes) == 0;
    uint16_t port = fn_port(peer);
    if (!batch->context->answer_any_port && (port == fn_port(&batch->own) || ntohs(port) < batch->context->answered_port_min)) return 1;
    return !fn_access_allows(&batch->context->access, peer);
}

/* Make those messages anew that the last call has written. */
static inline void fn_batch_renew(struct fn_batch *batch) {
    for (int i = 0; i < batch->taken; i++) {
        batch->room[i] = (struct iovec){batch->memory + (size_t)i * (batch->room_bytes + FN_STRIDE_MORE), batch->room_bytes};
        batch->in[i].msg_hdr = (struct msghdr){.msg_name = &batch->peer[i], .msg_namelen = sizeof batch->peer[i],
                                               .msg_iov = &batch->room[i], .msg_iovlen = 1,
                                               .msg_control = batch->in_control[i],
                                               .msg_controllen = sizeof batch->in_control[i]};
    }
}

/* One recvmmsg(2) of `most` messages, without waiting. Returns how many there were or -errno
 * (-EAGAIN: nothing is queued). */
static inline int fn_batch_take(struct fn_batch *batch, unsigned int most) {
    int n;
    fn_batch_renew(batch);
    FN_RETRY(n, recvmmsg(batch->fd, batch->in, most, MSG_DONTWAIT, NULL));
    batch->taken = n > 0 ? n : 0;
    return n;
}

/* Count message i of a batch and look what it is: its bytes, and the size to cut them by. Returns
 * NULL if it is not to be given to the service. */
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
    else if (fn_batch_ignores(batch, i))
        fn_count(&row->unanswered, datagrams);
    else
        return batch->room[i].iov_base;
    return NULL;
}

#endif
