/* Double blocks: writer and reader.  Layout in tbf_doubles.h. */
#include "tbf_doubles.h"

#define SAMPLES 8u
#define MANTISSA_LIMIT 2251799813685248.0 /* 2^51: doubles there are exact integers */

static double of_bits(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static const double POWERS[TBF_DOUBLES_EXPONENT_MAX + 1] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5,
                                                            1e6, 1e7, 1e8, 1e9, 1e10};

static uint64_t value_of(int64_t mantissa, unsigned exponent, bool is_float) {
    double v = (double)mantissa / POWERS[exponent];
    return to_bits(is_float ? (double)(float)v : v);
}

/* The mantissa that gives exactly these bits back; false if there is none. */
static bool mantissa_of(uint64_t bits, unsigned exponent, bool is_float, int64_t *out) {
    double scaled = of_bits(bits) * POWERS[exponent];
    if (!(scaled < MANTISSA_LIMIT && scaled > -MANTISSA_LIMIT)) { /* also NaN */
        return false;
    }
    *out = (int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5));
    return value_of(*out, exponent, is_float) == bits;
}

/* Fills m; returns how many values are not such decimals, counting no further than `most` + 1.
 * Those repeat the mantissa before them. */
static size_t try_decimals(const uint64_t *v, size_t k, unsigned exponent, bool is_float,
                           size_t most, int64_t *m, uint8_t *positions) {
    size_t failed = 0;
    int64_t last = 0;
    for (size_t i = 0; i < k && failed <= most; i++) {
        if (mantissa_of(v[i], exponent, is_float, &m[i])) {
            last = m[i];
        } else {
            m[i] = last;
            positions[failed++] = (uint8_t)i;
        }
    }
    return failed;
}

/* Mode and exponent for these values, judged by a few of them: the smallest that fits. */
static unsigned guess_head(const uint64_t *v, size_t k) {
    uint64_t sample[SAMPLES];
    int64_t m[SAMPLES];
    uint8_t positions[SAMPLES + 1];
    size_t n = k < SAMPLES ? k : SAMPLES;
    bool floats = true;
    for (size_t i = 0; i < n; i++) {
        sample[i] = v[i * k / n];
        /* The low 29 bits of a float's mantissa are zero; denormals do not matter here. */
        floats = floats && (sample[i] & 0x1FFFFFFF) == 0;
    }
    for (unsigned mode = TBF_DOUBLES_DECIMAL; mode <= (floats ? 2u : 1u); mode++) {
        for (unsigned exponent = 0; exponent <= TBF_DOUBLES_EXPONENT_MAX; exponent++) {
            if (try_decimals(sample, n, exponent, mode == TBF_DOUBLES_FLOAT, n / 8, m, positions) <=
                n / 8) {
                return exponent << TBF_DOUBLES_EXPONENT_SHIFT | mode;
            }
        }
    }
    return TBF_DOUBLES_XOR;
}

static uint8_t *put_decimals(uint8_t *p, tbf_doubles *s, const uint64_t *v, size_t k) {
    int64_t m[TBF_INTS_BLOCK];
    uint8_t positions[TBF_INTS_BLOCK + 1];
    if ((s->head & 3) == TBF_DOUBLES_XOR) {
        return NULL;
    }
    unsigned exponent = s->head >> TBF_DOUBLES_EXPONENT_SHIFT;
    size_t most = k / 8;
    size_t failed =
        try_decimals(v, k, exponent, (s->head & 3) == TBF_DOUBLES_FLOAT, most, m, positions);
    if (failed > most) {
        return NULL;
    }
    *p++ = (uint8_t)(s->head | (failed > 0 ? TBF_DOUBLES_EXCEPTIONS : 0));
    if (failed > 0) {
        *p++ = (uint8_t)failed;
        for (size_t i = 0; i < failed; i++) {
            *p++ = positions[i];
            tbf_store64(p, v[positions[i]]);
            p += 8;
        }
    }
    return tbf_ints_put(p, &s->mantissas, m, k);
}

