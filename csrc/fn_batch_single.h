/* One datagram at a time: a batch (fn_batch.h) of one, without trains.
 *
 * Facts. recvmsg(2) tells of drops and truncation, as recvfrom(2) cannot; sendmsg(2) takes the
 * pieces of a reply as they lie. */
#ifndef FN_SINGLE_H
#define FN_SINGLE_H

#include "fn_batch_reply.h"

/* One recvmsg(2), without waiting. Returns 1 or -errno (-EAGAIN: nothing is queued). */
static inline int fn_single_take(struct fn_batch *batch) {
    ssize_t n;
    fn_batch_renew(batch);
    FN_RETRY(n, recvmsg(batch->fd, &batch->in[0].msg_hdr, MSG_DONTWAIT));
    batch->taken = n >= 0;
    if (n < 0) return (int)n;
    batch->in[0].msg_len = (unsigned)n;
    return 1;
}

/* Send the answer to the datagram that was taken, of so many bytes, at once. */
static inline void fn_single_answer(struct fn_batch *batch, const struct fn_reply *reply, size_t request) {
    struct msghdr message = {.msg_name = &batch->peer[0], .msg_namelen = fn_batch_peer_bytes(batch, 0),
                             .msg_iov = (struct iovec *)reply->part, .msg_iovlen = (size_t)reply->parts};
    size_t all = 0;
    ssize_t n;
    for (int i = 0; i < reply->parts; i++) all += reply->part[i].iov_len;
    if (!fn_reply_fits(batch, 0, all, request)) return;
    FN_RETRY(n, sendmsg(batch->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (n == -EAGAIN && fn_reply_may_wait(batch)) {
        FN_RETRY(n, sendmsg(batch->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
    }
    fn_count(n < 0 ? &batch->row->unsent : &batch->row->replies, 1);
    fn_count(&batch->row->bytes_out, n < 0 ? 0 : all);
}

#endif
