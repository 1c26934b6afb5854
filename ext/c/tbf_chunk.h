/* Series chunks: the points of one device and run, column by column.  Version 1, little-endian.
 *
 *   chunk   := version(1 byte: 0xC1)  CRC32C(4 bytes, of the version and of all that follows)
 *              varint(columns) column*
 *   column  := varint(key) varint(times_at) [times_at 0: times]
 *              kind(1 byte) varint(n) value bytes(n)
 *   times   := varint(points) varint(zigzag(min_ts))
 *              [points > 1: varint(max_ts - min_ts)] [points > 2: varint(n) blocks(n)]
 * Columns with the same times share them: times_at counts bytes back from the column's first byte
 * to the times meant.  Times ascend strictly; the first is min_ts, the others are integer blocks
 * (tbf_ints.h) of 127, then 128 values.
 *
 *   values  := [numbers] [dictionary] batch*          one batch per 128 points, the last shorter
 *   numbers := INT64 nothing       all INT64
 *              DECIMAL scale       DECIMAL mantissas, all of this scale
 *              NUMBER scale floor  all times 10^scale; the scale of each is the smallest that says
 *                                  it, but at least floor; at scale 0 it is an INT64
 *              FORMS nothing       per batch a block of forms (0 INT64, 1 + scale DECIMAL) and a
 *                                  block of mantissas as they are
 *   dictionary := varint(entries) (varint(n) bytes(n))*       if kind has TBF_COLUMN_DICTIONARY
 *   batch   := numbers: integer block     DOUBLE: double block (tbf_doubles.h)
 *              BOOL: integer block of 0 and 1
 *              STRING, JSON, BYTES: integer block of dictionary indexes, or (varint(n) bytes(n))*
 *              MIXED: integer block of classes, then a batch of the numbers, one of the doubles,
 *                     one of the texts, each if there are any
 * MIXED values begin with the kind of the numbers (1 byte).  NUMBER is for senders that drop
 * trailing zeros (21.45, 21.5, 21 from JavaScript: floor 0; 21.0 from Python: floor 1).
 *
 * All memory belongs to the caller; nothing here allocates.  Decoded texts point into the chunk. */
#ifndef TBF_CHUNK_H
#define TBF_CHUNK_H

#include "tbf_batch.h"
#include "tbf_doubles.h"

#define TBF_CHUNK_VERSION 0xC1u
#define TBF_CHUNK_BATCH TBF_INTS_BLOCK  /* points per decoded batch, at most */
#define TBF_CHUNK_POINTS_MAX (1u << 20) /* of one column */
#define TBF_CHUNK_SCALE_MAX 64u         /* of a DECIMAL, as in journal blocks */

/* A value.  INT64 and DECIMAL use i64 and scale, DOUBLE f64, texts p and n. */
typedef struct {
    uint8_t type;  /* tbf_type */
    uint8_t scale; /* DECIMAL */
    uint32_t n;
    union {
        int64_t i64;
        double f64;
        uint64_t bits; /* of f64 */
        const uint8_t *p;
    };
} tbf_cell;

typedef enum {
    TBF_COLUMN_INT64 = 0,
    TBF_COLUMN_DECIMAL = 1,
    TBF_COLUMN_NUMBER = 2,
    TBF_COLUMN_FORMS = 3,
    TBF_COLUMN_DOUBLE = 4,
    TBF_COLUMN_BOOL = 5,
    TBF_COLUMN_STRING = 6,
    TBF_COLUMN_JSON = 7,
    TBF_COLUMN_BYTES = 8,
    TBF_COLUMN_MIXED = 9
} tbf_column_kind;
#define TBF_COLUMN_DICTIONARY 0x10u

#define TBF_DICTIONARY_MAX 256u
#define TBF_DICTIONARY_SLOTS 512u

/* ---- writing ---- */

/* A column to write: n points (1 to TBF_CHUNK_POINTS_MAX), times strictly ascending. */
typedef struct {
    uint32_t key;
    uint32_t n;
    const int64_t *ts;
    const tbf_cell *cells;
} tbf_column;

/* Working memory of one writer, to be reused.  The seed is random: texts come from peers. */
typedef struct {
    uint64_t seed[2];
    uint32_t entries;
    uint16_t slots[TBF_DICTIONARY_SLOTS]; /* entry + 1, 0 = free */
    tbf_span texts[TBF_DICTIONARY_MAX];
    const tbf_column *shared[32]; /* columns whose times were written last */
    size_t shared_at[32];
} tbf_chunk_scratch;

/* Bytes that are always enough for these columns. */
size_t tbf_chunk_bound(const tbf_column *columns, size_t count);
/* Writes a chunk of at least one column.  TBF_ENOSPACE: cap was too small.  TBF_EMALFORMED: a
 * column is empty, too long or not in order, or a cell has an unknown type or scale. */
tbf_status tbf_chunk_write(uint8_t *out, size_t cap, const tbf_column *columns, size_t count,
                           tbf_chunk_scratch *scratch, size_t *written);

/* ---- reading ---- */

typedef struct {
    tbf_span bytes;
    size_t first; /* offset of the first column */
    uint32_t columns;
    uint64_t points;
    int64_t min_ts, max_ts;
} tbf_chunk;

typedef struct {
    uint32_t key, points;
    int64_t min_ts, max_ts;
    tbf_column_kind kind;
    bool has_dictionary;
    tbf_span times, values;
} tbf_chunk_column;

/* Checks version, checksum and the lengths of all columns.  TBF_ECORRUPT, TBF_EVERSION. */
tbf_status tbf_chunk_open(tbf_span bytes, tbf_chunk *out);
/* The column at *at (chunk.first at the start), which moves on.  TBF_MORE after the last one. */
tbf_status tbf_chunk_next(const tbf_chunk *chunk, size_t *at, tbf_chunk_column *out);

/* Where the decoding of one column is.  About 4.3 KB, on the caller's stack. */
typedef struct {
    uint8_t kind, number_kind;
    bool has_dictionary;
    uint8_t scale, floor;
    uint32_t left; /* points not yet decoded */
    uint32_t entries;
    int64_t from, to, max_ts;
    const uint8_t *t, *t_end, *v, *v_end;
    tbf_ints times, classes, forms, numbers, indexes;
    tbf_doubles doubles;
    bool at_first;  /* the first time is in the head */
    bool only_ends; /* and so is the second, if that is the last */
    struct {
        const uint8_t *p;
        uint32_t n;
    } texts[TBF_DICTIONARY_MAX];
} tbf_cursor;

/* Starts on the points with from <= ts <= to.  TBF_ECORRUPT: the values' head does not parse. */
tbf_status tbf_cursor_open(tbf_cursor *c, const tbf_chunk_column *column, int64_t from, int64_t to);
/* The next 1 to TBF_CHUNK_BATCH points, oldest first.  TBF_MORE: there are no more. */
tbf_status tbf_cursor_next(tbf_cursor *c, int64_t *ts, tbf_cell *cells, size_t *n);

#endif
