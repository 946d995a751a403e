"""csrc/fn_dictionary.h and csrc/fn_dictionary_lookup.h"""
from libc.stdint cimport uint32_t

from fastnet.cdefs.service cimport fn_calls

cdef extern from "fn_dictionary_lookup.h" nogil:
    struct fn_words:
        pass
    struct fn_shelf:
        fn_words *newest
    struct fn_phrases:
        const char *unknown
        const char *ellipsis
        uint32_t unknown_bytes
        uint32_t ellipsis_bytes
        uint32_t unvalidated_reply_bytes_max
    size_t fn_word_room(size_t word_bytes, size_t translation_bytes)
    fn_words *fn_words_new(size_t entries, size_t bytes)
    void fn_words_drop(fn_words *words)
    void fn_words_add(fn_words *words, const char *word, size_t n, const char *translation, size_t m)
    void fn_shelf_open(fn_shelf *shelf)
    void fn_shelf_put(fn_shelf *shelf, fn_words *words)
    const fn_words *fn_shelf_take(fn_shelf *shelf, void **kept)
    void fn_lookup(const fn_words *words, const fn_phrases *phrases, fn_calls *calls)
