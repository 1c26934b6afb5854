/* Integer blocks: up to 128 int64 predicted, then bit-packed.  The inner layer of series chunks
 * (tbf_chunk.h): times, integers, decimal mantissas, booleans, dictionary indexes.
 *
 *   block := head(1 byte)  [SLOPE: varint(zigzag(slope))]  varint(zigzag(base))
 *            [exceptions: count(1 byte) position(1 byte)* varint(high bits)*]
 *            packed values, least significant bit first, the last byte filled with zeros
 *   head  := width code << 3 | exceptions << 2 | predictor
 *
 * Value i of the block is prediction + base + packed[i], modulo 2^64, where the prediction is
 *   LAST   the value before the block
 *   DELTA  the value before this one
 *   DELTA2 the same plus the difference before it
 *   SLOPE  the value before the block plus floor((i + 1) * slope / 256)
 * A packed value that is wider than the rest has its high bits among the exceptions, so that one
 * step or one gap does not widen the other 127.
 *
 * Why packed: unpacking takes the same few instructions whatever the values, where a varint costs
 * a misprediction each time the length changes, and a byte where jitter of 5 ms needs four bits. */
#ifndef TBF_INTS_H
#define TBF_INTS_H

#include "tbf_base.h"

#define TBF_INTS_BLOCK 128u
/* Bytes that k values may take: first value, head, slope and base, and 64 bits each. */
#define TBF_INTS_ROOM(k) (1u + 3u * TBF_VARINT_MAX + 8u * (size_t)(k))

enum { TBF_INTS_LAST = 0, TBF_INTS_DELTA = 1, TBF_INTS_DELTA2 = 2, TBF_INTS_SLOPE = 3 };
#define TBF_INTS_EXCEPTIONS 4u
#define TBF_INTS_WIDTH_SHIFT 3u
#define TBF_INTS_SLOPE_BITS 8u

/* What writer and reader carry from one block to the next.  Without a known value before the
 * first block (started = false), that block is led by its first value: varint(zigzag(value)). */
typedef struct {
    int64_t last; /* value before the block */
    int64_t step; /* difference that led to it */
    bool started;
} tbf_ints;

/* Bits of a packed value by width code: all small ones, then whole bytes. */
static inline unsigned tbf_ints_width(unsigned code) {
    return code <= 26 ? code : code == 27 ? 32 : 32 + 8 * (code - 27);
}

/* Writes k values (1 to TBF_INTS_BLOCK; TBF_INTS_ROOM(k) bytes at p); returns the byte after. */
uint8_t *tbf_ints_put(uint8_t *p, tbf_ints *s, const int64_t *v, size_t k);
/* Reads k values back; returns the byte after, or NULL if [p, end) does not hold them. */
const uint8_t *tbf_ints_get(const uint8_t *p, const uint8_t *end, tbf_ints *s, int64_t *v,
                            size_t k);

/* k values of `width` bits (0 to 56, or 64) without prediction. */
static inline size_t tbf_bits_bytes(unsigned width, size_t k) { return (width * k + 7) / 8; }
uint8_t *tbf_bits_put(uint8_t *p, const uint64_t *v, size_t k, unsigned width);
const uint8_t *tbf_bits_get(const uint8_t *p, const uint8_t *end, uint64_t *v, size_t k,
                            unsigned width);

#endif
