/* A native service as a table of functions: bytes in, replies out (contract: service/contract.py).
 *
 * A service never touches a socket. Each function fills in a reply: up to two pieces to send, in
 * order, and whether the stream ends after them. The pieces need to live only until the caller has
 * sent or copied them, unless FN_REPLY_STATIC says that they outlive the connection, which spares
 * the copy. */
#ifndef FN_SERVICE_H
#define FN_SERVICE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    FN_REPLY_END = 1,   /* nothing follows: half-close once the pieces are sent */
    FN_REPLY_STATIC = 2 /* the pieces stay where they are for the life of the service */
};

#define FN_SCRATCH_BYTES 64

struct fn_reply {
    struct iovec part[2];           /* the pieces, in order */
    int parts;                      /* how many */
    int flags;                      /* FN_REPLY_END, FN_REPLY_STATIC */
    char scratch[FN_SCRATCH_BYTES]; /* room for a piece that is formatted in place */
};

struct fn_counters;
struct sockaddr_storage;

/* One datagram of a batch and its reply: the pieces are sent as one datagram, no piece as none. */
struct fn_call {
    char *bytes;
    size_t n;
    const struct sockaddr_storage *peer;
    uint32_t peer_bytes; /* length of the address; 0: a Unix socket that is not bound */
    struct fn_reply reply;
};

/* The datagrams of a batch. */
struct fn_calls {
    struct fn_call *call;
    uint32_t n;
    struct fn_counters *row;
    void *kept; /* the service's own, for this loop: what the replies of the last call refer to */
};

struct fn_service {
    /* A connection was made. NULL: no output before input. */
    void (*open)(const struct fn_service *, struct fn_reply *);
    /* n bytes were received. NULL: input is discarded, without a copy where the kernel can. */
    void (*data)(const struct fn_service *, char *bytes, size_t n, struct fn_reply *);
    /* All output so far has been sent. NULL: no output until there is input. */
    void (*sent)(const struct fn_service *, struct fn_reply *);
    /* The peer half-closed. NULL: half-close too; without `sent` also after this reply. */
    void (*eof)(const struct fn_service *, struct fn_reply *);
    /* A datagram of n bytes was received. NULL: no reply ever. */
    void (*datagram)(const struct fn_service *, char *bytes, size_t n, struct fn_reply *);
    /* The datagrams of a batch in one call, for a service with work to do once a batch; it takes
     * precedence over `datagram`. What the replies refer to stays until the next call. The last
     * call has n = 0: release everything. */
    void (*batch)(const struct fn_service *, struct fn_calls *);
    const char *text;  /* a constant of the service: suffix or block */
    size_t text_bytes;
    void *own;         /* other state of the service */
};

/* Append a piece to a reply. */
static inline void fn_reply_add(struct fn_reply *reply, const char *bytes, size_t n) {
    reply->part[reply->parts].iov_base = (char *)bytes;
    reply->part[reply->parts].iov_len = n;
    reply->parts++;
}

#endif
