/* A log-linear histogram: any number of values in constant memory, each kept to a known relative
 * precision.
 *
 * Facts. Values below 2^sub_bits have a slot each. Every further doubling of the value shares
 * 2^(sub_bits-1) slots, so a slot is never wider than 1/2^(sub_bits-1) of its value: sub_bits 11
 * keeps three significant digits. This is the layout of HdrHistogram (hdrhistogram.org) with lowest
 * discernible value 1, slot for slot.
 * Consequence: the slot is found with one clz and two shifts, and two histograms are merged by
 * adding their slots.
 * Decision: the slots belong to the caller, which is fastnet/metrics/histogram.py; it also gives
 * the numbers. A value beyond the last slot is counted in the last slot; max stays exact. */
#ifndef FN_HIST_H
#define FN_HIST_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct fn_hist {
    uint64_t *counts; /* one number a slot */
    uint64_t total;   /* values recorded */
    uint64_t sum;     /* of all values, exact */
    uint64_t max;     /* exact */
    size_t slots;
    unsigned sub_bits; /* values below 2^sub_bits have a slot each */
};

/* Clear all counts. */
static inline void fn_hist_reset(struct fn_hist *h) {
    memset(h->counts, 0, h->slots * sizeof h->counts[0]);
    h->total = 0;
    h->sum = 0;
    h->max = 0;
}

/* Use the caller's slots, cleared. Returns 0, or -EINVAL when they are no whole number of half
 * buckets, at least two. */
static inline int fn_hist_open(struct fn_hist *h, uint64_t *counts, size_t slots,
                               unsigned sub_bits) {
    if (sub_bits < 1 || sub_bits > 31) {
        return -EINVAL;
    }
    size_t half = (size_t)1 << (sub_bits - 1);
    if (slots < 2 * half || slots % half) {
        return -EINVAL;
    }
    h->counts = counts;
    h->slots = slots;
    h->sub_bits = sub_bits;
    fn_hist_reset(h);
    return 0;
}

static inline size_t fn_hist_index(const struct fn_hist *h, uint64_t value) {
    uint64_t first_bucket = ((uint64_t)1 << h->sub_bits) - 1;
    unsigned bucket = 64u - (unsigned)__builtin_clzll(value | first_bucket) - h->sub_bits;
    size_t index = ((size_t)bucket << (h->sub_bits - 1)) + (size_t)(value >> bucket);
    return index < h->slots ? index : h->slots - 1;
}

/* Count value n times. */
static inline void fn_hist_record(struct fn_hist *h, uint64_t value, uint64_t n) {
    h->counts[fn_hist_index(h, value)] += n;
    h->total += n;
    h->sum += value * n;
    if (value > h->max) {
        h->max = value;
    }
}

#endif
