"""csrc/fn_child.h"""
from posix.types cimport pid_t

cdef extern from "fn_child.h" nogil:
    pid_t fn_child_fork()
    void fn_child_reset_signals()
    void fn_child_keep_only(int a, int b)
    int fn_child_reap(pid_t pid)
    void fn_child_exit(int status)
