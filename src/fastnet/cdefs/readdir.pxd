"""csrc/fn_readdir.h"""
from posix.stat cimport struct_stat

cdef extern from "fn_readdir.h" nogil:
    struct fn_found:
        size_t name
        struct_stat status
    struct fn_survey:
        fn_found *found
        char *names
        size_t count, room, names_bytes, names_room
    int fn_survey_folder(fn_survey *s, const char *path)
    void fn_survey_close(fn_survey *s)
