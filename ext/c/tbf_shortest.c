/* See tbf_shortest.h.  Numbers of everyday size take 128-bit arithmetic; the digits of the others
 * come from free-format printing with exact integers (Steele and White, Dragon4): slow beside
 * tables of powers, but short, and rare. */
#include "tbf_shortest.h"

#define LIMBS 20u /* 2^1130, what the smallest and the largest double need, and one digit more */
/* Every decimal of so many digits has a number of its own, so the first that reads back is it. */
#define DOUBLE_DIGITS_LIMIT 1e15
#define FLOAT_DIGITS_LIMIT 1e6f

/* Exact in their type: up to 10^22 in a double, 10^10 in a float. */
static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8, 1e9,
                                1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18};
#define SCALES (sizeof POWERS / sizeof *POWERS)
static const float FLOAT_POWERS[] = {1e0f, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f,
                                     1e6f, 1e7f, 1e8f, 1e9f, 1e10f};
#define FLOAT_SCALES (sizeof FLOAT_POWERS / sizeof *FLOAT_POWERS)

static uint64_t power_of_ten(uint32_t n) {
    uint64_t v = 1;
    while (n-- > 0) {
        v *= 10;
    }
    return v;
}

/* A finite number as f * 2^e. */
typedef struct {
    uint64_t f;
    int32_t e;
    bool negative, uneven; /* uneven: the neighbour below is half as far as the one above */
} binary;

static binary split(uint64_t bits, uint32_t fraction_bits, uint32_t exponent_bits) {
    uint64_t fraction = bits & (((uint64_t)1 << fraction_bits) - 1);
    uint32_t field = (uint32_t)(bits >> fraction_bits) & ((1u << exponent_bits) - 1);
    int32_t bias = (int32_t)((1u << (exponent_bits - 1)) - 1 + fraction_bits);
    return (binary){.f = field == 0 ? fraction : fraction | (uint64_t)1 << fraction_bits,
                    .e = (int32_t)(field == 0 ? 1 : field) - bias,
                    .negative = bits >> (fraction_bits + exponent_bits) != 0,
                    .uneven = fraction == 0 && field > 1};
}

static binary split_double(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return split(bits, 52, 11);
}

static binary split_float(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return split(bits, 23, 8);
}

/* Digits of a number from 0.001 to 10,000,000 whose shortest decimal has `most` digits or up to
 * `fewer` less: `scale` of them stand behind the point when there are `most`. */
static uint64_t long_digits(const binary *b, uint32_t *scale, uint32_t fewer) {
    typedef unsigned __int128 wide; /* f < 2^53, scale <= 19: below 2^118 */
    const uint64_t half = power_of_ten(*scale);
    const wide x = (wide)(2 * b->f) * half;
    const uint32_t shift = (uint32_t)(1 - b->e);
    const bool even = (b->f & 1) == 0;
    for (uint32_t drop = fewer;; drop--) {
        const uint64_t step = power_of_ten(drop);
        const uint64_t low = (uint64_t)(x >> shift) / step;
        const wide under = x - ((wide)(low * step) << shift);
        const wide over = ((wide)step << shift) - under;
        /* Half a distance below, in units of x; doubled where it is halved. */
        const bool low_fits =
            b->uneven ? 2 * under <= half : under < half || (even && under == half);
        const bool high_fits = over < half || (even && over == half);
        if (low_fits || high_fits || drop == 0) {
            bool up = high_fits && (!low_fits || over < under || (over == under && (low & 1) != 0));
            *scale -= drop;
            return low + up;
        }
    }
}

/* Digits before the point of a number from 0.001 to 10,000,000: -2 to 7. */
static int32_t integer_digits(double a) {
    int32_t n = a < 1e-2 ? -2 : a < 1e-1 ? -1 : 0;
    while (n >= 0 && a >= POWERS[n]) {
        n++;
    }
    return n;
}

static bool found(const binary *b, uint64_t m, uint32_t s, int64_t *mantissa, uint8_t *scale) {
    if (s == 0) {
        m *= 10;
        s = 1;
    }
    *mantissa = b->negative ? -(int64_t)m : (int64_t)m;
    *scale = (uint8_t)s;
    return true;
}

bool tbf_double_decimal(double v, int64_t *mantissa, uint8_t *scale) {
    const binary b = split_double(v);
    const double a = b.negative ? -v : v;
    if (!(a < 1e7 && (a >= 1e-3 || a == 0))) {
        return false;
    }
    for (uint32_t s = 0; s < SCALES; s++) {
        double scaled = a * POWERS[s];
        if (scaled >= DOUBLE_DIGITS_LIMIT) {
            break;
        }
        uint64_t m = (uint64_t)(scaled + 0.5);
        if ((double)m / POWERS[s] == a) {
            return found(&b, m, s, mantissa, scale);
        }
    }
    uint32_t s = (uint32_t)(17 - integer_digits(a));
    uint64_t m = long_digits(&b, &s, 1);
    return found(&b, m, s, mantissa, scale);
}

