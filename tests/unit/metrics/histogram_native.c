/* csrc/fn_hist.h as a shared library, for test_histogram.py. */
#include "fn_hist.h"

int record_all(uint64_t *counts, size_t slots, unsigned sub_bits, const uint64_t *values, size_t n,
               uint64_t sums[3])
{
    struct fn_hist h;
    int error = fn_hist_open(&h, counts, slots, sub_bits);
    if (error)
        return error;
    for (size_t i = 0; i < n; i++)
        fn_hist_record(&h, values[i], 1);
    sums[0] = h.total;
    sums[1] = h.sum;
    sums[2] = h.max;
    return 0;
}
