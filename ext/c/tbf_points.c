/* See tbf_points.h. */
#include "tbf_points.h"
#include "tbf_out.h"
#include "tbf_shortest.h"

#define AROUND (TBF_POINT_HEAD + 4u) /* head, two quotes, the closing brace, a comma */

static const char PAIRS[] = "00010203040506070809101112131415161718192021222324252627282930313233"
                            "34353637383940414243444546474849505152535455565758596061626364656667"
                            "6869707172737475767778798081828384858687888990919293949596979899";

/* Digits of v that end before `end`; returns the first one. */
static uint8_t *digits_before(uint8_t *end, uint64_t v) {
    while (v >= 100) {
        end -= 2;
        memcpy(end, PAIRS + 2 * (v % 100), 2);
        v /= 100;
    }
    if (v >= 10) {
        end -= 2;
        memcpy(end, PAIRS + 2 * v, 2);
    } else {
        *--end = (uint8_t)('0' + v);
    }
    return end;
}

static uint8_t *put_integer(uint8_t *p, int64_t v) {
    uint8_t digits[20];
    uint64_t magnitude = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    uint8_t *first = digits_before(digits + sizeof digits, magnitude);
    size_t n = (size_t)(digits + sizeof digits - first);
    if (v < 0) {
        *p++ = '-';
    }
    memcpy(p, first, n);
    return p + n;
}

static uint8_t *put_decimal(uint8_t *p, int64_t mantissa, uint8_t scale) {
    uint8_t digits[20];
    uint64_t magnitude = mantissa < 0 ? 0 - (uint64_t)mantissa : (uint64_t)mantissa;
    uint8_t *first = digits_before(digits + sizeof digits, magnitude);
    size_t n = (size_t)(digits + sizeof digits - first);
    if (n <= scale) { /* zeros to fill: the slow way has them */
        return p + tbf_decimal_text(p, mantissa, scale);
    }
    if (mantissa < 0) {
        *p++ = '-';
    }
    memcpy(p, first, n - scale);
    p += n - scale;
    if (scale > 0) {
        *p++ = '.';
        memcpy(p, first + n - scale, scale);
        p += scale;
    }
    return p;
}

size_t tbf_point_head(uint8_t *out, int64_t ts) {
    memcpy(out, "{\"ts\":", 6);
    uint8_t *p = put_integer(out + 6, ts);
    memcpy(p, ",\"value\":", 9);
    return (size_t)(p + 9 - out);
}

size_t tbf_points_bound(const tbf_cell *cells, size_t n) {
    size_t bound = n * (AROUND + TBF_OUT_NUMBER);
    for (size_t i = 0; i < n; i++) {
        if (cells[i].type == TBF_STRING || cells[i].type == TBF_JSON) {
            bound += tbf_out_string_bound(cells[i].n);
        } else if (cells[i].type == TBF_BYTES) {
            bound += 4 * ((size_t)cells[i].n / 3 + 1) + 2;
        }
    }
    return bound;
}

/* A number as short as it goes; NULL if that is not known here. */
static uint8_t *put_double(uint8_t *p, double v) {
    static const double ZERO = 0;
    int64_t mantissa;
    uint8_t scale;
    if (memcmp(&v, &ZERO, sizeof v) != 0 && v == 0) {
        memcpy(p, "-0.0", 4);
        return p + 4;
    }
    return tbf_double_decimal(v, &mantissa, &scale) ? put_decimal(p, mantissa, scale) : NULL;
}

static uint8_t *put_text(uint8_t *p, const tbf_cell *cell, bool strings) {
    tbf_span text = {cell->p, cell->n};
    if (cell->type == TBF_STRING) {
        return p + tbf_out_string(p, text);
    }
    if (cell->type == TBF_BYTES) {
        return p + tbf_out_base64(p, text);
    }
    if (text.n == 0) {
        return p;
    }
    if (strings && (*text.p == '{' || *text.p == '[')) {
        return p + tbf_out_string(p, text);
    }
    bool quoted = strings && *text.p != '"' && *text.p != 'n'; /* a string or null stays */
    if (quoted) {
        *p++ = '"';
    }
    memcpy(p, text.p, text.n);
    p += text.n;
    if (quoted) {
        *p++ = '"';
    }
    return p;
}

/* A value; NULL as of put_double. */
static uint8_t *put_value(uint8_t *p, const tbf_cell *cell, bool strings) {
    if (cell->type == TBF_STRING || cell->type == TBF_JSON || cell->type == TBF_BYTES) {
        return put_text(p, cell, strings);
    }
    if (cell->type == TBF_DOUBLE && !(cell->f64 - cell->f64 == 0)) {
        memcpy(p, "null", 4); /* JSON has neither NaN nor infinities */
        return p + 4;
    }
    if (strings) {
        *p++ = '"';
    }
    switch (cell->type) {
    case TBF_INT64:
        p = put_integer(p, cell->i64);
        break;
    case TBF_DECIMAL:
        p = put_decimal(p, cell->i64, cell->scale);
        break;
    case TBF_TRUE:
        memcpy(p, "true", 4);
        p += 4;
        break;
    case TBF_FALSE:
        memcpy(p, "false", 5);
        p += 5;
        break;
    default:
        if ((p = put_double(p, cell->f64)) == NULL) {
            return NULL;
        }
    }
    if (strings) {
        *p++ = '"';
    }
    return p;
}

size_t tbf_points_text(uint8_t *out, const int64_t *ts, const tbf_cell *cells, size_t n,
                       bool strings, size_t *done) {
    uint8_t *p = out;
    for (size_t i = 0; i < n; i++) {
        uint8_t *after = put_value(p + tbf_point_head(p, ts[i]), &cells[i], strings);
        if (after == NULL) {
            *done = i;
            return (size_t)(p - out);
        }
        *after++ = '}';
        *after++ = ',';
        p = after;
    }
    *done = n;
    return (size_t)(p - out);
}