bool tbf_float_decimal(float v, int64_t *mantissa, uint8_t *scale) {
    const binary b = split_float(v);
    const float a = b.negative ? -v : v;
    if (!(a < 1e7f && (a >= 1e-3f || a == 0))) {
        return false;
    }
    for (uint32_t s = 0; s < FLOAT_SCALES; s++) {
        float scaled = a * FLOAT_POWERS[s];
        if (scaled >= FLOAT_DIGITS_LIMIT) {
            break;
        }
        uint64_t m = (uint64_t)(scaled + 0.5f);
        if ((float)m / FLOAT_POWERS[s] == a) {
            return found(&b, m, s, mantissa, scale);
        }
    }
    uint32_t s = (uint32_t)(9 - integer_digits((double)a));
    uint64_t m = long_digits(&b, &s, 2);
    return found(&b, m, s, mantissa, scale);
}

/* ---- exact integers ---- */

typedef struct {
    uint64_t limb[LIMBS];
    uint32_t n; /* limbs in use; those above are not set */
} big;

static void big_set(big *a, uint64_t v) {
    a->limb[0] = v;
    a->n = 1;
}

static void big_scale(big *a, uint64_t factor) {
    unsigned __int128 carry = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        carry += (unsigned __int128)a->limb[i] * factor;
        a->limb[i] = (uint64_t)carry;
        carry >>= 64;
    }
    if (carry != 0 && a->n < LIMBS) {
        a->limb[a->n++] = (uint64_t)carry;
    }
}

static void big_shift(big *a, uint32_t bits) {
    for (; bits >= 32; bits -= 32) {
        big_scale(a, (uint64_t)1 << 32);
    }
    big_scale(a, (uint64_t)1 << bits);
}

static void big_power(big *a, uint32_t power) {
    for (; power >= 19; power -= 19) {
        big_scale(a, 10000000000000000000u);
    }
    for (; power > 0; power--) {
        big_scale(a, 10);
    }
}

static int big_compare(const big *a, const big *b) {
    if (a->n != b->n) {
        return a->n < b->n ? -1 : 1;
    }
    for (uint32_t i = a->n; i-- > 0;) {
        if (a->limb[i] != b->limb[i]) {
            return a->limb[i] < b->limb[i] ? -1 : 1;
        }
    }
    return 0;
}

static void big_add(big *a, const big *b) {
    unsigned __int128 carry = 0;
    for (uint32_t i = 0; i < a->n || i < b->n || carry != 0; i++) {
        if (i == LIMBS) {
            return; /* never: LIMBS has room for a digit more */
        }
        carry += i < a->n ? a->limb[i] : 0;
        carry += i < b->n ? b->limb[i] : 0;
        a->limb[i] = (uint64_t)carry;
        carry >>= 64;
        a->n = i + 1 > a->n ? i + 1 : a->n;
    }
}

/* a - b, which is not negative. */
static void big_subtract(big *a, const big *b) {
    uint64_t borrow = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t take = i < b->n ? b->limb[i] : 0, before = a->limb[i];
        a->limb[i] = before - take - borrow;
        borrow = before < take || (before == take && borrow != 0);
    }
    while (a->n > 1 && a->limb[a->n - 1] == 0) {
        a->n--;
    }
}

/* ---- digits ---- */

/* The number r / s * 10^exponent, and half the distances to its neighbours, in the same unit. */
typedef struct {
    big r, s, below, above;
    int32_t exponent;
    bool even; /* the borders themselves read back as the number */
} ratio;

/* Whether r + above reaches s. */
static bool reaches(const ratio *q, const big *s) {
    big sum = q->r;
    big_add(&sum, &q->above);
    int c = big_compare(&sum, s);
    return c > 0 || (c == 0 && q->even);
}

/* f * 2^e as a ratio whose first digit is 1 to 9.  uneven: the neighbour below is half as far. */
static void begin(ratio *q, uint64_t f, int32_t e, bool uneven) {
    big_set(&q->r, f);
    big_set(&q->s, 1);
    big_set(&q->below, 1);
    big_shift(&q->r, uneven ? 2 : 1);
    big_shift(&q->s, uneven ? 2 : 1);
    if (e > 0) {
        big_shift(&q->r, (uint32_t)e);
        big_shift(&q->below, (uint32_t)e);
    } else {
        big_shift(&q->s, (uint32_t)-e);
    }
    q->above = q->below;
    big_shift(&q->above, uneven ? 1 : 0);
    q->even = (f & 1) == 0;
    /* At most two below the decimal exponent: 78,913 / 2^18 is just under log10(2). */
    int32_t bits = e + 63 - __builtin_clzll(f);
    q->exponent = (int32_t)(((int64_t)bits * 78913) >> 18) - 1;
    if (q->exponent > 0) {
        big_power(&q->s, (uint32_t)q->exponent);
    } else {
        uint32_t power = (uint32_t)-q->exponent;
        big_power(&q->r, power);
        big_power(&q->below, power);
        big_power(&q->above, power);
    }
    for (;;) {
        big ten = q->s;
        big_scale(&ten, 10);
        if (!reaches(q, &ten)) {
            return;
        }
        q->s = ten;
        q->exponent++;
    }
}

