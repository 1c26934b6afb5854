/* Integer blocks: writer.  Layout in tbf_ints.h.
 *
 * All four predictors are tried on every block and the smallest wins.  Exceptions are looked for
 * only where the differences have an outlier, because looking costs as much as all the rest. */
#include "tbf_ints.h"

#define SMALL 16u   /* blocks below gain nothing from exceptions: three bytes each */
#define SAMPLES 16u /* residuals sorted to see where most of them are */
#define TRIMMED 2u  /* samples left out at both ends */
/* Range over mean deviation: a uniform block has 4, a normal one 7, an exponential one 7. */
#define OUTLIER_RATIO 10u

typedef struct {
    int64_t r[TBF_INTS_BLOCK]; /* value - prediction */
    int64_t min, max;
    int64_t slope;
} residuals;

typedef struct {
    unsigned predictor, code;
    size_t exceptions;
    int64_t base, slope;
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

static void span_of(residuals *x, size_t k) {
    int64_t min = x->r[0], max = x->r[0];
    for (size_t i = 1; i < k; i++) {
        min = x->r[i] < min ? x->r[i] : min;
        max = x->r[i] > max ? x->r[i] : max;
    }
    x->min = min;
    x->max = max;
}

/* Fills x for one predictor; false where it does not apply. */
static bool reside(residuals *x, unsigned predictor, const tbf_ints *s, const int64_t *v,
                   size_t k) {
    int64_t last = s->last, step = s->step;
    switch (predictor) {
    case TBF_INTS_LAST:
        for (size_t i = 0; i < k; i++) {
            x->r[i] = minus(v[i], last);
        }
        break;
    case TBF_INTS_DELTA:
        x->r[0] = minus(v[0], last);
        for (size_t i = 1; i < k; i++) {
            x->r[i] = minus(v[i], v[i - 1]);
        }
        break;
    case TBF_INTS_DELTA2:
        for (size_t i = 0; i < k; i++) {
            int64_t delta = minus(v[i], last);
            x->r[i] = minus(delta, step);
            last = v[i];
            step = delta;
        }
        break;
    default: {
        int64_t climb = minus(v[k - 1], last);
        if (k < 3 || climb >= (int64_t)1 << 46 || climb <= -((int64_t)1 << 46)) {
            return false;
        }
        x->slope = climb * (1 << TBF_INTS_SLOPE_BITS) / (int64_t)k;
        for (size_t i = 0; i < k; i++) {
            int64_t up = ((int64_t)(i + 1) * x->slope) >> TBF_INTS_SLOPE_BITS;
            x->r[i] = minus(minus(v[i], last), up);
        }
    }
    }
    span_of(x, k);
    return true;
}

static size_t fixed_bits(const residuals *x, unsigned predictor, int64_t base) {
    return 8 + varint_bits(base) + (predictor == TBF_INTS_SLOPE ? varint_bits(x->slope) : 0);
}

static void offer(plan *best, const residuals *x, unsigned predictor, unsigned code, int64_t base,
                  size_t exceptions, size_t bits) {
    if (bits < best->bits) {
        *best = (plan){.predictor = predictor,
                       .code = code,
                       .exceptions = exceptions,
                       .base = base,
                       .slope = x->slope,
                       .bits = bits};
    }
}

static void offer_plain(plan *best, const residuals *x, unsigned predictor, size_t k) {
    unsigned code = code_of(bits_of((uint64_t)x->max - (uint64_t)x->min));
    offer(best, x, predictor, code, x->min, 0,
          fixed_bits(x, predictor, x->min) + tbf_ints_width(code) * k);
}

static bool has_outlier(const residuals *x, size_t k) {
    uint64_t range = (uint64_t)x->max - (uint64_t)x->min;
    if (range < 8 || range >= (uint64_t)1 << 56) {
        return range >= 8;
    }
    uint64_t sum = 0, deviation = 0;
    for (size_t i = 0; i < k; i++) {
        sum += (uint64_t)x->r[i] - (uint64_t)x->min;
    }
    uint64_t mean = sum / k;
    for (size_t i = 0; i < k; i++) {
        uint64_t above = (uint64_t)x->r[i] - (uint64_t)x->min;
        deviation += above > mean ? above - mean : mean - above;
    }
    return range / OUTLIER_RATIO > deviation / k;
}

/* Lowest and highest of most residuals. */
static void middle_of(const residuals *x, size_t k, int64_t *low, int64_t *high) {
    int64_t sample[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        int64_t r = x->r[i * k / SAMPLES];
        size_t at = i;
        for (; at > 0 && sample[at - 1] > r; at--) {
            sample[at] = sample[at - 1];
        }
        sample[at] = r;
    }
    *low = sample[TRIMMED];
    *high = sample[SAMPLES - 1 - TRIMMED];
}

static void offer_exceptions(plan *best, const residuals *x, unsigned predictor, size_t k) {
    int64_t low, high;
    middle_of(x, k, &low, &high);
    uint64_t middle = (uint64_t)high - (uint64_t)low, below = (uint64_t)low - (uint64_t)x->min;
    int64_t base = minus(low, (int64_t)(below < middle / 4 ? below : middle / 4));
    size_t count[65] = {0};
    for (size_t i = 0; i < k; i++) {
        count[bits_of((uint64_t)x->r[i] - (uint64_t)base)]++;
    }
    unsigned code = code_of(bits_of(middle));
    for (unsigned last = code + 3; code <= last && code < code_of(64); code++) {
        unsigned width = tbf_ints_width(code);
        size_t exceptions = 0, bits = fixed_bits(x, predictor, base) + 8 + width * k;
        for (unsigned wide = width + 1; wide <= 64; wide++) {
            exceptions += count[wide];
            bits += count[wide] * (8 + 8 * (size_t)((wide - width + 6) / 7));
        }
        if (exceptions > 0) {
            offer(best, x, predictor, code, base, exceptions, bits);
        }
    }
}

static plan choose(residuals x[4], const tbf_ints *s, const int64_t *v, size_t k) {
    plan best = {.bits = SIZE_MAX};
    bool applies[4];
    /* DELTA first: of equals it says most in the fewest bytes. */
    static const unsigned ORDER[4] = {TBF_INTS_DELTA, TBF_INTS_LAST, TBF_INTS_SLOPE,
                                      TBF_INTS_DELTA2};
    for (unsigned i = 0; i < 4; i++) {
        unsigned predictor = ORDER[i];
        x[predictor].slope = 0;
        applies[predictor] = reside(&x[predictor], predictor, s, v, k);
        if (applies[predictor]) {
            offer_plain(&best, &x[predictor], predictor, k);
        }
    }
    if (k >= SMALL && has_outlier(&x[TBF_INTS_DELTA], k)) {
        for (unsigned predictor = 0; predictor < 4; predictor++) {
            if (applies[predictor]) {
                offer_exceptions(&best, &x[predictor], predictor, k);
            }
        }
    }
    return best;
}

uint8_t *tbf_bits_put(uint8_t *p, const uint64_t *v, size_t k, unsigned width) {
    if (width == 64) {
        memcpy(p, v, k * sizeof *v);
        return p + k * sizeof *v;
    }
    uint64_t mask = ((uint64_t)1 << width) - 1, pending = 0;
    unsigned held = 0; /* bits in pending: below 8 before a value of at most 56 */
    for (size_t i = 0; i < k; i++) {
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
    residuals x[4];
    uint64_t u[TBF_INTS_BLOCK];
    if (!s->started) {
        p = tbf_put_varint(p, tbf_zigzag(*v));
        *s = (tbf_ints){.last = *v++, .started = true};
        if (--k == 0) {
            return p;
        }
    }
    plan chosen = choose(x, s, v, k);
    *p++ = (uint8_t)(chosen.code << TBF_INTS_WIDTH_SHIFT |
                     (chosen.exceptions > 0 ? TBF_INTS_EXCEPTIONS : 0) | chosen.predictor);
    if (chosen.predictor == TBF_INTS_SLOPE) {
        p = tbf_put_varint(p, tbf_zigzag(chosen.slope));
    }
    p = tbf_put_varint(p, tbf_zigzag(chosen.base));
    for (size_t i = 0; i < k; i++) {
        u[i] = (uint64_t)x[chosen.predictor].r[i] - (uint64_t)chosen.base;
    }
    if (chosen.exceptions > 0) {
        p = put_exceptions(p, u, k, &chosen);
    }
    s->step = minus(v[k - 1], k > 1 ? v[k - 2] : s->last);
    s->last = v[k - 1];
    return tbf_bits_put(p, u, k, tbf_ints_width(chosen.code));
}
