/* Receives a batch of datagrams by one recvmmsg(2), and reads what came with each message.
 *
 * Facts. The kernel overwrites the lengths in a message header, so a header is reset before it is
 * used again. Two servers that reply to each other's datagrams would never stop (RFC 862, 864).
 * Decision: only the headers that the last call has written are reset. */
#ifndef FN_BATCH_RECEIVE_H
#define FN_BATCH_RECEIVE_H

#include "fn_access.h"
#include "fn_batch.h"

/* The port of an IPv4 or IPv6 address, in network byte order. */
static inline uint16_t fn_batch_port(const struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET6) {
        return ((const struct sockaddr_in6 *)address)->sin6_port;
    }
    return ((const struct sockaddr_in *)address)->sin_port;
}

/* Whether peer i of a batch gets no reply: the access list denies it, or it replies by itself and
 * the exchange would never end. */
static inline int fn_batch_ignores(const struct fn_batch *batch, uint32_t i) {
    const struct fn_context *context = batch->context;
    const struct sockaddr_storage *peer = &batch->peer[i];
    uint32_t bytes = fn_batch_peer_bytes(batch, i);
    if (batch->local) {
        return !context->answer_any_port && bytes == batch->own_bytes &&
               memcmp(peer, &batch->own, bytes) == 0;
    }
    uint16_t port = fn_batch_port(peer);
    if (!context->answer_any_port) {
        if (port == fn_batch_port(&batch->own) || ntohs(port) < context->answered_port_min) {
            return 1;
        }
    }
    return !fn_access_allows(&context->access, peer);
}

/* Reset those messages that the last call has written. */
static inline void fn_batch_reset(struct fn_batch *batch) {
    size_t stride = batch->buffer_bytes + FN_BUFFER_SKEW;
    for (int i = 0; i < batch->received; i++) {
        batch->buffer[i] = (struct iovec){batch->memory + (size_t)i * stride, batch->buffer_bytes};
        batch->in[i].msg_hdr = (struct msghdr){.msg_name = &batch->peer[i],
                                               .msg_namelen = sizeof batch->peer[i],
                                               .msg_iov = &batch->buffer[i],
                                               .msg_iovlen = 1,
                                               .msg_control = batch->in_control[i],
                                               .msg_controllen = sizeof batch->in_control[i]};
    }
}

/* One recvmmsg(2) of up to messages_max, without blocking. Returns how many were received or -errno
 * (-EAGAIN: none is queued). */
static inline int fn_batch_receive(struct fn_batch *batch, unsigned int messages_max) {
    int n;
    fn_batch_reset(batch);
    FN_RETRY(n, recvmmsg(batch->fd, batch->in, messages_max, MSG_DONTWAIT, NULL));
    batch->received = n > 0 ? n : 0;
    return n;
}

/* Read the control messages of message i: count kernel drops. Returns the segment size of a train,
 * or `bytes` for a single datagram. */
static inline uint32_t fn_batch_control(struct fn_batch *batch, uint32_t i, uint32_t bytes) {
    struct msghdr *header = &batch->in[i].msg_hdr;
    uint32_t drops, segment = bytes;
    struct cmsghdr *control;
    for (control = CMSG_FIRSTHDR(header); control; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            memcpy(&segment, CMSG_DATA(control), sizeof segment);
        }
        if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SO_RXQ_OVFL) {
            memcpy(&drops, CMSG_DATA(control), sizeof drops);
            fn_count(&batch->row->kernel_drops, drops - batch->drops);
            batch->drops = drops;
        }
    }
    return segment;
}

/* Count message i and its datagrams. Returns its bytes, their number in *bytes and the size to cut
 * them by in *segment; NULL if the service must not get it (truncated, or its peer is ignored). */
static inline char *fn_batch_message(struct fn_batch *batch, uint32_t i, uint32_t *bytes,
                                     uint32_t *segment) {
    struct fn_counters *row = batch->row;
    uint32_t n = batch->in[i].msg_len;
    uint32_t datagrams = 1;
    *bytes = n;
    *segment = fn_batch_control(batch, i, n);
    if (n) {
        datagrams = (n + *segment - 1) / *segment;
    }
    fn_count(&row->messages, datagrams);
    fn_count(&row->bytes_in, n);
    if (batch->in[i].msg_hdr.msg_flags & MSG_TRUNC) {
        fn_count(&row->truncated, 1);
        return NULL;
    }
    if (fn_batch_ignores(batch, i)) {
        fn_count(&row->unanswered, datagrams);
        return NULL;
    }
    return batch->buffer[i].iov_base;
}

#endif
