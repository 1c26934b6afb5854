/* Number text to a typed value; rules in MQTT spec 3.3, names after java.math.BigDecimal. */
#include "tbf_num.h"

#define INT64_DIGITS 19u
#define DOUBLE_INTEGER_DIGITS 309 /* of the largest double */
#define EXPONENT_CAP                                                                               \
    1000000000000000 /* beyond any message length; no overflow when added to one                   \
                      */
#define LIMBS 20u    /* 325 digits take 17; one more for the shift */

static const uint64_t POWERS[INT64_DIGITS + 1] = {1u,
                                                  10u,
                                                  100u,
                                                  1000u,
                                                  10000u,
                                                  100000u,
                                                  1000000u,
                                                  10000000u,
                                                  100000000u,
                                                  1000000000u,
                                                  10000000000u,
                                                  100000000000u,
                                                  1000000000000u,
                                                  10000000000000u,
                                                  100000000000000u,
                                                  1000000000000000u,
                                                  10000000000000000u,
                                                  100000000000000000u,
                                                  1000000000000000000u,
                                                  10000000000000000000u};

typedef struct {
    size_t trailing; /* zeros at the end of the digits */
    bool has_point, has_exponent;
} shape;

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static int64_t read_exponent(const uint8_t *p, const uint8_t *end) {
    bool negative = *p == '-';
    int64_t v = 0;
    for (p += *p == '-' || *p == '+'; p < end; p++) {
        v = v > EXPONENT_CAP ? v : v * 10 + (*p - '0');
    }
    return negative ? -v : v;
}

static shape read_digits(tbf_span t, tbf_num *num) {
    const uint8_t *p = t.p, *end = t.p + t.n;
    shape s = {0};
    int64_t decimals = 0;
    num->negative = *p == '-';
    num->first = end;
    num->digits = 0;
    for (p += num->negative; p < end; p++) {
        if (is_digit(*p)) {
            decimals += s.has_point;
            if (num->digits > 0 || *p != '0') {
                num->first = num->digits == 0 ? p : num->first;
                num->digits++;
                s.trailing = *p == '0' ? s.trailing + 1 : 0;
            }
        } else if (*p == '.') {
            s.has_point = true;
        } else {
            s.has_exponent = true;
            decimals -= read_exponent(p + 1, end);
            break;
        }
    }
    num->decimals = decimals;
    return s;
}

/* The first n digits (n <= 19) as a number. */
static uint64_t take_digits(const uint8_t *p, size_t n) {
    uint64_t v = 0;
    while (n > 0) {
        if (*p != '.') {
            v = v * 10 + (uint64_t)(*p - '0');
            n--;
        }
        p++;
    }
    return v;
}

/* n digits followed by `zeros` zeros as a signed number, if it fits. */
static bool to_int64(const tbf_num *num, size_t n, size_t zeros, int64_t *out) {
    if (n > INT64_DIGITS || zeros > INT64_DIGITS - n) {
        return false;
    }
    uint64_t v = take_digits(num->first, n) * POWERS[zeros];
    if (v > (uint64_t)INT64_MAX + num->negative) {
        return false;
    }
    *out = (int64_t)(num->negative ? 0 - v : v);
    return true;
}

static size_t plain_length(const tbf_num *num) {
    if (num->decimals <= 0) {
        return num->negative + num->digits + (size_t)-num->decimals;
    }
    size_t decimals = (size_t)num->decimals;
    size_t integer = num->digits > decimals ? num->digits - decimals : 1;
    return (num->negative && num->digits > 0) + integer + 1 + decimals;
}

static bool explodes(const tbf_num *num, const shape *s, tbf_span t, uint32_t max_plain) {
    size_t n = plain_length(num);
    return s->has_exponent && num->digits > 0 && n > max_plain && n > t.n;
}

/* Correctly rounded digits * 10^-decimals by long arithmetic: 1 <= decimals <= 16, at most
 * DOUBLE_INTEGER_DIGITS + 16 digits, value at least 1.  False if it exceeds the largest double. */
