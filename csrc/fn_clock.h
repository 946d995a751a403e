/* What time it is, for intervals only.
 *
 * Facts. CLOCK_MONOTONIC never jumps (clock_gettime(2)); through the vDSO it costs tens of nanoseconds and no system call.
 * CLOCK_MONOTONIC_COARSE is the time of the last timer tick, one to ten milliseconds old, at a fraction of that price.
 * Decision: latencies read the first; idle times, which need only seconds, read the second as 32 bits of milliseconds.
 * Cost: fn_now_ms wraps after 49.7 days, so compare by subtraction: (uint32_t)(now - then) > limit.
 */
#ifndef FN_CLOCK_H
#define FN_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t fn_clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t); /* cannot fail: the clock exists and t is writable */
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Nanoseconds since some fixed moment. */
static inline uint64_t fn_now_ns(void)
{
    return fn_clock_ns(CLOCK_MONOTONIC);
}

/* Milliseconds since some fixed moment, coarse, modulo 2^32. */
static inline uint32_t fn_now_ms(void)
{
    return (uint32_t)(fn_clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000u);
}

/* Nanoseconds of processor time that this thread has used. A system call. */
static inline uint64_t fn_thread_cpu_ns(void)
{
    return fn_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

#endif
