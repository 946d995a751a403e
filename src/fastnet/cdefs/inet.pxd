"""csrc/fn_inet.h"""
from libc.stdint cimport uint16_t, uint32_t

cdef extern from "fn_inet.h" nogil:
    ctypedef uint32_t socklen_t
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        INET6_ADDRSTRLEN
        IPPROTO_IP
        FN_SUN_PATH_OFFSET
    struct sockaddr:
        uint16_t sa_family
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct sockaddr_un:
        char *sun_path
    uint16_t ntohs(uint16_t number)
    uint32_t ntohl(uint32_t number)
    const char *inet_ntop(int family, const void *address, char *text, uint32_t room)
    int socket(int family, int kind, int protocol)
    int bind(int fd, const sockaddr *address, socklen_t size)
    int connect(int fd, const sockaddr *address, socklen_t size)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
    int getpeername(int fd, sockaddr *address, socklen_t *size)
