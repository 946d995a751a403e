/* Children of the fork engine: async-signal-safe calls only, for other threads may hold any lock at
 * the fork. */
#ifndef FN_CHILD_H
#define FN_CHILD_H

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "fn_sys.h"

/* fork(2). Returns the child's pid, 0 in the child, or -errno. */
static inline pid_t fn_fork(void) {
    pid_t pid = fork();
    return pid < 0 ? -errno : pid;
}

/* In the child: signals meant for the whole group are the parent's business, and no handler of
 * Python's may run here. */
static inline void fn_child_signals(void) {
    static const int parents[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
    sigset_t none;
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) signal(parents[i], SIG_IGN);
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Wait for a child that has ended or soon will. Returns 1 if it died before it had counted its
 * connection as closed. If somebody else took its status (SIGCHLD ignored, or a waitpid(-1)
 * elsewhere in the process), it counts as ended well. */
static inline int fn_child_reap(pid_t pid) {
    int status;
    pid_t got;
    do {
        got = waitpid(pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    return got == pid && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* In the child: close every descriptor above standard error but these two (-1 for none). A child
 * keeps a copy of all that the process had open, and a copied connection of another loop would
 * never end for its peer. */
static inline void fn_child_keep_only(int a, int b) {
    int low = a < b ? a : b, high = a < b ? b : a, from = STDERR_FILENO + 1;
    for (int i = 0; i < 3; i++) {
        int to = i == 0 ? low - 1 : i == 1 ? high - 1 : INT_MAX;
        if (to >= from && syscall(SYS_close_range, from, to, 0) < 0)
            for (int fd = from; fd <= to && fd < sysconf(_SC_OPEN_MAX); fd++) close(fd);
        from = (i == 0 ? low : high) + 1 > from ? (i == 0 ? low : high) + 1 : from;
    }
}

static inline void fn_exit(int status) { _exit(status); }

#endif