static uint64_t next_digit(ratio *q) {
    uint64_t digit = 0;
    while (big_compare(&q->r, &q->s) >= 0) {
        big_subtract(&q->r, &q->s);
        digit++;
    }
    return digit;
}

static void next_place(ratio *q) {
    big_scale(&q->r, 10);
    big_scale(&q->below, 10);
    big_scale(&q->above, 10);
}

/* Shortest digits, of one or two the nearest (Java prints 4.9E-324), without zeros at the end;
 * the first stands for 10^q->exponent. */
static uint64_t generate(ratio *q) {
    uint64_t digits = next_digit(q), limit = 10;
    if (digits == 0) { /* the next power of ten may be nearer than any other short decimal */
        q->exponent--;
        next_place(q);
        digits = next_digit(q);
    }
    for (;;) {
        int c = big_compare(&q->r, &q->below);
        bool low = c < 0 || (c == 0 && q->even), high = reaches(q, &q->s);
        bool whole = q->r.n == 1 && q->r.limb[0] == 0;
        if (whole) {
            break;
        }
        if (limit > 10 && (low || high)) {
            big twice = q->r;
            big_scale(&twice, 2);
            c = big_compare(&twice, &q->s);
            digits += high && (!low || c > 0 || (c == 0 && (digits & 1) != 0));
            break;
        }
        next_place(q);
        digits = digits * 10 + next_digit(q);
        limit *= 10;
    }
    if (digits == limit) {
        q->exponent++;
    }
    while (digits % 10 == 0) {
        digits /= 10;
    }
    return digits;
}

/* ---- Java's form ---- */

static uint32_t count_digits(uint64_t v) {
    uint32_t n = 1;
    for (; v >= 10; v /= 10) {
        n++;
    }
    return n;
}

static uint8_t *put_digits(uint8_t *p, uint64_t v, uint32_t n) {
    for (uint32_t i = n; i-- > 0; v /= 10) {
        p[i] = (uint8_t)('0' + v % 10);
    }
    return p + n;
}

/* digits has n of them; its first stands for 10^exponent. */
static uint8_t *put_java(uint8_t *p, uint64_t digits, uint32_t n, int32_t exponent) {
    uint8_t text[20];
    (void)put_digits(text, digits, n);
    bool plain = exponent >= -3 && exponent < 7;
    int32_t before = plain ? exponent + 1 : 1; /* digits before the point */
    if (before <= 0) {
        *p++ = '0';
    }
    for (int32_t i = 0; i < before; i++) {
        *p++ = i < (int32_t)n ? text[i] : (uint8_t)'0';
    }
    *p++ = '.';
    for (int32_t i = before; i < 0; i++) {
        *p++ = '0';
    }
    uint32_t at = before > 0 ? (uint32_t)before : 0;
    if (at >= n) {
        *p++ = '0';
    }
    for (; at < n; at++) {
        *p++ = text[at];
    }
    if (!plain) {
        *p++ = 'E';
        if (exponent < 0) {
            *p++ = '-';
            exponent = -exponent;
        }
        p = put_digits(p, (uint64_t)exponent, count_digits((uint64_t)exponent));
    }
    return p;
}

static size_t put_found(uint8_t *out, bool negative, int64_t mantissa, uint8_t scale) {
    uint64_t digits = (uint64_t)(mantissa < 0 ? -mantissa : mantissa);
    uint32_t n = count_digits(digits);
    uint8_t *p = out;
    if (negative) {
        *p++ = '-';
    }
    if (digits == 0) {
        memcpy(p, "0.0", 3);
        return (size_t)(p - out) + 3;
    }
    return (size_t)(put_java(p, digits, n, (int32_t)n - 1 - scale) - out);
}

static size_t put_exactly(uint8_t *out, const binary *b) {
    ratio q;
    uint8_t *p = out;
    if (b->negative) {
        *p++ = '-';
    }
    begin(&q, b->f, b->e, b->uneven);
    uint64_t digits = generate(&q);
    return (size_t)(put_java(p, digits, count_digits(digits), q.exponent) - out);
}

size_t tbf_double_text(uint8_t *out, double v) {
    const binary b = split_double(v);
    int64_t mantissa;
    uint8_t scale;
    return tbf_double_decimal(v, &mantissa, &scale) ? put_found(out, b.negative, mantissa, scale)
                                                    : put_exactly(out, &b);
}

size_t tbf_float_text(uint8_t *out, float v) {
    const binary b = split_float(v);
    int64_t mantissa;
    uint8_t scale;
    return tbf_float_decimal(v, &mantissa, &scale) ? put_found(out, b.negative, mantissa, scale)
                                                   : put_exactly(out, &b);
}
