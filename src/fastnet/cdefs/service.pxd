"""csrc/fn_service.h"""

from libc.stdint cimport uint32_t

from fastnet.cdefs.counters cimport fn_counters
from fastnet.cdefs.sys cimport sockaddr_storage

cdef extern from "fn_service.h" nogil:
    enum:
        FN_REPLY_END
        FN_REPLY_STATIC
        FN_SCRATCH_BYTES
    struct fn_reply:
        int parts
        int flags
        char *scratch
    struct fn_call:
        char *bytes
        size_t n
        const sockaddr_storage *peer
        uint32_t peer_bytes
        fn_reply reply
    struct fn_calls:
        fn_call *call
        uint32_t n
        fn_counters *row
        void *kept
    struct fn_service:
        void (*open)(const fn_service *, fn_reply *) noexcept nogil
        void (*data)(const fn_service *, char *, size_t, fn_reply *) noexcept nogil
        void (*sent)(const fn_service *, fn_reply *) noexcept nogil
        void (*eof)(const fn_service *, fn_reply *) noexcept nogil
        void (*datagram)(const fn_service *, char *, size_t, fn_reply *) noexcept nogil
        void (*batch)(const fn_service *, fn_calls *) noexcept nogil
        const char *text
        size_t text_bytes
        void *own
    void fn_reply_add(fn_reply *reply, const char *bytes, size_t n)
