/* Double blocks: up to 128 doubles, bit-exact.  Used by series chunks (tbf_chunk.h).
 *
 *   block := head(1 byte) body
 *   head  := exponent << 3 | exceptions << 2 | mode
 *   XOR      body := [first block: first value, 8 bytes]  shift(1 byte) width(1 byte)
 *                    packed (value ^ value before) >> shift
 *   DECIMAL  body := [exceptions: count(1 byte) (position(1 byte) 8 bytes)*]
 *                    integer block (tbf_ints.h) of m, value = m / 10^exponent
 *   FLOAT    the same with value = (float)(m / 10^exponent)
 *
 * Devices that speak Protobuf, Sparkplug or TLV send 21.5 as a double or a float: eight bytes that
 * say what one would.  The division is exact to the last bit for every double that was read from
 * a decimal text of at most 15 digits; each value is checked before it is written so, and what
 * does not come back (NaN, -0.0, 1/3) is an exception or goes the XOR way. */
#ifndef TBF_DOUBLES_H
#define TBF_DOUBLES_H

#include "tbf_ints.h"

#define TBF_DOUBLES_ROOM(k) (16u + TBF_INTS_ROOM(k) + 2u * (size_t)(k))

enum { TBF_DOUBLES_XOR = 0, TBF_DOUBLES_DECIMAL = 1, TBF_DOUBLES_FLOAT = 2 };
#define TBF_DOUBLES_EXCEPTIONS 4u
#define TBF_DOUBLES_EXPONENT_SHIFT 3u
#define TBF_DOUBLES_EXPONENT_MAX 10u

typedef struct {
    tbf_ints mantissas;
    uint64_t last; /* bits of the value before the block */
    bool started;
    unsigned head; /* writer: mode and exponent of the block before, tried first */
} tbf_doubles;

/* Writes k values given as their bits (1 to TBF_INTS_BLOCK; TBF_DOUBLES_ROOM(k) bytes at p). */
uint8_t *tbf_doubles_put(uint8_t *p, tbf_doubles *s, const uint64_t *v, size_t k);
/* Reads them back; NULL if [p, end) does not hold them. */
const uint8_t *tbf_doubles_get(const uint8_t *p, const uint8_t *end, tbf_doubles *s, uint64_t *v,
                               size_t k);

#endif
