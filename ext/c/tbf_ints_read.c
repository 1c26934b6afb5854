/* Integer blocks: reader.  Layout in tbf_ints.h. */
#include "tbf_ints.h"

/* Every value by one unaligned load of 8 bytes, so 7 bytes beyond the last must be readable. */
static void unpack(const uint8_t *p, uint64_t *v, size_t k, unsigned width) {
    uint64_t mask = ((uint64_t)1 << width) - 1;
    size_t bit = 0;
    for (size_t i = 0; i < k; i++, bit += width) {
        v[i] = (tbf_load64(p + (bit >> 3)) >> (bit & 7)) & mask;
    }
}

const uint8_t *tbf_bits_get(const uint8_t *p, const uint8_t *end, uint64_t *v, size_t k,
                            unsigned width) {
    size_t wanted = tbf_bits_bytes(width, k), left = (size_t)(end - p);
    if (left < wanted) {
        return NULL;
    }
    if (width == 0) {
        memset(v, 0, k * sizeof *v);
    } else if (width == 64) {
        memcpy(v, p, k * sizeof *v);
    } else if (left - wanted >= 8) {
        unpack(p, v, k, width);
    } else {
        uint8_t copy[TBF_INTS_BLOCK * 7 + 8];
        memcpy(copy, p, wanted);
        memset(copy + wanted, 0, 8);
        unpack(copy, v, k, width);
    }
    return p + wanted;
}

/* Adds prediction and base.  Unsigned throughout: stored bytes may ask for any wrap. */
static void predict(tbf_ints *s, uint64_t *v, size_t k, unsigned predictor, uint64_t slope,
                    uint64_t base) {
    uint64_t last = (uint64_t)s->last, step = (uint64_t)s->step;
    uint64_t before = last; /* value before the last one */
    switch (predictor) {
    case TBF_INTS_LAST:
        for (size_t i = 0; i < k; i++) {
            v[i] += last + base;
        }
        break;
    case TBF_INTS_DELTA:
        for (size_t i = 0; i < k; i++) {
            last = v[i] += last + base;
        }
        break;
    case TBF_INTS_DELTA2:
        for (size_t i = 0; i < k; i++) {
            step += v[i] + base;
            last = v[i] = last + step;
        }
        break;
    default:
        for (size_t i = 0; i < k; i++) {
            uint64_t climb = (uint64_t)((int64_t)((i + 1) * slope) >> TBF_INTS_SLOPE_BITS);
            v[i] += last + climb + base;
        }
    }
    if (k > 1) {
        before = v[k - 2];
    }
    s->step = (int64_t)(v[k - 1] - before);
    s->last = (int64_t)v[k - 1];
}

static const uint8_t *get_exceptions(const uint8_t *p, const uint8_t *end, uint64_t *high,
                                     const uint8_t **positions, size_t *count, size_t k) {
    if (p == end || (size_t)(end - p) - 1 < *p) {
        return NULL;
    }
    *count = *p++;
    *positions = p;
    p += *count;
    for (size_t i = 0; i < *count; i++) {
        if (i >= k || (*positions)[i] >= k || (p = tbf_get_varint(p, end, &high[i])) == NULL) {
            return NULL;
        }
    }
    return p;
}

const uint8_t *tbf_ints_get(const uint8_t *p, const uint8_t *end, tbf_ints *s, int64_t *v,
                            size_t k) {
    uint64_t slope = 0, base, high[TBF_INTS_BLOCK];
    const uint8_t *positions = NULL;
    size_t exceptions = 0;
    if (!s->started) {
        uint64_t first;
        if ((p = tbf_get_varint(p, end, &first)) == NULL) {
            return NULL;
        }
        *v = s->last = tbf_unzigzag(first);
        s->step = 0;
        s->started = true;
        if (--k == 0) {
            return p;
        }
        v++;
    }
    if (p == end) {
        return NULL;
    }
    unsigned head = *p++, width = tbf_ints_width(head >> TBF_INTS_WIDTH_SHIFT);
    if ((head & 3) == TBF_INTS_SLOPE && (p = tbf_get_varint(p, end, &slope)) == NULL) {
        return NULL;
    }
    if ((p = tbf_get_varint(p, end, &base)) == NULL) {
        return NULL;
    }
    if ((head & TBF_INTS_EXCEPTIONS) != 0) {
        p = width == 64 ? NULL : get_exceptions(p, end, high, &positions, &exceptions, k);
        if (p == NULL) {
            return NULL;
        }
    }
    /* int64_t and uint64_t may alias. */
    uint64_t *u = (uint64_t *)v;
    if ((p = tbf_bits_get(p, end, u, k, width)) == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < exceptions; i++) {
        u[positions[i]] |= high[i] << width;
    }
    predict(s, u, k, head & 3, (uint64_t)tbf_unzigzag(slope), (uint64_t)tbf_unzigzag(base));
    return p;
}
