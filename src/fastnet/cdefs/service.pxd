"""csrc/fn_service.h"""

cdef extern from "fn_service.h" nogil:
    enum:
        FN_END
        FN_STABLE
        FN_SCRATCH_BYTES
    struct fn_reply:
        int parts
        int flags
        char *scratch
    struct fn_service:
        void (*open)(const fn_service *, fn_reply *) noexcept nogil
        void (*data)(const fn_service *, char *, size_t, fn_reply *) noexcept nogil
        void (*sent)(const fn_service *, fn_reply *) noexcept nogil
        void (*eof)(const fn_service *, fn_reply *) noexcept nogil
        void (*datagram)(const fn_service *, char *, size_t, fn_reply *) noexcept nogil
        const char *text
        size_t text_bytes
    void fn_reply_add(fn_reply *reply, const char *bytes, size_t n)
