/* What is done with the bytes: a native service is one of these tables (the contract is
 * service/contract.py).
 *
 * A service never touches a socket. Each function fills a reply: up to two pieces to send, in
 * order, and whether the stream then ends. The pieces need to live only until the function's caller
 * has sent or parked them, unless FN_STABLE says that they outlive the connection, which spares the
 * copy. */
#ifndef FN_SERVICE_H
#define FN_SERVICE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    FN_END = 1,   /* nothing follows: half-close once the pieces are out */
    FN_STABLE = 2 /* the pieces stay where they are for the life of the service */
};

#define FN_SCRATCH_BYTES 64

struct fn_reply {
    struct iovec part[2];
    int parts;
    int flags;
    char scratch[FN_SCRATCH_BYTES]; /* room for a piece made on the spot */
};

struct fn_counters;
struct sockaddr_storage;

/* One datagram of a batch, and the answer to it: what is added to the reply is one datagram back,
 * without any none. */
struct fn_call {
    char *bytes;
    size_t n;
    const struct sockaddr_storage *peer;
    uint32_t peer_bytes; /* of its name; 0: a Unix socket without one */
    struct fn_reply reply;
};

struct fn_calls {
    struct fn_call *call;
    uint32_t n;
    struct fn_counters *row;
    void *kept; /* the service's, for this loop: what the replies of the last call are made of */
};

struct fn_service {
    /* A connection was made. NULL: nothing to say. */
    void (*open)(const struct fn_service *, struct fn_reply *);
    /* n bytes arrived. NULL: input is dropped, unread if the kernel can do that. */
    void (*data)(const struct fn_service *, char *bytes, size_t n, struct fn_reply *);
    /* All that was ordered is out. NULL: wait for input. */
    void (*sent)(const struct fn_service *, struct fn_reply *);
    /* The peer half-closed. NULL: so do we; and without `sent` too, once this answer is out. */
    void (*eof)(const struct fn_service *, struct fn_reply *);
    /* A datagram of n bytes arrived; what is added is one datagram back, and without any none.
     * NULL: none ever. */
    void (*datagram)(const struct fn_service *, char *bytes, size_t n, struct fn_reply *);
    /* The datagrams of a batch at once, for a service that has something to do once a batch; it
     * goes before `datagram`. What the replies are made of stays until the next call. The last one
     * has n = 0: let go of everything. */
    void (*batch)(const struct fn_service *, struct fn_calls *);
    const char *text;
    size_t text_bytes;
    void *own; /* whatever else the service is made of */
};

static inline void fn_reply_add(struct fn_reply *reply, const char *bytes, size_t n) {
    reply->part[reply->parts].iov_base = (char *)bytes;
    reply->part[reply->parts].iov_len = n;
    reply->parts++;
}

#endif
