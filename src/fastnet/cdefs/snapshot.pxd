"""csrc/fn_snapshot.h"""
from fastnet.cdefs.dictionary cimport fn_dictionary

cdef extern from "fn_snapshot.h" nogil:
    struct fn_snapshot:
        fn_dictionary *newest
    void fn_snapshot_open(fn_snapshot *snapshot)
    void fn_snapshot_publish(fn_snapshot *snapshot, fn_dictionary *dictionary)
    const fn_dictionary *fn_snapshot_acquire(fn_snapshot *snapshot, void **kept)
