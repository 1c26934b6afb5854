/* Aggregation of decoded cells; contract in tbf_agg.h. */
#include "tbf_agg.h"

#include "tbf_values.h"

#define EXACT_POWERS 22u /* 10^22 is the last power that a double holds exactly */

static double over_power_of_10(double v, unsigned scale) {
    static const double POWERS[EXACT_POWERS + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    for (; scale > EXACT_POWERS; scale -= EXACT_POWERS) {
        v /= POWERS[EXACT_POWERS];
    }
    return v / POWERS[scale];
}

double tbf_cell_double(const tbf_cell *cell) {
    switch (cell->type) {
    case TBF_INT64:
        return (double)cell->i64;
    case TBF_DECIMAL:
        return over_power_of_10((double)cell->i64, cell->scale);
    default:
        return cell->f64;
    }
}

static void add_rest(tbf_agg *a, double v) {
    if (a->rest_count == 0 || v < a->rest_low) {
        a->rest_low = v;
    }
    if (a->rest_count == 0 || v > a->rest_high) {
        a->rest_high = v;
    }
    a->rest_count++;
    /* Neumaier: what rounding lost is kept beside the sum. */
    double sum = a->rest_sum + v;
    bool larger = (a->rest_sum < 0 ? -a->rest_sum : a->rest_sum) >= (v < 0 ? -v : v);
    a->rest_lost += larger ? (a->rest_sum - sum) + v : (v - sum) + a->rest_sum;
    a->rest_sum = sum;
}

/* The exact part joins the doubles when it no longer fits 128 bits. */
static void spill(tbf_agg *a) {
    double sum = over_power_of_10((double)a->sum, a->scale);
    uint64_t moved = a->exact_count;
    double low = tbf_cell_double(&a->low_cell), high = tbf_cell_double(&a->high_cell);
    bool first = a->rest_count == 0;
    double rest_low = first || low < a->rest_low ? low : a->rest_low;
    double rest_high = first || high > a->rest_high ? high : a->rest_high;
    add_rest(a, sum);
    a->rest_low = rest_low;
    a->rest_high = rest_high;
    a->rest_count += moved - 1;
    a->exact_count = 0;
    a->sum = 0;
    a->scale = 0;
}

/* Brings the exact part to a larger scale; false if it does not fit. */
static bool rescale(tbf_agg *a, uint8_t scale) {
    __int128_t factor = tbf_powers_of_10[scale - a->scale], sum, low, high;
    if (__builtin_mul_overflow(a->sum, factor, &sum) ||
        __builtin_mul_overflow(a->low, factor, &low) ||
        __builtin_mul_overflow(a->high, factor, &high)) {
        return false;
    }
    a->sum = sum;
    a->low = low;
    a->high = high;
    a->scale = scale;
    return true;
}

/* Adds n cells of one type and scale, at most TBF_POWERS_MAX. */
static void add_run(tbf_agg *a, const tbf_cell *cells, size_t n) {
    size_t low = 0, high = 0;
    __int128_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += cells[i].i64;
        low = cells[i].i64 < cells[low].i64 ? i : low;
        high = cells[i].i64 > cells[high].i64 ? i : high;
    }
    uint8_t scale = cells[0].type == TBF_INT64 ? 0 : cells[0].scale;
    if (a->exact_count > 0 && scale > a->scale && !rescale(a, scale)) {
        spill(a);
    }
    if (a->exact_count == 0) {
        a->scale = scale;
    }
    __int128_t factor = tbf_powers_of_10[a->scale - scale], total;
    if (__builtin_mul_overflow(sum, factor, &sum) || __builtin_add_overflow(a->sum, sum, &total)) {
        if (a->exact_count > 0) {
            spill(a);
            add_run(a, cells, n);
            return;
        }
        total = sum;
    }
    a->sum = total;
    if (a->exact_count == 0 || cells[low].i64 * factor < a->low) {
        a->low = cells[low].i64 * factor;
        a->low_cell = cells[low];
    }
    if (a->exact_count == 0 || cells[high].i64 * factor > a->high) {
        a->high = cells[high].i64 * factor;
        a->high_cell = cells[high];
    }
    a->exact_count += n;
}

static bool same_run(const tbf_cell *a, const tbf_cell *b) {
    return a->type == b->type && (a->type == TBF_INT64 || a->scale == b->scale);
}

void tbf_agg_add(tbf_agg *a, const tbf_cell *cells, size_t n) {
    a->count += n;
    for (size_t i = 0; i < n;) {
        const tbf_cell *cell = &cells[i];
        if (cell->type == TBF_INT64 ||
            (cell->type == TBF_DECIMAL && cell->scale <= TBF_POWERS_MAX)) {
            size_t run = 1;
            while (i + run < n && same_run(cell, cell + run)) {
                run++;
            }
            add_run(a, cell, run);
            a->numbers += run;
            i += run;
            continue;
        }
        if (cell->type == TBF_DECIMAL || (cell->type == TBF_DOUBLE && cell->f64 == cell->f64)) {
            add_rest(a, tbf_cell_double(cell));
            a->numbers++;
        }
        i++;
    }
}

static void set_double(tbf_cell *out, double v) { *out = (tbf_cell){.type = TBF_DOUBLE, .f64 = v}; }

bool tbf_agg_min(const tbf_agg *a, tbf_cell *out) {
    if (a->rest_count > 0 && (a->exact_count == 0 || a->rest_low < tbf_cell_double(&a->low_cell))) {
        set_double(out, a->rest_low);
    } else {
        *out = a->low_cell;
    }
    return a->numbers > 0;
}

bool tbf_agg_max(const tbf_agg *a, tbf_cell *out) {
    if (a->rest_count > 0 &&
        (a->exact_count == 0 || a->rest_high > tbf_cell_double(&a->high_cell))) {
        set_double(out, a->rest_high);
    } else {
        *out = a->high_cell;
    }
    return a->numbers > 0;
}

void tbf_agg_widen(const tbf_agg *a, tbf_cell *cell) {
    int64_t tenths;
    if (cell->type != TBF_INT64 || (a->rest_count == 0 && a->scale == 0)) {
        return;
    }
    if (__builtin_mul_overflow(cell->i64, 10, &tenths)) {
        set_double(cell, (double)cell->i64);
    } else {
        *cell = (tbf_cell){.type = TBF_DECIMAL, .scale = 1, .i64 = tenths};
    }
}

double tbf_agg_total(const tbf_agg *a) {
    double rest = a->rest_sum + a->rest_lost;
    /* Infinities: what was lost beside them is not a number. */
    rest = rest == rest ? rest : a->rest_sum;
    return a->exact_count == 0 ? rest : over_power_of_10((double)a->sum, a->scale) + rest;
}

bool tbf_agg_sum(const tbf_agg *a, tbf_cell *out) {
    if (a->rest_count == 0 && a->sum >= INT64_MIN && a->sum <= INT64_MAX) {
        *out = (tbf_cell){.type = a->scale == 0 ? TBF_INT64 : TBF_DECIMAL,
                          .scale = a->scale,
                          .i64 = (int64_t)a->sum};
    } else {
        set_double(out, tbf_agg_total(a));
    }
    return a->numbers > 0;
}
