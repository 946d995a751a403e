/* Monotonic clocks (clock_gettime(2)); the wall clock is for display and stays in Python. */
#ifndef FN_CLOCK_H
#define FN_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds since boot, exact. About 20 ns a call. */
static inline uint64_t fn_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Milliseconds since boot, as of the last timer tick (1 to 10 ms old), wrapping after 49 days:
 * compare by subtraction. */
static inline uint32_t fn_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

/* Nanoseconds of CPU time the calling thread has used. A system call. */
static inline uint64_t fn_thread_cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

#endif
