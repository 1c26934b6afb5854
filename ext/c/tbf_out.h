/* Typed values as JSON text, for everything that people and REST clients read. */
#ifndef TBF_OUT_H
#define TBF_OUT_H

#include "tbf_block.h"

/* Bytes that tbf_out_string may write for n bytes of UTF-8: every byte as \u00XX, and quotes. */
static inline size_t tbf_out_string_bound(size_t n) { return 6 * n + 2; }
/* Writes a JSON string; returns its length. */
size_t tbf_out_string(uint8_t *out, tbf_span utf8);

#define TBF_OUT_NUMBER 96u /* longest text of a number, boolean or time */
size_t tbf_out_int64(uint8_t *out, int64_t v);

/* Base64 (RFC 4648) as a JSON string; at most 4 * (n / 3 + 1) + 2 bytes. */
size_t tbf_out_base64(uint8_t *out, tbf_span bytes);

#endif
