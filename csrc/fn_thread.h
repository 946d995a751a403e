/* POSIX threads (pthreads(7)) as the thread and pool engines use them.
 *
 * The calls are glibc's own and return an errno instead of setting it; cdefs/thread.pxd declares
 * those that are used. */
#ifndef FN_THREAD_H
#define FN_THREAD_H

#include <pthread.h>

#endif
