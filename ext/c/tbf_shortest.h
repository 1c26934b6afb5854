/* Floating point numbers as text: the shortest decimal that reads back as the same number, in the
 * form of Java's Double.toString and Float.toString; no locale, no libm. */
#ifndef TBF_SHORTEST_H
#define TBF_SHORTEST_H

#include "tbf_base.h"

#define TBF_DOUBLE_TEXT 26u /* longest text: sign, 17 digits, point, E-324 */

/* Finite numbers only; writes at most TBF_DOUBLE_TEXT bytes and returns how many. */
size_t tbf_double_text(uint8_t *out, double v);
size_t tbf_float_text(uint8_t *out, float v);

/* The same without text, and faster: *mantissa * 10^-*scale, as short as it goes with a scale of at
 * least 1 and at most 19.  False: |v| is neither 0 nor in [0.001, 10,000,000), which Java prints
 * without an exponent. */
bool tbf_double_decimal(double v, int64_t *mantissa, uint8_t *scale);
bool tbf_float_decimal(float v, int64_t *mantissa, uint8_t *scale);

#endif
