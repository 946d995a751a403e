"""csrc/fn_dictionary_lookup.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.dictionary cimport fn_words
from fastnet.cdefs.service cimport fn_calls

cdef extern from "fn_dictionary_lookup.h" nogil:
    struct fn_phrases:
        const char *unknown
        const char *ellipsis
        uint32_t unknown_bytes
        uint32_t ellipsis_bytes
        uint32_t unvalidated_reply_bytes_max
    void fn_lookup(const fn_words *words, const fn_phrases *phrases, fn_calls *calls)
