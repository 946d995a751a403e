/* Queues the replies to a batch of datagrams and joins them into trains (fn_batch.h).
 *
 * Decision: consecutive replies to one peer and of one size are joined. Their bytes are never
 * copied, and adjacent pieces become one. fn_batch_send.h sends them.
 * Cost: a comparison of two addresses for each reply. */
#ifndef FN_BATCH_REPLY_H
#define FN_BATCH_REPLY_H

#include "fn_batch_send.h"

/* Whether messages a and b of a batch have one sender. */
static inline int fn_batch_same_peer(const struct fn_batch *batch, uint32_t a, uint32_t b) {
    socklen_t size = batch->in[a].msg_hdr.msg_namelen;
    if (a == b) {
        return 1;
    }
    return size == batch->in[b].msg_hdr.msg_namelen &&
           memcmp(&batch->peer[a], &batch->peer[b], size) == 0;
}

/* Whether a reply of `bytes` to a request of `request` bytes may be sent to a peer; counted if
 * not. The last rule bounds amplification towards an unvalidated address. */
static inline int fn_batch_reply_allowed(struct fn_batch *batch, uint32_t peer, size_t bytes,
                                         size_t request) {
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

/* Whether a reply of `bytes` to a peer may follow in a train. */
static inline int fn_batch_train_accepts(const struct fn_batch *batch, const struct fn_train *train,
                                         uint32_t peer, uint32_t bytes) {
    if (train->ended || train->segments == FN_TRAIN_SEGMENTS) {
        return 0;
    }
    if (bytes == 0 || bytes > train->segment || bytes > batch->join_bytes_max) {
        return 0;
    }
    if (train->bytes + bytes > batch->context->datagram_bytes_max) {
        return 0;
    }
    return fn_batch_same_peer(batch, train->peer, peer);
}

/* Append a piece to the last train; one that is adjacent to its last piece lengthens it. */
static inline void fn_batch_add_piece(struct fn_batch *batch, struct fn_train *train,
                                      const struct iovec *piece) {
    if (train->pieces) {
        struct iovec *last = &batch->piece[batch->pieces - 1];
        if ((char *)last->iov_base + last->iov_len == (char *)piece->iov_base) {
            last->iov_len += piece->iov_len;
            return;
        }
    }
    batch->piece[batch->pieces++] = *piece;
    train->pieces++;
}

static inline size_t fn_batch_reply_bytes(const struct fn_reply *reply) {
    size_t bytes = 0;
    for (int i = 0; i < reply->parts; i++) {
        bytes += reply->part[i].iov_len;
    }
    return bytes;
}

/* Queue the reply to a request of `request` bytes: at the end of the last train if it fits there,
 * or as the first of a new one. */
static inline void fn_batch_add_reply(struct fn_batch *batch, uint32_t peer,
                                      const struct fn_reply *reply, size_t request) {
    struct fn_train *train = NULL;
    size_t all = fn_batch_reply_bytes(reply);
    uint32_t bytes = (uint32_t)all;
    if (!fn_batch_reply_allowed(batch, peer, all, request)) {
        return;
    }
    if (batch->trains == FN_BATCH || batch->pieces + 2 > FN_PIECES) {
        fn_batch_flush(batch);
    }
    if (batch->trains) {
        train = &batch->train[batch->trains - 1];
    }
    if (!train || !fn_batch_train_accepts(batch, train, peer, bytes)) {
        train = &batch->train[batch->trains++];
        *train = (struct fn_train){.peer = peer, .segment = bytes, .first = batch->pieces};
        train->ended = bytes == 0;
    }
    train->ended |= bytes < train->segment;
    train->segments++;
    train->bytes += bytes;
    for (int i = 0; i < reply->parts; i++) {
        fn_batch_add_piece(batch, train, &reply->part[i]);
    }
}

#endif
