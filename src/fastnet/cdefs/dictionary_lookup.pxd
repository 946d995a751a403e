"""csrc/fn_dictionary_lookup.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.dictionary cimport fn_dictionary
from fastnet.cdefs.service cimport fn_calls

cdef extern from "fn_dictionary_lookup.h" nogil:
    struct fn_dictionary_phrases:
        const char *unknown
        const char *ellipsis
        uint32_t unknown_bytes
        uint32_t ellipsis_bytes
        uint32_t unvalidated_reply_bytes_max
    void fn_dictionary_lookup(
        const fn_dictionary *dictionary, const fn_dictionary_phrases *phrases, fn_calls *calls
    )
