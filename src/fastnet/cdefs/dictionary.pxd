"""csrc/fn_dictionary.h"""
cdef extern from "fn_dictionary.h" nogil:
    struct fn_dictionary:
        pass
    size_t fn_dictionary_entry_bytes(size_t word_bytes, size_t translation_bytes)
    fn_dictionary *fn_dictionary_new(size_t entries, size_t arena_bytes)
    void fn_dictionary_release(fn_dictionary *dictionary)
    void fn_dictionary_add(
        fn_dictionary *dictionary, const char *word, size_t n, const char *translation, size_t m
    )
