/* See tbf_hist.h. */
#include "tbf_hist.h"

void tbf_hist_merge(tbf_hist *into, const tbf_hist *from) {
    if (from->count == 0) {
        return;
    }
    into->min = into->count == 0 || from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->count += from->count;
    into->sum += from->sum;
    for (size_t i = 0; i < TBF_HIST_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
}

/* The middle of a bucket. */
static uint64_t middle(uint32_t bucket) {
    const uint32_t sub = 1u << TBF_HIST_SUB_BITS;
    if (bucket < 2 * sub) {
        return bucket;
    }
    uint32_t shift = (bucket >> TBF_HIST_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(sub + (bucket & (sub - 1))) << shift;
    return low + (UINT64_C(1) << (shift - 1));
}

uint64_t tbf_hist_quantile(const tbf_hist *h, double q) {
    if (h->count == 0) {
        return 0;
    }
    double exact = q * (double)h->count;
    uint64_t wanted = exact <= 1.0 ? 1 : (uint64_t)exact;
    wanted += (double)wanted < exact ? 1 : 0;
    if (wanted >= h->count) {
        return h->max;
    }
    uint64_t seen = 0;
    for (uint32_t i = 0; i < TBF_HIST_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= wanted) {
            uint64_t v = middle(i);
            v = v < h->min ? h->min : v;
            return v > h->max ? h->max : v;
        }
    }
    return h->max;
}
