/* One datagram at a time: a batch (fn_batch.h) of one, without trains.
 *
 * Facts. recvmsg(2) reports drops and truncation, which recvfrom(2) cannot; sendmsg(2) sends the
 * pieces of a reply from where they are. */
#ifndef FN_BATCH_SINGLE_H
#define FN_BATCH_SINGLE_H

#include "fn_batch_receive.h"
#include "fn_batch_reply.h"

/* One recvmsg(2), without blocking. Returns 1 or -errno (-EAGAIN: none is queued). */
static inline int fn_batch_single_receive(struct fn_batch *batch) {
    ssize_t n;
    fn_batch_reset(batch);
    FN_RETRY(n, recvmsg(batch->fd, &batch->in[0].msg_hdr, MSG_DONTWAIT));
    batch->received = n >= 0;
    if (n < 0) {
        return (int)n;
    }
    batch->in[0].msg_len = (unsigned)n;
    return 1;
}

/* Send the reply to the received datagram, a request of `request` bytes, immediately. */
static inline void fn_batch_single_reply(struct fn_batch *batch, const struct fn_reply *reply,
                                         size_t request) {
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    struct msghdr message = {.msg_name = &batch->peer[0],
                             .msg_namelen = fn_batch_peer_bytes(batch, 0),
                             .msg_iov = (struct iovec *)reply->part,
                             .msg_iovlen = (size_t)reply->parts};
    size_t bytes = fn_batch_reply_bytes(reply);
    ssize_t n;
    if (!fn_batch_reply_allowed(batch, 0, bytes, request)) {
        return;
    }
    FN_RETRY(n, sendmsg(batch->fd, &message, flags));
    if (n == -EAGAIN && fn_batch_await_room(batch)) {
        FN_RETRY(n, sendmsg(batch->fd, &message, flags));
    }
    if (n < 0) {
        fn_count(&batch->row->unsent, 1);
        return;
    }
    fn_count(&batch->row->replies, 1);
    fn_count(&batch->row->bytes_out, bytes);
}

#endif
