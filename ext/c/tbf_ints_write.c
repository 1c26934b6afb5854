/* Integer blocks: writer.  Layout in tbf_ints.h.
 *
 * All four predictors are tried on every block and the smallest wins.  Where the block stays near
 * the value before it (all but a few do) the trying is done in 32 bits, which compilers turn into
 * vector instructions that every x86-64 and ARMv8 has.  Exceptions are looked for only where the
 * differences have an outlier: looking costs as much as all the rest. */
#include "tbf_ints.h"

#define SMALL 16u                 /* blocks below gain nothing from exceptions: three bytes each */
#define SAMPLES 16u               /* residuals sorted to see where most of them are */
#define TRIMMED 2u                /* samples left out at both ends */
#define NARROW ((int64_t)1 << 28) /* four times this still fits int32: DELTA2 */
#define CLIMB_MAX ((int64_t)1 << 46) /* of a block, for SLOPE: no product leaves int64 */

/* What each predictor would leave over. */
typedef struct {
    int64_t min[4], max[4];
    int64_t slope;
    bool has_slope, may_have_outlier;
} survey;

typedef struct {
    unsigned predictor, code;
    size_t exceptions;
    int64_t base;
    size_t bits; /* what the block costs */
} plan;

static unsigned bits_of(uint64_t v) { return v == 0 ? 0 : 64u - (unsigned)__builtin_clzll(v); }

static unsigned code_of(unsigned bits) {
    return bits <= 26 ? bits : bits <= 32 ? 27 : 27 + (bits - 32 + 7) / 8;
}

static size_t varint_bits(int64_t v) {
    unsigned bits = bits_of(tbf_zigzag(v));
    return bits <= 7 ? 8 : 8 * (size_t)((bits + 6) / 7);
}

static int64_t minus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }

/* Residuals, value minus prediction, modulo 2^64. */
static void reside(int64_t *r, unsigned predictor, int64_t slope, const tbf_ints *s,
                   const int64_t *v, size_t k) {
    switch (predictor) {
    case TBF_INTS_LAST:
        for (size_t i = 0; i < k; i++) {
            r[i] = minus(v[i], s->last);
        }
        break;
    case TBF_INTS_DELTA:
        r[0] = minus(v[0], s->last);
        for (size_t i = 1; i < k; i++) {
            r[i] = minus(v[i], v[i - 1]);
        }
        break;
    case TBF_INTS_DELTA2: {
        int64_t last = s->last, step = s->step;
        for (size_t i = 0; i < k; i++) {
            int64_t delta = minus(v[i], last);
            r[i] = minus(delta, step);
            last = v[i];
            step = delta;
        }
        break;
    }
    default:
        for (size_t i = 0; i < k; i++) {
            int64_t up = ((int64_t)(i + 1) * slope) >> TBF_INTS_SLOPE_BITS;
            r[i] = minus(minus(v[i], s->last), up);
        }
    }
}

static void find_slope(survey *x, int64_t climb, size_t k) {
    x->has_slope = k >= 3 && climb < CLIMB_MAX && climb > -CLIMB_MAX;
    x->slope = x->has_slope ? climb * (1 << TBF_INTS_SLOPE_BITS) / (int64_t)k : 0;
}

static void survey_wide(survey *x, const tbf_ints *s, const int64_t *v, size_t k) {
    int64_t r[TBF_INTS_BLOCK];
    find_slope(x, minus(v[k - 1], s->last), k);
    for (unsigned predictor = 0; predictor < 4; predictor++) {
        reside(r, predictor, x->slope, s, v, k);
        int64_t min = r[0], max = r[0];
        for (size_t i = 1; i < k; i++) {
            min = r[i] < min ? r[i] : min;
            max = r[i] > max ? r[i] : max;
        }
        x->min[predictor] = min;
        x->max[predictor] = max;
    }
    x->may_have_outlier = true;
}

static void range_of(survey *x, unsigned predictor, const int32_t *r, size_t k) {
    int32_t min = INT32_MAX, max = INT32_MIN;
    for (size_t i = 0; i < k; i++) {
        min = r[i] < min ? r[i] : min;
        max = r[i] > max ? r[i] : max;
    }
    x->min[predictor] = min;
    x->max[predictor] = max;
}

/* Whether 7 of 8 differences lie within three eighths of their range. */
static bool crowded(const int32_t *r, size_t k, int32_t min, int32_t max) {
    int32_t eighth = (max - min) / 8;
    if (eighth == 0) {
        return false;
    }
    int32_t below[4]; /* how many are under min + 2, 3, 5, 6 eighths */
    static const int32_t EDGES[4] = {2, 3, 5, 6};
    for (unsigned edge = 0; edge < 4; edge++) {
        int32_t limit = min + EDGES[edge] * eighth, count = 0;
        for (size_t i = 0; i < k; i++) {
            count += r[i] < limit;
        }
        below[edge] = count;
    }
    int32_t n = (int32_t)k, most = n - n / 8;
    return below[1] >= most || below[2] - below[0] >= most || below[3] - below[1] >= most ||
           n - below[2] >= most;
}

