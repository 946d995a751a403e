/* Child processes of the fork engine: fork(2), signals, descriptors, waitpid(2).
 *
 * Only async-signal-safe calls (signal-safety(7)): another thread may hold any lock at the fork.
 * The pure twin is engine/forked.py. */
#ifndef FN_CHILD_H
#define FN_CHILD_H

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "fn_sys.h"

/* fork(2). Returns the child's pid, 0 in the child, or -errno. */
static inline pid_t fn_child_fork(void) {
    pid_t pid = fork();
    return pid < 0 ? -errno : pid;
}

/* In the child: ignore signals sent to the process group, which are the parent's decision, and run
 * no signal handler of Python's. */
static inline void fn_child_reset_signals(void) {
    static const int parents[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t none;
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        signal(parents[i], SIG_IGN);
    }
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Wait for a child that has exited or is about to. Returns 1 if it died before it had counted its
 * connection as closed. If its status was collected elsewhere (SIGCHLD ignored, or a waitpid(-1) in
 * the same process), it counts as a clean exit. */
static inline int fn_child_reap(pid_t pid) {
    int status;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    return got == pid && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Close the descriptors from..to; without close_range(2) one by one. */
static inline void fn_child_close_range(int from, int to) {
    if (to < from || syscall(SYS_close_range, from, to, 0) == 0) {
        return;
    }
    for (int fd = from; fd <= to && fd < sysconf(_SC_OPEN_MAX); fd++) {
        close(fd);
    }
}

/* In the child: close every descriptor above standard error except a and b (-1: none). A child has
 * a copy of every descriptor of the process, and a copied connection of another loop would never
 * end for its peer. */
static inline void fn_child_keep_only(int a, int b) {
    int keep[2] = {a < b ? a : b, a < b ? b : a};
    int from = STDERR_FILENO + 1;
    for (int i = 0; i < 2; i++) {
        fn_child_close_range(from, keep[i] - 1);
        if (keep[i] + 1 > from) {
            from = keep[i] + 1;
        }
    }
    fn_child_close_range(from, INT_MAX);
}

static inline void fn_child_exit(int status) { _exit(status); }

#endif
