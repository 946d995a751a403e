/* Access list: networks whose peers are admitted or rejected, deny before allow.
 *
 * IPv4 addresses are matched as IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2). An IPv6
 * network with a prefix shorter than theirs, ::/0 above all, matches no IPv4 peer.
 * The pure twin is transport/access.py. */
#ifndef FN_ACCESS_H
#define FN_ACCESS_H

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* One network, as transport/access.py packs it. */
struct fn_network {
    uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
    uint8_t prefix_bits;
    uint8_t allow;       /* 1: admitted, 0: rejected */
};

struct fn_access {
    const struct fn_network *network;
    uint32_t networks;  /* how many; 0: every peer is admitted */
    uint32_t any_allow; /* a network is admitted, so all others are rejected */
};

/* The peer's address as 16 bytes. Returns 0 for a family without addresses (AF_UNIX). */
static inline int fn_access_address(const struct sockaddr_storage *peer, uint8_t out[16]) {
    if (peer->ss_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)peer)->sin6_addr, 16);
        return 1;
    }
    if (peer->ss_family != AF_INET) {
        return 0;
    }
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &((const struct sockaddr_in *)peer)->sin_addr, 4);
    return 1;
}

enum { FN_V4_PREFIX_BITS = 96 };

static inline int fn_access_is_v4(const uint8_t address[16]) {
    static const uint8_t prefix[FN_V4_PREFIX_BITS / 8] = {[10] = 0xff, [11] = 0xff};
    return memcmp(address, prefix, sizeof prefix) == 0;
}

static inline int fn_access_matches(const struct fn_network *network, const uint8_t address[16]) {
    unsigned whole = network->prefix_bits / 8;
    unsigned rest = network->prefix_bits % 8;
    if (network->prefix_bits < FN_V4_PREFIX_BITS && fn_access_is_v4(address)) {
        return 0;
    }
    if (memcmp(network->address, address, whole) != 0) {
        return 0;
    }
    if (rest == 0) {
        return 1;
    }
    return ((network->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

/* 1 if the peer is admitted, 0 if it is rejected. */
static inline int fn_access_allows(const struct fn_access *access,
                                   const struct sockaddr_storage *peer) {
    uint8_t address[16];
    if (access->networks == 0 || !fn_access_address(peer, address)) {
        return 1;
    }
    int allowed = !access->any_allow;
    for (uint32_t i = 0; i < access->networks; i++) {
        if (!fn_access_matches(&access->network[i], address)) {
            continue;
        }
        if (!access->network[i].allow) {
            return 0;
        }
        allowed = 1;
    }
    return allowed;
}

#endif
