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

/* By tbf_type. */
extern const uint8_t tbf_classes[8];

static inline bool tbf_is_text(const tbf_cell *cell) {
    return tbf_classes[cell->type] >= TBF_CLASS_STRING;
}
static inline uint8_t tbf_scale_of(const tbf_cell *cell) {
    return cell->type == TBF_DECIMAL ? cell->scale : 0;
}

/* How a column's values are written, and what is carried from batch to batch. */
typedef struct {
    uint8_t kind, number_kind;
    uint8_t scale, floor;
    bool has_dictionary;
    tbf_ints classes, forms, numbers, indexes;
    tbf_doubles doubles;
} tbf_values;

/* Chooses the kind and fills the dictionary; false if a cell is of no known type or scale. */
bool tbf_values_plan(tbf_values *s, const tbf_column *column, tbf_chunk_scratch *scratch);
/* The dictionary's slot of a text: its own, or the free one where it belongs. */
size_t tbf_dictionary_slot(const tbf_chunk_scratch *scratch, const tbf_cell *cell);
/* Equal texts; false if there is no first one. */
static inline bool tbf_same_text(const tbf_cell *a, const tbf_cell *b) {
    return a != NULL && a->n == b->n && tbf_same_bytes(a->p, b->p, a->n);
}

/* Writes kind, length and values.  *p moves on. */
tbf_status tbf_values_put(uint8_t **p, uint8_t *end, const tbf_column *column,
                          tbf_chunk_scratch *scratch);

/* Puts the length in front of what was written since `start`, one byte of which is its place. */
tbf_status tbf_close_length(uint8_t *start, uint8_t **p, const uint8_t *end);

#endif