/* False if some value is too far from the one before the block. */
static bool survey_narrow(survey *x, const tbf_ints *s, const int64_t *v, size_t k) {
    int32_t away[TBF_INTS_BLOCK + 2], r[TBF_INTS_BLOCK];
    uint64_t any = (uint64_t)s->step + (uint64_t)NARROW;
    for (size_t i = 0; i < k; i++) {
        uint64_t from_last = (uint64_t)v[i] - (uint64_t)s->last;
        any |= from_last + (uint64_t)NARROW;
        away[i + 2] = (int32_t)from_last;
    }
    if (any >= 2 * (uint64_t)NARROW) {
        return false;
    }
    away[0] = -(int32_t)s->step;
    away[1] = 0;
    range_of(x, TBF_INTS_LAST, away + 2, k);
    for (size_t i = 0; i < k; i++) {
        r[i] = away[i + 2] - away[i + 1];
    }
    range_of(x, TBF_INTS_DELTA, r, k);
    x->may_have_outlier =
        crowded(r, k, (int32_t)x->min[TBF_INTS_DELTA], (int32_t)x->max[TBF_INTS_DELTA]);
    for (size_t i = 0; i < k; i++) {
        r[i] = away[i + 2] - 2 * away[i + 1] + away[i];
    }
    range_of(x, TBF_INTS_DELTA2, r, k);
    find_slope(x, away[k + 1], k);
    int32_t whole = (int32_t)(x->slope >> TBF_INTS_SLOPE_BITS), up = whole;
    int32_t part = (int32_t)(x->slope & ((1 << TBF_INTS_SLOPE_BITS) - 1)), parts = part;
    for (size_t i = 0; i < k; i++, up += whole, parts += part) {
        r[i] = away[i + 2] - up - (parts >> TBF_INTS_SLOPE_BITS);
    }
    range_of(x, TBF_INTS_SLOPE, r, k);
    return true;
}

static size_t fixed_bits(const survey *x, unsigned predictor, int64_t base) {
    return 8 + varint_bits(base) + (predictor == TBF_INTS_SLOPE ? varint_bits(x->slope) : 0);
}

static void offer_plain(plan *best, const survey *x, unsigned predictor, size_t k) {
    int64_t min = x->min[predictor];
    unsigned code = code_of(bits_of((uint64_t)x->max[predictor] - (uint64_t)min));
    size_t bits = fixed_bits(x, predictor, min) + tbf_ints_width(code) * k;
    if (bits < best->bits) {
        *best = (plan){.predictor = predictor, .code = code, .base = min, .bits = bits};
    }
}

/* Lowest and highest of most residuals. */
static void middle_of(const int64_t *r, size_t k, int64_t *low, int64_t *high) {
    int64_t sample[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        int64_t next = r[i * k / SAMPLES];
        size_t at = i;
        for (; at > 0 && sample[at - 1] > next; at--) {
            sample[at] = sample[at - 1];
        }
        sample[at] = next;
    }
    *low = sample[TRIMMED];
    *high = sample[SAMPLES - 1 - TRIMMED];
}

/* The lowest that is no further below the middle than the middle is wide: a residual under the
 * base is the dearest exception of all, ten bytes. */
static int64_t lowest_near(const int64_t *r, size_t k, int64_t min, int64_t low, uint64_t middle) {
    if ((uint64_t)low - (uint64_t)min <= middle) {
        return min;
    }
    int64_t lowest = low, limit = minus(low, (int64_t)middle);
    for (size_t i = 0; i < k; i++) {
        lowest = r[i] >= limit && r[i] < lowest ? r[i] : lowest;
    }
    return lowest;
}

static void offer_exceptions(plan *best, const survey *x, unsigned predictor, const int64_t *r,
                             size_t k) {
    int64_t low, high;
    middle_of(r, k, &low, &high);
    uint64_t middle = (uint64_t)high - (uint64_t)low;
    int64_t base = lowest_near(r, k, x->min[predictor], low, middle);
    size_t count[65] = {0};
    for (size_t i = 0; i < k; i++) {
        count[bits_of((uint64_t)r[i] - (uint64_t)base)]++;
    }
    unsigned code = code_of(bits_of(middle));
    for (unsigned last = code + 3; code <= last && code < code_of(64); code++) {
        unsigned width = tbf_ints_width(code);
        size_t exceptions = 0, bits = fixed_bits(x, predictor, base) + 8 + width * k;
        for (unsigned wide = width + 1; wide <= 64; wide++) {
            exceptions += count[wide];
            bits += count[wide] * (8 + 8 * (size_t)((wide - width + 6) / 7));
        }
        if (exceptions > 0 && bits < best->bits) {
            *best = (plan){.predictor = predictor,
                           .code = code,
                           .exceptions = exceptions,
                           .base = base,
                           .bits = bits};
        }
    }
}