static uint8_t *put_xor(uint8_t *p, tbf_doubles *s, const uint64_t *v, size_t k) {
    uint64_t x[TBF_INTS_BLOCK], any = 0, last = s->last;
    *p++ = TBF_DOUBLES_XOR;
    if (!s->started) {
        tbf_store64(p, *v);
        p += 8;
        last = *v++;
        k--;
    }
    for (size_t i = 0; i < k; i++) {
        x[i] = v[i] ^ last;
        any |= x[i];
        last = v[i];
    }
    unsigned shift = any == 0 ? 0 : (unsigned)__builtin_ctzll(any);
    unsigned width = any == 0 ? 0 : 64 - (unsigned)__builtin_clzll(any) - shift;
    if (width > 56) {
        shift = 0;
        width = 64;
    }
    for (size_t i = 0; i < k; i++) {
        x[i] >>= shift;
    }
    *p++ = (uint8_t)shift;
    *p++ = (uint8_t)width;
    return tbf_bits_put(p, x, k, width);
}

uint8_t *tbf_doubles_put(uint8_t *p, tbf_doubles *s, const uint64_t *v, size_t k) {
    uint8_t *after = put_decimals(p, s, v, k);
    if (after == NULL) {
        s->head = guess_head(v, k);
        after = put_decimals(p, s, v, k);
    }
    if (after == NULL) {
        after = put_xor(p, s, v, k);
    }
    s->started = true;
    s->last = v[k - 1];
    return after;
}

static const uint8_t *get_decimals(const uint8_t *p, const uint8_t *end, tbf_doubles *s,
                                   unsigned head, uint64_t *v, size_t k) {
    unsigned exponent = head >> TBF_DOUBLES_EXPONENT_SHIFT;
    bool is_float = (head & 3) == TBF_DOUBLES_FLOAT;
    const uint8_t *exceptions = NULL;
    size_t count = 0;
    int64_t m[TBF_INTS_BLOCK];
    if (exponent > TBF_DOUBLES_EXPONENT_MAX) {
        return NULL;
    }
    if ((head & TBF_DOUBLES_EXCEPTIONS) != 0) {
        if (p == end || (size_t)(end - p) - 1 < *p * 9u) {
            return NULL;
        }
        count = *p++;
        exceptions = p;
        p += count * 9;
    }
    if ((p = tbf_ints_get(p, end, &s->mantissas, m, k)) == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < k; i++) {
        v[i] = value_of(m[i], exponent, is_float);
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = exceptions[i * 9];
        if (at >= k) {
            return NULL;
        }
        v[at] = tbf_load64(exceptions + i * 9 + 1);
    }
    return p;
}

static const uint8_t *get_xor(const uint8_t *p, const uint8_t *end, tbf_doubles *s, uint64_t *v,
                              size_t k) {
    uint64_t last = s->last;
    if (!s->started) {
        if ((size_t)(end - p) < 8) {
            return NULL;
        }
        last = *v++ = tbf_load64(p);
        p += 8;
        k--;
    }
    if ((size_t)(end - p) < 2) {
        return NULL;
    }
    unsigned shift = *p++, width = *p++;
    if ((width > 56 && width != 64) || shift > 63 || width + shift > 64) {
        return NULL;
    }
    if ((p = tbf_bits_get(p, end, v, k, width)) == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < k; i++) {
        last = v[i] = v[i] << shift ^ last;
    }
    return p;
}

const uint8_t *tbf_doubles_get(const uint8_t *p, const uint8_t *end, tbf_doubles *s, uint64_t *v,
                               size_t k) {
    if (p == end) {
        return NULL;
    }
    unsigned head = *p++;
    switch (head & 3) {
    case TBF_DOUBLES_XOR:
        p = get_xor(p, end, s, v, k);
        break;
    case TBF_DOUBLES_DECIMAL:
    case TBF_DOUBLES_FLOAT:
        p = get_decimals(p, end, s, head, v, k);
        break;
    default:
        return NULL;
    }
    if (p != NULL) {
        s->started = true;
        s->last = v[k - 1];
    }
    return p;
}