static bool to_double(const tbf_num *num, size_t digits, size_t decimals, double *out) {
    uint64_t limb[LIMBS] = {0};
    size_t used = 1; /* limb 0 stays zero: the value is shifted left by 64 bits */
    const uint8_t *p = num->first;
    while (digits > 0) {
        size_t n = digits < INT64_DIGITS - 1 ? digits : INT64_DIGITS - 1;
        unsigned __int128 carry = take_digits(p, n);
        for (size_t i = 1; i < used; i++) {
            carry += (unsigned __int128)limb[i] * POWERS[n];
            limb[i] = (uint64_t)carry;
            carry >>= 64;
        }
        if (carry != 0 || used == 1) {
            limb[used++] = (uint64_t)carry;
        }
        digits -= n;
        for (; n > 0; p++) {
            n -= *p != '.';
        }
    }
    uint64_t rest = 0;
    for (size_t i = used; i-- > 0;) {
        unsigned __int128 part = (unsigned __int128)rest << 64 | limb[i];
        limb[i] = (uint64_t)(part / POWERS[decimals]);
        rest = (uint64_t)(part % POWERS[decimals]);
    }
    while (limb[used - 1] == 0) {
        used--;
    }
    /* The top 64 bits, and whether anything below them is set. */
    unsigned lead = (unsigned)__builtin_clzll(limb[used - 1]);
    uint64_t below = used >= 2 ? limb[used - 2] : 0;
    uint64_t top = limb[used - 1] << lead | (lead == 0 ? 0 : below >> (64 - lead));
    bool sticky = rest != 0 || (lead == 0 ? below : below << lead) != 0;
    for (size_t i = 0; i + 2 < used; i++) {
        sticky = sticky || limb[i] != 0;
    }
    uint64_t fraction = top >> 11, dropped = top & 0x7FF;
    uint64_t exponent = (uint64_t)(used - 1) * 64 - 64 + 63 - lead;
    if (dropped > 0x400 || (dropped == 0x400 && (sticky || (fraction & 1) != 0))) {
        fraction++; /* a carry into bit 53 raises the exponent by itself, below */
    }
    uint64_t bits = ((exponent + 1022) << 52) + fraction;
    if (bits >= (uint64_t)0x7FF << 52) {
        return false;
    }
    bits |= (uint64_t)num->negative << 63;
    memcpy(out, &bits, sizeof bits);
    return true;
}

static void keep_text(tbf_num *num, const shape *s, tbf_span t, uint32_t max_plain) {
    num->kind = explodes(num, s, t, max_plain) ? TBF_NUM_EXPLODES : TBF_NUM_TEXT;
    num->text_n = plain_length(num);
}

void tbf_num_read(tbf_span t, uint32_t max_plain, tbf_num *num) {
    shape s = read_digits(t, num);
    bool integral = num->digits == 0 || num->decimals <= (int64_t)s.trailing;
    if (integral && !(s.has_point && !s.has_exponent)) {
        int64_t zeros = (int64_t)s.trailing - num->decimals;
        num->kind = TBF_NUM_INT64;
        num->i64 = 0;
        if (num->digits > 0 && !to_int64(num, num->digits - s.trailing, (size_t)zeros, &num->i64)) {
            keep_text(num, &s, t, max_plain);
        }
        return;
    }
    if (num->decimals > TBF_NUM_MAX_DECIMALS) {
        keep_text(num, &s, t, max_plain);
        return;
    }
    /* Zeros at the end go, but one decimal stays: 3.0 is a DOUBLE and must be seen as one. */
    size_t decimals = (size_t)num->decimals, cut = s.trailing;
    if (num->digits == 0 || cut >= decimals) {
        cut = decimals - 1;
    }
    decimals -= cut;
    num->scale = (uint8_t)decimals;
    size_t digits = num->digits > cut ? num->digits - cut : 0;
    if (to_int64(num, digits, 0, &num->i64)) {
        num->kind = TBF_NUM_DECIMAL;
    } else if (digits - decimals <= DOUBLE_INTEGER_DIGITS &&
               to_double(num, digits, decimals, &num->f64)) {
        num->kind = TBF_NUM_DOUBLE;
    } else {
        keep_text(num, &s, t, max_plain); /* never infinity by accident (hostile input J3) */
    }
}

void tbf_num_text(uint8_t *out, const tbf_num *num) {
    const uint8_t *p = num->first;
    size_t left = num->digits;
    if (num->negative && num->digits > 0) {
        *out++ = '-';
    }
    if (num->decimals > 0 && left <= (size_t)num->decimals) {
        size_t zeros = (size_t)num->decimals - left;
        *out++ = '0';
        *out++ = '.';
        memset(out, '0', zeros);
        out += zeros;
    }
    for (; left > 0; p++) {
        if (*p != '.') {
            *out++ = *p;
            left--;
            if (num->decimals > 0 && left == (size_t)num->decimals) {
                *out++ = '.';
            }
        }
    }
    if (num->decimals < 0) {
        memset(out, '0', (size_t)-num->decimals);
    }
}

bool tbf_num_integer_part(tbf_span t, uint32_t max_plain, int64_t *out) {
    tbf_num num;
    shape s = read_digits(t, &num);
    if (explodes(&num, &s, t, max_plain)) {
        return false;
    }
    *out = 0;
    if (num.digits == 0 || (int64_t)num.digits <= num.decimals) {
        return true;
    }
    if (num.decimals <= 0) {
        return to_int64(&num, num.digits, (size_t)-num.decimals, out);
    }
    return to_int64(&num, num.digits - (size_t)num.decimals, 0, out);
}
