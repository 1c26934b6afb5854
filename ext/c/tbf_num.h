/* Number text to a typed value by exact decimal arithmetic (MQTT spec 3.3); no locale, no libm. */
#ifndef TBF_NUM_H
#define TBF_NUM_H

#include "tbf_base.h"

#define TBF_NUM_MAX_DECIMALS 16 /* more are kept as text, as ThingsBoard does */

typedef enum {
    TBF_NUM_INT64,
    TBF_NUM_DECIMAL, /* a DOUBLE whose digits fit 64 bits: i64 * 10^-scale, scale 1 to 16 */
    TBF_NUM_DOUBLE,  /* any other DOUBLE, correctly rounded, always finite */
    TBF_NUM_TEXT,    /* a STRING of plain digits, if type cast is on; else to be refused */
    TBF_NUM_EXPLODES /* its exponent asks for more plain characters than allowed */
} tbf_num_kind;

typedef struct {
    tbf_num_kind kind;
    int64_t i64;
    double f64;
    uint8_t scale;
    size_t text_n; /* characters that tbf_num_text writes, for TBF_NUM_TEXT */
    /* What the text says: (-1)^negative * (digits significant digits from `first` on) *
     * 10^-decimals.  first may have the point among its digits. */
    const uint8_t *first;
    size_t digits;
    int64_t decimals;
    bool negative;
} tbf_num;

/* t: [-] digits with at most one '.', at least one digit, [e [+-] digits]; checked by the caller.
 * max_plain bounds the characters that an exponent may add (hostile input J3). */
void tbf_num_read(tbf_span t, uint32_t max_plain, tbf_num *out);

/* Writes the plain text (no exponent) of a TBF_NUM_TEXT; out has room for text_n bytes. */
void tbf_num_text(uint8_t *out, const tbf_num *num);

/* The integer part (fraction cut off, not rounded); false if it is outside int64 or its exponent
 * explodes. */
bool tbf_num_integer_part(tbf_span t, uint32_t max_plain, int64_t *out);

#endif
