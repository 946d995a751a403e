/* The replies to a batch of datagrams: those to one peer joined into trains, all handed over by one
 * sendmmsg(2).
 *
 * Facts. UDP_SEGMENT lets one message carry up to 64 datagrams of one size, of which the last may
 * be shorter, and the kernel cuts it as late as it can (udp(7)). A segment must fit the MTU, or it
 * is EINVAL or EMSGSIZE; some devices say EIO.
 * Decision: replies that follow each other, to one peer and of one size, are joined. What they are
 * made of is never copied, and pieces that lie side by side become one. A train that is refused is
 * sent again datagram by datagram, and what was refused for its size, or anything after EIO, is not
 * joined any more. A reply that finds no room waits for a moment, and is then dropped and counted,
 * as a network would do with it; over a Unix socket at once, for there it is the queue of the one
 * peer that is full, or all of our buffer with what other peers do not read.
 * Cost: a comparison of two addresses for each reply. */
#ifndef FN_REPLIES_H
#define FN_REPLIES_H

#include "fn_batch.h"

/* Send one train datagram by datagram. Returns how many the kernel took. */
static inline uint32_t fn_train_send_apart(struct fn_batch *batch, const struct fn_train *train) {
    const struct iovec *from = &batch->piece[train->first];
    size_t within = 0;
    uint32_t sent = 0, left = train->bytes;
    while (left) {
        struct iovec part[FN_BATCH];
        struct msghdr message = batch->out[train - batch->train].msg_hdr;
        uint32_t size = left < train->segment ? left : train->segment, taken = 0;
        int parts = 0;
        while (taken < size && parts < FN_BATCH) {
            size_t n = from->iov_len - within < size - taken ? from->iov_len - within : size - taken;
            part[parts++] = (struct iovec){(char *)from->iov_base + within, n};
            taken += (uint32_t)n;
            within += n;
            if (within == from->iov_len) from++, within = 0;
        }
        message.msg_iov = part;
        message.msg_iovlen = (size_t)parts;
        message.msg_control = NULL;
        message.msg_controllen = 0;
        if (sendmsg(batch->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) sent++;
        left -= taken;
    }
    return sent;
}

static inline void fn_train_count(struct fn_batch *batch, const struct fn_train *train, uint32_t sent) {
    fn_count(&batch->row->replies, sent);
    fn_count(&batch->row->unsent, train->segments - sent);
    fn_count(&batch->row->bytes_out, sent == train->segments ? train->bytes : (uint64_t)sent * train->segment);
}

/* There was no room: wait for it a moment, if that is what the socket does. */
static inline int fn_reply_may_wait(const struct fn_batch *batch) {
    struct pollfd room = {.fd = batch->fd, .events = POLLOUT};
    return !batch->local && fn_poll(&room, 1, (int)batch->context->send_timeout_ms) > 0;
}

/* The kernel refused a train. Returns how many of its datagrams got out another way. */
static inline uint32_t fn_train_retry(struct fn_batch *batch, const struct fn_train *train, int error) {
    if (error == EAGAIN) return fn_reply_may_wait(batch) ? fn_train_send_apart(batch, train) : 0;
    if (train->segments == 1) return 0;
    if (error == EIO) batch->join_bytes_max = 0;
    if (error == EINVAL || error == EMSGSIZE) batch->join_bytes_max = train->segment - 1;
    return fn_train_send_apart(batch, train);
}

/* Send all replies so far. */
static inline void fn_batch_flush(struct fn_batch *batch) {
    for (uint32_t i = 0; i < batch->trains; i++) {
        struct fn_train *train = &batch->train[i];
        struct msghdr *header = &batch->out[i].msg_hdr;
        *header = (struct msghdr){.msg_name = &batch->peer[train->peer],
                                  .msg_namelen = fn_batch_peer_bytes(batch, train->peer),
                                  .msg_iov = &batch->piece[train->first],
                                  .msg_iovlen = train->pieces};
        if (train->segments == 1) continue;
        header->msg_control = batch->out_control[i];
        header->msg_controllen = sizeof batch->out_control[i];
        struct cmsghdr *note = CMSG_FIRSTHDR(header);
        note->cmsg_level = IPPROTO_UDP;
        note->cmsg_type = UDP_SEGMENT;
        note->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        *(uint16_t *)CMSG_DATA(note) = (uint16_t)train->segment;
    }
    for (uint32_t at = 0; at < batch->trains;) {
        int n;
        FN_RETRY(n, sendmmsg(batch->fd, batch->out + at, batch->trains - at, MSG_DONTWAIT | MSG_NOSIGNAL));
        for (int i = 0; i < n; i++, at++) fn_train_count(batch, &batch->train[at], batch->train[at].segments);
        if (n < 0) {
            fn_train_count(batch, &batch->train[at], fn_train_retry(batch, &batch->train[at], -n));
            at++;
        }
    }
    batch->trains = batch->pieces = batch->replies = 0;
}

static inline int fn_same_peer(const struct fn_batch *batch, uint32_t a, uint32_t b) {
    socklen_t size = batch->in[a].msg_hdr.msg_namelen;
    return a == b || (size == batch->in[b].msg_hdr.msg_namelen && memcmp(&batch->peer[a], &batch->peer[b], size) == 0);
}

/* Whether a reply of so many bytes may go out to a peer that asked with so many; counted if not. */
static inline int fn_reply_fits(struct fn_batch *batch, uint32_t peer, size_t bytes, size_t request) {
    if (!fn_batch_peer_bytes(batch, peer)) {
        fn_count(&batch->row->unanswered, 1);
        return 0;
    }
    if (bytes > batch->context->datagram_bytes_max) {
        fn_count(&batch->row->unsent, 1);
        return 0;
    }
    if (bytes > request && bytes > batch->context->unvalidated_reply_bytes_max) {
        fn_count(&batch->row->amplification_blocked, 1);
        return 0;
    }
    return 1;
}

/* Put a reply behind those that wait: at the end of the last train if it fits there, or as the
 * first of a new one. request: how many bytes it answers. */
static inline void fn_batch_answer(struct fn_batch *batch, uint32_t peer, const struct fn_reply *reply, size_t request) {
    struct fn_train *train;
    size_t all = 0;
    for (int i = 0; i < reply->parts; i++) all += reply->part[i].iov_len;
    if (!fn_reply_fits(batch, peer, all, request)) return;
    if (batch->trains == FN_BATCH || batch->pieces + 2 > FN_PIECES) fn_batch_flush(batch);
    train = batch->trains ? &batch->train[batch->trains - 1] : NULL;
    uint32_t bytes = (uint32_t)all;
    if (!train || train->ended || bytes == 0 || bytes > train->segment || bytes > batch->join_bytes_max ||
        train->segments == FN_TRAIN_MAX || train->bytes + bytes > batch->context->datagram_bytes_max || !fn_same_peer(batch, train->peer, peer)) {
        train = &batch->train[batch->trains++];
        *train = (struct fn_train){.peer = peer, .segment = bytes, .first = batch->pieces, .ended = bytes == 0};
    }
    train->ended |= bytes < train->segment;
    train->segments++;
    train->bytes += bytes;
    for (int i = 0; i < reply->parts; i++) {
        struct iovec *last = train->pieces ? &batch->piece[batch->pieces - 1] : NULL;
        if (last && (char *)last->iov_base + last->iov_len == (char *)reply->part[i].iov_base) {
            last->iov_len += reply->part[i].iov_len;
            continue;
        }
        batch->piece[batch->pieces++] = reply->part[i];
        train->pieces++;
    }
}

#endif
