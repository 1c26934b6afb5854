/* Aggregation of decoded cells: MIN, MAX, SUM, COUNT, from which AVG.
 *
 * INT64 and DECIMAL are added up exactly, in 128 bits at a common scale; DOUBLE (and what leaves
 * that range) as doubles with compensated summation.  NaN counts as a point and as nothing else:
 * one bad sample must not blank a chart.  Other types only count. */
#ifndef TBF_AGG_H
#define TBF_AGG_H

#include "tbf_chunk.h"

typedef struct {
    uint64_t count;   /* points of every type */
    uint64_t numbers; /* of which INT64, DECIMAL and DOUBLE other than NaN */
    /* exact part; values are times 10^scale */
    uint64_t exact_count;
    uint8_t scale;
    __int128_t sum, low, high;
    tbf_cell low_cell, high_cell; /* as they were stored */
    /* the rest */
    uint64_t rest_count;
    double rest_sum, rest_lost, rest_low, rest_high;
} tbf_agg;

static inline void tbf_agg_init(tbf_agg *a) { *a = (tbf_agg){.count = 0}; }
void tbf_agg_add(tbf_agg *a, const tbf_cell *cells, size_t n);

/* Results: INT64 or DECIMAL if all numbers were and it fits, else DOUBLE.  MIN and MAX come as
 * they were stored.  False if there were no numbers. */
bool tbf_agg_min(const tbf_agg *a, tbf_cell *out);
bool tbf_agg_max(const tbf_agg *a, tbf_cell *out);
/* An integer of `min` or `max` becomes a number with a fraction, exact if that fits, when one of
 * the others has one: in ThingsBoard one double among them makes the answer a double. */
void tbf_agg_widen(const tbf_agg *a, tbf_cell *cell);
bool tbf_agg_sum(const tbf_agg *a, tbf_cell *out);
/* The sum as a double; divided by `numbers`, the average. */
double tbf_agg_total(const tbf_agg *a);
/* A number as a double: the nearest one if its mantissa fits 53 bits and its scale is at most 22,
 * else at most 3 ulp off. */
double tbf_cell_double(const tbf_cell *cell);

#endif
