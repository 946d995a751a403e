/* A batch of datagrams: its memory, its socket, the senders' names. fn_batch_receive.h fills it,
 * fn_batch_reply.h and fn_batch_send.h answer it.
 *
 * A train is a UDP GSO/GRO segment train (udp(7), UDP_SEGMENT and UDP_GRO): datagrams of one peer
 * in one message, all of one size but the last, which may be shorter.
 *
 * Facts. A system call costs more than a small datagram. With UDP_GRO a train arrives whole, with
 * its segment size in a control message. A buffer that is too short truncates silently unless
 * MSG_TRUNC is checked. SO_RXQ_OVFL reports how many datagrams the kernel has dropped since the
 * socket was made. Unix sockets (unix(7)) have neither: they drop nothing, send no control messages
 * of UDP, and give a peer without a name no address at all.
 * Decision: every buffer holds the largest train or datagram, so nothing is truncated that could be
 * held. Support for trains is probed on the socket.
 * Cost: 4 MiB of address space, 16 for a Unix socket, of which a server of small datagrams touches
 * 64 pages. */
#ifndef FN_BATCH_H
#define FN_BATCH_H

#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/un.h>

#include "fn_context.h"
#include "fn_sys.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    FN_BATCH = 64,           /* messages of one recvmmsg(2) */
    FN_BUFFER_SKEW = 320,    /* between buffers: a power of two apart they would share cache sets */
    FN_TRAIN_SEGMENTS = 64,  /* datagrams of a train, at most (UDP_MAX_SEGMENTS) */
    FN_TRAIN_BUFFER = 65536, /* holds the longest train */
    FN_PIECES = 1024,        /* pieces of replies that wait for a flush */
    FN_CALLS = 256           /* datagrams given to a service in one call */
};

/* Replies that leave in one message. */
struct fn_train {
    uint32_t peer;     /* message of the batch whose sender they go to */
    uint32_t segment;  /* bytes of each datagram but the last */
    uint32_t segments; /* datagrams */
    uint32_t bytes;    /* of all together */
    uint32_t first;    /* its first piece */
    uint32_t pieces;
    int ended; /* its last datagram is shorter than the others, so none may follow */
};

struct fn_batch {
    int fd;
    const struct fn_context *context;
    struct fn_counters *row;
    int local;                   /* a Unix socket */
    struct sockaddr_storage own; /* the socket's own name */
    socklen_t own_bytes;
    uint32_t buffer_bytes;       /* of each receive buffer */
    uint32_t join_bytes_max;     /* longest datagram that may be joined to a train; 0: none */
    uint32_t drops;              /* last value of SO_RXQ_OVFL */
    char *memory;                /* of the receive buffers */
    int received;                /* messages that the last call has written */
    uint32_t trains;             /* that wait for a flush */
    uint32_t pieces;             /* of those trains */
    uint32_t replies;            /* of those trains, when the service is called per datagram */
    struct mmsghdr in[FN_BATCH];
    struct mmsghdr out[FN_BATCH];
    struct iovec buffer[FN_BATCH];
    struct iovec piece[FN_PIECES];
    struct sockaddr_storage peer[FN_BATCH]; /* senders of the messages */
    struct fn_train train[FN_BATCH];
    struct fn_reply reply[FN_PIECES];
    struct fn_calls calls;       /* datagrams collected for a service that takes a batch */
    struct fn_call call[FN_CALLS];
    char in_control[FN_BATCH][CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(int))];
    char out_control[FN_BATCH][CMSG_SPACE(sizeof(uint16_t))];
};

static inline size_t fn_batch_memory_bytes(const struct fn_batch *batch) {
    return (size_t)FN_BATCH * (batch->buffer_bytes + FN_BUFFER_SKEW);
}

/* A batch for a bound socket. joins: trains are received whole (UDP_GRO), and made (UDP_SEGMENT).
 * Returns NULL without memory. */
static inline struct fn_batch *fn_batch_open(const struct fn_context *context, int fd, int joins) {
    int one = 1;
    socklen_t size = sizeof one;
    struct fn_batch *batch = fn_map(sizeof *batch);
    if (!batch) {
        return NULL;
    }
    batch->fd = fd;
    batch->context = context;
    batch->row = fn_row(context, 0);
    batch->buffer_bytes = FN_TRAIN_BUFFER;
    if (context->datagram_bytes_max > batch->buffer_bytes) {
        batch->buffer_bytes = context->datagram_bytes_max;
    }
    batch->received = FN_BATCH;
    batch->calls = (struct fn_calls){.call = batch->call, .row = batch->row};
    batch->memory = fn_map(fn_batch_memory_bytes(batch));
    if (!batch->memory) {
        fn_unmap(batch, sizeof *batch);
        return NULL;
    }
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one);
    setsockopt(fd, IPPROTO_UDP, UDP_GRO, &joins, sizeof joins); /* if refused, trains come cut */
    if (joins && getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &one, &size) == 0) {
        batch->join_bytes_max = context->datagram_bytes_max;
    }
    batch->own_bytes = sizeof batch->own;
    if (getsockname(fd, (struct sockaddr *)&batch->own, &batch->own_bytes) < 0) {
        batch->own_bytes = 0;
    }
    batch->local = batch->own.ss_family == AF_UNIX;
    return batch;
}

static inline void fn_batch_close(struct fn_batch *batch) {
    if (batch) {
        fn_unmap(batch->memory, fn_batch_memory_bytes(batch));
        fn_unmap(batch, sizeof *batch);
    }
}

/* Length of the name of peer i of a batch. 0: it has none, and its place holds an older one's. */
static inline uint32_t fn_batch_peer_bytes(const struct fn_batch *batch, uint32_t i) {
    uint32_t bytes = batch->in[i].msg_hdr.msg_namelen;
    if (bytes > sizeof(struct sockaddr_un) && batch->local) {
        return sizeof(struct sockaddr_un); /* a path without its NUL */
    }
    return bytes > offsetof(struct sockaddr_un, sun_path) ? bytes : 0;
}

#endif
