/* What the writer of a column's values and its callers share; layout in tbf_chunk.h. */
#ifndef TBF_VALUES_H
#define TBF_VALUES_H

#include "tbf_chunk.h"

/* Classes of a MIXED column.  The type of a text is its class. */
typedef enum {
    TBF_CLASS_NUMBER = 0,
    TBF_CLASS_DOUBLE = 1,
    TBF_CLASS_FALSE = 2,
    TBF_CLASS_TRUE = 3,
    TBF_CLASS_STRING = 4,
    TBF_CLASS_JSON = 5,
    TBF_CLASS_BYTES = 6
} tbf_class;

#define TBF_POWERS_MAX 18u /* 10^18 is the last power that fits int64 */
extern const int64_t tbf_powers_of_10[TBF_POWERS_MAX + 1];

static inline size_t tbf_varint_bytes(uint64_t v) {
    size_t n = 1;
    for (; v >= 0x80; v >>= 7) {
        n++;
    }
    return n;
}

/* Bytes that tbf_values_put may need beyond the texts themselves for n points. */
static inline size_t tbf_values_room(size_t n) {
    size_t batches = n / TBF_CHUNK_BATCH + 1;
    return 16 + 3 * TBF_VARINT_MAX + (3 * TBF_INTS_ROOM(0) + TBF_DOUBLES_ROOM(0)) * batches +
           (34 + TBF_VARINT_MAX) * n;
}

/* Writes kind, length and values.  *p moves on. */
tbf_status tbf_values_put(uint8_t **p, uint8_t *end, const tbf_column *column,
                          tbf_chunk_scratch *scratch);

/* Puts the length in front of what was written since `start`, one byte of which is its place. */
tbf_status tbf_close_length(uint8_t *start, uint8_t **p, const uint8_t *end);

#endif
