/* Sends the replies that wait, in trains (fn_batch.h), by one sendmmsg(2).
 *
 * Facts. UDP_SEGMENT lets one message carry up to 64 datagrams of one size, of which the last may
 * be shorter, and the kernel cuts it as late as it can (udp(7)). A segment must fit the MTU, or it
 * is EINVAL or EMSGSIZE; some devices report EIO.
 * Decision: a train that the kernel refuses is sent again datagram by datagram, and what was
 * refused for its size, or anything after EIO, is not joined any more. A reply that finds no room
 * in the send buffer waits up to send_timeout_ms, and is then dropped and counted, as a network
 * would do; over a Unix socket it is dropped immediately, for there it is the queue of that peer
 * that is full, or all of our buffer with what other peers do not read. */
#ifndef FN_BATCH_SEND_H
#define FN_BATCH_SEND_H

#include "fn_batch.h"

/* Send one train datagram by datagram. Returns how many the kernel took. */
static inline uint32_t fn_batch_send_apart(struct fn_batch *batch, const struct fn_train *train) {
    const struct iovec *from = &batch->piece[train->first];
    size_t within = 0;
    uint32_t sent = 0;
    uint32_t left = train->bytes;
    while (left) {
        struct iovec part[FN_BATCH];
        struct msghdr message = batch->out[train - batch->train].msg_hdr;
        uint32_t size = left < train->segment ? left : train->segment;
        uint32_t filled = 0;
        int parts = 0;
        while (filled < size && parts < FN_BATCH) {
            size_t n = from->iov_len - within;
            if (n > size - filled) {
                n = size - filled;
            }
            part[parts++] = (struct iovec){(char *)from->iov_base + within, n};
            filled += (uint32_t)n;
            within += n;
            if (within == from->iov_len) {
                from++;
                within = 0;
            }
        }
        message.msg_iov = part;
        message.msg_iovlen = (size_t)parts;
        message.msg_control = NULL;
        message.msg_controllen = 0;
        if (sendmsg(batch->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            sent++;
        }
        left -= filled;
    }
    return sent;
}

/* Count the datagrams of a train of which `sent` were sent. */
static inline void fn_batch_count_train(struct fn_batch *batch, const struct fn_train *train,
                                        uint32_t sent) {
    uint64_t bytes = sent == train->segments ? train->bytes : (uint64_t)sent * train->segment;
    fn_count(&batch->row->replies, sent);
    fn_count(&batch->row->unsent, train->segments - sent);
    fn_count(&batch->row->bytes_out, bytes);
}

/* The send buffer is full: wait for room, except on a Unix socket. Returns whether there is some.
 */
static inline int fn_batch_await_room(const struct fn_batch *batch) {
    struct pollfd room = {.fd = batch->fd, .events = POLLOUT};
    return !batch->local && fn_poll(&room, 1, (int)batch->context->send_timeout_ms) > 0;
}

/* The kernel refused a train. Returns how many of its datagrams were sent another way. */
static inline uint32_t fn_batch_retry_train(struct fn_batch *batch, const struct fn_train *train,
                                            int error) {
    if (error == EAGAIN) {
        return fn_batch_await_room(batch) ? fn_batch_send_apart(batch, train) : 0;
    }
    if (train->segments == 1) {
        return 0;
    }
    if (error == EIO) {
        batch->join_bytes_max = 0;
    }
    if (error == EINVAL || error == EMSGSIZE) {
        batch->join_bytes_max = train->segment - 1;
    }
    return fn_batch_send_apart(batch, train);
}

/* Make the message of train i. */
static inline void fn_batch_fill_message(struct fn_batch *batch, uint32_t i) {
    const struct fn_train *train = &batch->train[i];
    struct msghdr *header = &batch->out[i].msg_hdr;
    *header = (struct msghdr){.msg_name = &batch->peer[train->peer],
                              .msg_namelen = fn_batch_peer_bytes(batch, train->peer),
                              .msg_iov = &batch->piece[train->first],
                              .msg_iovlen = train->pieces};
    if (train->segments == 1) {
        return;
    }
    header->msg_control = batch->out_control[i];
    header->msg_controllen = sizeof batch->out_control[i];
    struct cmsghdr *control = CMSG_FIRSTHDR(header);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    *(uint16_t *)CMSG_DATA(control) = (uint16_t)train->segment;
}

/* Send all replies that wait. */
static inline void fn_batch_flush(struct fn_batch *batch) {
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    uint32_t at = 0;
    for (uint32_t i = 0; i < batch->trains; i++) {
        fn_batch_fill_message(batch, i);
    }
    while (at < batch->trains) {
        int n;
        FN_RETRY(n, sendmmsg(batch->fd, batch->out + at, batch->trains - at, flags));
        for (int i = 0; i < n; i++) {
            fn_batch_count_train(batch, &batch->train[at], batch->train[at].segments);
            at++;
        }
        if (n < 0) {
            const struct fn_train *train = &batch->train[at];
            fn_batch_count_train(batch, train, fn_batch_retry_train(batch, train, -n));
            at++;
        }
    }
    batch->trains = 0;
    batch->pieces = 0;
    batch->replies = 0;
}

#endif