/* The cheapest plan, and in r what it leaves over. */
static plan choose(int64_t *r, survey *x, const tbf_ints *s, const int64_t *v, size_t k) {
    /* DELTA first: of equals it says most in the fewest bytes. */
    static const unsigned ORDER[4] = {TBF_INTS_DELTA, TBF_INTS_LAST, TBF_INTS_SLOPE,
                                      TBF_INTS_DELTA2};
    plan best = {.bits = SIZE_MAX};
    if (!survey_narrow(x, s, v, k)) {
        survey_wide(x, s, v, k);
    }
    for (unsigned i = 0; i < 4; i++) {
        if (ORDER[i] != TBF_INTS_SLOPE || x->has_slope) {
            offer_plain(&best, x, ORDER[i], k);
        }
    }
    /* With the other two an outlier spoils what comes after it. */
    for (unsigned i = 0; i < 2 && x->may_have_outlier && k >= SMALL && best.code > 1; i++) {
        reside(r, ORDER[i], 0, s, v, k);
        offer_exceptions(&best, x, ORDER[i], r, k);
    }
    reside(r, best.predictor, x->slope, s, v, k);
    return best;
}

/* Values of at most 8 bits, eight at a time; returns how many were written. */
static size_t put_eights(uint8_t **p, const uint64_t *v, size_t k, unsigned width, uint64_t mask) {
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        uint64_t packed = 0;
        for (unsigned j = 0; j < 8; j++) {
            packed |= (v[i + j] & mask) << (j * width);
        }
        tbf_store64(*p, packed);
        *p += width;
    }
    return i;
}

uint8_t *tbf_bits_put(uint8_t *p, const uint64_t *v, size_t k, unsigned width) {
    if (width == 64) {
        memcpy(p, v, k * sizeof *v);
        return p + k * sizeof *v;
    }
    if (width == 0) {
        return p;
    }
    uint64_t mask = ((uint64_t)1 << width) - 1, pending = 0;
    unsigned held = 0; /* bits in pending: below 8 before a value of at most 56 */
    size_t i = width <= 8 ? put_eights(&p, v, k, width, mask) : 0;
    for (; i < k; i++) {
        pending |= (v[i] & mask) << held;
        held += width;
        tbf_store64(p, pending);
        p += held >> 3;
        pending >>= held & ~7u;
        held &= 7;
    }
    if (held > 0) {
        *p++ = (uint8_t)pending;
    }
    return p;
}

static uint8_t *put_exceptions(uint8_t *p, const uint64_t *u, size_t k, const plan *chosen) {
    unsigned width = tbf_ints_width(chosen->code);
    *p++ = (uint8_t)chosen->exceptions;
    for (size_t i = 0; i < k; i++) {
        if (u[i] >> width != 0) {
            *p++ = (uint8_t)i;
        }
    }
    for (size_t i = 0; i < k; i++) {
        if (u[i] >> width != 0) {
            p = tbf_put_varint(p, u[i] >> width);
        }
    }
    return p;
}

uint8_t *tbf_ints_put(uint8_t *p, tbf_ints *s, const int64_t *v, size_t k) {
    int64_t r[TBF_INTS_BLOCK];
    survey x;
    if (!s->started) {
        p = tbf_put_varint(p, tbf_zigzag(*v));
        *s = (tbf_ints){.last = *v++, .started = true};
        if (--k == 0) {
            return p;
        }
    }
    plan chosen = choose(r, &x, s, v, k);
    *p++ = (uint8_t)(chosen.code << TBF_INTS_WIDTH_SHIFT |
                     (chosen.exceptions > 0 ? TBF_INTS_EXCEPTIONS : 0) | chosen.predictor);
    if (chosen.predictor == TBF_INTS_SLOPE) {
        p = tbf_put_varint(p, tbf_zigzag(x.slope));
    }
    p = tbf_put_varint(p, tbf_zigzag(chosen.base));
    uint64_t *u = (uint64_t *)r; /* int64_t and uint64_t may alias */
    for (size_t i = 0; i < k; i++) {
        u[i] -= (uint64_t)chosen.base;
    }
    if (chosen.exceptions > 0) {
        p = put_exceptions(p, u, k, &chosen);
    }
    s->step = minus(v[k - 1], k > 1 ? v[k - 2] : s->last);
    s->last = v[k - 1];
    return tbf_bits_put(p, u, k, tbf_ints_width(chosen.code));
}
