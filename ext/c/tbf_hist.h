/* Histogram of durations: log-linear buckets, 128 to an octave, so that a percentile read from it
 * is off by at most 1/256 of its value, at a fixed 31 KB and a few instructions a value. */
#ifndef TBF_HIST_H
#define TBF_HIST_H

#include "tbf_base.h"

#define TBF_HIST_SUB_BITS 7u
#define TBF_HIST_VALUE_BITS 37u /* 2^37 ns are 137 s */
#define TBF_HIST_VALUE_MAX ((UINT64_C(1) << TBF_HIST_VALUE_BITS) - 1)
#define TBF_HIST_BUCKETS ((TBF_HIST_VALUE_BITS - TBF_HIST_SUB_BITS + 1) << TBF_HIST_SUB_BITS)

/* All zero is a valid empty histogram. */
typedef struct {
    uint64_t count;
    uint64_t sum;
    uint64_t min; /* 0 while count is 0 */
    uint64_t max;
    uint64_t buckets[TBF_HIST_BUCKETS];
} tbf_hist;

/* Bucket of a value <= TBF_HIST_VALUE_MAX. */
static inline uint32_t tbf_hist_bucket(uint64_t v) {
    const uint32_t sub = 1u << TBF_HIST_SUB_BITS;
    if (v < sub) {
        return (uint32_t)v;
    }
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(v) - TBF_HIST_SUB_BITS;
    return ((shift + 1) << TBF_HIST_SUB_BITS) + ((uint32_t)(v >> shift) & (sub - 1));
}

/* Adds one value; larger ones count as TBF_HIST_VALUE_MAX. */
static inline void tbf_hist_record(tbf_hist *h, uint64_t v) {
    v = v < TBF_HIST_VALUE_MAX ? v : TBF_HIST_VALUE_MAX;
    h->min = h->count == 0 || v < h->min ? v : h->min;
    h->max = v > h->max ? v : h->max;
    h->count++;
    h->sum += v;
    h->buckets[tbf_hist_bucket(v)]++;
}

void tbf_hist_merge(tbf_hist *into, const tbf_hist *from);
/* The smallest recorded value (to the precision of its bucket) that at least q of all values do not
 * exceed; q in 0..1.  0 for an empty histogram; never outside min..max. */
uint64_t tbf_hist_quantile(const tbf_hist *h, double q);

#endif
