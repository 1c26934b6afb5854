/* Raw JSON text: see tbf_text.h. */
#include "tbf_text.h"

size_t tbf_utf8_sequence(const uint8_t *p, size_t n, bool *valid) {
    uint8_t lead = p[0], low = 0x80, high = 0xBF;
    *valid = lead < 0x80;
    if (lead < 0xC2 || lead > 0xF4) {
        return 1;
    }
    size_t wanted = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    /* Overlong forms, surrogates and values above U+10FFFF show in the second byte. */
    low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : low;
    high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : high;
    for (size_t i = 1; i < wanted; i++) {
        if (i == n || p[i] < low || p[i] > high) {
            return i;
        }
        low = 0x80;
        high = 0xBF;
    }
    *valid = true;
    return wanted;
}

uint8_t *tbf_put_utf8(uint8_t *out, uint32_t cp) {
    if (cp < 0x80) {
        *out++ = (uint8_t)cp;
    } else if (cp < 0x800) {
        *out++ = (uint8_t)(0xC0 | cp >> 6);
        *out++ = (uint8_t)(0x80 | (cp & 0x3F));
    } else if (cp < 0x10000) {
        *out++ = (uint8_t)(0xE0 | cp >> 12);
        *out++ = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (cp & 0x3F));
    } else {
        *out++ = (uint8_t)(0xF0 | cp >> 18);
        *out++ = (uint8_t)(0x80 | (cp >> 12 & 0x3F));
        *out++ = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (cp & 0x3F));
    }
    return out;
}

int32_t tbf_hex4(const uint8_t *p) {
    int32_t v = 0;
    for (unsigned i = 0; i < 4; i++) {
        uint8_t c = p[i], letter = c | 0x20;
        if (c >= '0' && c <= '9') {
            v = v << 4 | (c - '0');
        } else if (letter >= 'a' && letter <= 'f') {
            v = v << 4 | (letter - 'a' + 10);
        } else {
            return -1;
        }
    }
    return v;
}

static bool is_surrogate(int32_t unit) { return (unit & 0xF800) == 0xD800; }
static bool is_high(int32_t unit) { return (unit & 0xFC00) == 0xD800; }
static bool is_low(int32_t unit) { return (unit & 0xFC00) == 0xDC00; }

/* The low half escaped at p, or negative. */
static int32_t low_half(const uint8_t *p, const uint8_t *end) {
    if ((size_t)(end - p) < 6 || p[0] != '\\' || p[1] != 'u') {
        return -1;
    }
    int32_t unit = tbf_hex4(p + 2);
    return is_low(unit) ? unit : -1;
}

bool tbf_lone_surrogate(const uint8_t *p, const uint8_t *end, size_t *n) {
    int32_t unit = tbf_hex4(p + 2);
    *n = 6;
    if (!is_surrogate(unit)) {
        return false;
    }
    if (is_high(unit) && low_half(p + 6, end) >= 0) {
        *n = 12;
        return false;
    }
    return true;
}

static const uint8_t *take_escape(const uint8_t *p, const uint8_t *end, uint32_t *cp,
                                  uint32_t *repaired) {
    switch (p[1]) {
    case 'b':
        *cp = '\b';
        return p + 2;
    case 'f':
        *cp = '\f';
        return p + 2;
    case 'n':
        *cp = '\n';
        return p + 2;
    case 'r':
        *cp = '\r';
        return p + 2;
    case 't':
        *cp = '\t';
        return p + 2;
    case 'u':
        break;
    default: /* quotes, slashes, and the line feed of the lenient dialect stand for themselves */
        *cp = p[1];
        return p + 2;
    }
    int32_t unit = tbf_hex4(p + 2);
    p += 6;
    if (!is_surrogate(unit)) {
        *cp = (uint32_t)unit;
        return p;
    }
    int32_t low = is_high(unit) ? low_half(p, end) : -1;
    if (low < 0) {
        *cp = TBF_REPLACEMENT;
        ++*repaired;
        return p;
    }
    *cp = 0x10000u + ((uint32_t)(unit & 0x3FF) << 10 | (uint32_t)(low & 0x3FF));
    return p + 6;
}

const uint8_t *tbf_text_next(const uint8_t *p, const uint8_t *end, uint32_t *cp,
                             uint32_t *repaired) {
    if (*p == '\\') {
        return take_escape(p, end, cp, repaired);
    }
    bool valid;
    size_t n = tbf_utf8_sequence(p, (size_t)(end - p), &valid);
    if (!valid) {
        *cp = TBF_REPLACEMENT;
        ++*repaired;
        return p + n;
    }
    if (n == 1) {
        *cp = *p;
        return p + 1;
    }
    uint32_t v = *p & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++) {
        v = v << 6 | (p[i] & 0x3F);
    }
    *cp = v;
    return p + n;
}

size_t tbf_text_decode(uint8_t *out, tbf_span raw, bool valid_utf8, uint32_t *repaired) {
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    uint8_t *at = out;
    while (p < end) {
        if (valid_utf8 && *p != '\\') {
            const uint8_t *escape = memchr(p, '\\', (size_t)(end - p));
            size_t run = (size_t)((escape == NULL ? end : escape) - p);
            memcpy(at, p, run);
            at += run;
            p += run;
            continue;
        }
        uint32_t cp;
        p = tbf_text_next(p, end, &cp, repaired);
        at = tbf_put_utf8(at, cp);
    }
    return (size_t)(at - out);
}

bool tbf_text_longer(tbf_span raw, uint32_t limit) {
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    uint32_t cp, repaired = 0;
    for (size_t units = 0; p < end;) {
        p = tbf_text_next(p, end, &cp, &repaired);
        units += cp < 0x10000 ? 1 : 2;
        if (units > limit) {
            return true;
        }
    }
    return false;
}

/* The zero of each run of ten digits, ascending (Unicode 13, as of Java 17). */
static const uint16_t DIGIT_ZEROS[] = {
    0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
    0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10};

int tbf_digit_value(uint32_t cp) {
    if (cp < 0x80) {
        return cp >= '0' && cp <= '9' ? (int)(cp - '0') : -1;
    }
    for (size_t i = 0; i < sizeof DIGIT_ZEROS / sizeof *DIGIT_ZEROS && DIGIT_ZEROS[i] <= cp; i++) {
        if (cp - DIGIT_ZEROS[i] < 10) {
            return (int)(cp - DIGIT_ZEROS[i]);
        }
    }
    return -1;
}
