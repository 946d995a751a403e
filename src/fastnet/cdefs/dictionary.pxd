"""csrc/fn_dictionary.h"""
cdef extern from "fn_dictionary.h" nogil:
    struct fn_words:
        pass
    struct fn_shelf:
        fn_words *newest
    size_t fn_word_room(size_t word_bytes, size_t translation_bytes)
    fn_words *fn_words_new(size_t entries, size_t bytes)
    void fn_words_drop(fn_words *words)
    void fn_words_add(
        fn_words *words, const char *word, size_t n, const char *translation, size_t m
    )
    void fn_shelf_open(fn_shelf *shelf)
    void fn_shelf_put(fn_shelf *shelf, fn_words *words)
    const fn_words *fn_shelf_take(fn_shelf *shelf, void **kept)
