/* The open batch: typed rows appended by the payload parsers, later framed as one journal block.
 *
 * Rows section (version 1), little-endian, repeated `record_count` times:
 *   record  := varint(device << 2 | kind)  varint(zigzag(ts_ms - base_ms))
 *              varint(point_bytes)  point*
 *   point   := varint(key << 4 | dead << 3 | type)  [key 0: varint(n) name]  value
 *   value   := INT64 varint(zigzag)      DOUBLE 8 bytes       FALSE, TRUE nothing
 *              STRING, JSON, BYTES varint(n) bytes
 *              DECIMAL scale(1 byte) varint(zigzag(mantissa))   = mantissa * 10^-scale
 * A `dead` point was overwritten by a later member of the same name in the same record; readers
 * skip it.  Key numbers start at 1 and belong to one journal epoch; key 0 carries its name inline
 * (used when the key table is full).
 *
 * All memory belongs to the caller (see tbfast/_ext/batch.pyx); nothing here allocates. */
#ifndef TBF_BATCH_H
#define TBF_BATCH_H

#include "tbf_base.h"

typedef enum {
    TBF_INT64 = 0,
    TBF_DOUBLE = 1,
    TBF_FALSE = 2,
    TBF_TRUE = 3,
    TBF_STRING = 4,
    TBF_JSON = 5,
    TBF_BYTES = 6,
    TBF_DECIMAL = 7
} tbf_type;
#define TBF_POINT_DEAD 8u

typedef enum { TBF_KIND_TELEMETRY = 0, TBF_KIND_CLIENT_ATTR = 1 } tbf_kind;

#define TBF_KEY_MAX_UNITS 255u      /* UTF-16 code units of a key (ThingsBoard counts Java chars) */
#define TBF_KEY_NUMBER_MAX 1048576u /* the greatest: tables of readers are as long */
#define TBF_INLINE_SLOTS 32768u     /* open addressing; at most TBF_INLINE_KEYS live entries */
#define TBF_INLINE_KEYS 16384u

typedef struct {
    uint32_t name_off;
    uint32_t name_len;
    uint32_t point_off; /* the point of the record that used this key last, killed on a repeat */
    uint32_t next;      /* number of the key used after it the last time; 0 = none */
    uint64_t stamp;     /* serial of that record; 64 bits never come round */
    uint64_t hash;
} tbf_key;

/* Key table of one journal epoch.  Linear probing; entries are only ever removed from the end. */
typedef struct {
    uint64_t seed[2];
    uint32_t *slots; /* key number, 0 = free */
    uint32_t slot_mask;
    tbf_key *keys; /* index = key number - 1 */
    uint32_t count, cap;
    uint32_t last; /* number of the key used last: records of a kind repeat their order */
    uint8_t *names;
    uint32_t names_len, names_cap;
} tbf_keys;

typedef struct {
    uint64_t stamp;
    uint32_t point_off;
} tbf_inline_slot;

typedef struct {
    uint8_t *buf; /* rows */
    size_t len, cap;
    int64_t base_ms; /* set when the batch is opened; record times are stored relative to it */
    int64_t min_ts, max_ts;
    uint32_t record_count, point_count;
    uint32_t dropped_records; /* records acknowledged but not stored: storage refuses a key */
    tbf_keys *keys;
    tbf_inline_slot *inline_slots; /* TBF_INLINE_SLOTS of them */
    uint32_t inline_used;          /* in the current record */
    uint64_t stamp;                /* serial of the current record */
    /* the record being written */
    size_t record_off, points_off;
    int64_t record_ts;
    uint32_t record_points;
    bool record_bad_key;
    size_t blob_off, blob_bound; /* between tbf_blob_open and tbf_blob_close */
} tbf_batch;

/* A point to return to: a refused message leaves nothing behind, not even key definitions. */
typedef struct {
    size_t len;
    int64_t min_ts, max_ts;
    uint32_t record_count, point_count, dropped_records, key_count, names_len;
} tbf_mark;

tbf_mark tbf_batch_mark(const tbf_batch *b);
void tbf_batch_rollback(tbf_batch *b, const tbf_mark *m);
void tbf_batch_clear(tbf_batch *b, int64_t base_ms);

/* A record is begun, filled with points, and ended; ending one without live points, or with a key
 * that storage refuses, removes it (the latter counts in dropped_records).
 * Every function returns TBF_OK or TBF_ENOSPACE (roll back, grow buf, try again). */
tbf_status tbf_record_begin(tbf_batch *b, uint64_t device, tbf_kind kind, int64_t ts_ms);
tbf_status tbf_record_end(tbf_batch *b);

/* Value under `name` (UTF-8, already valid).  The last value of a name in a record wins. */
tbf_status tbf_put_int64(tbf_batch *b, tbf_span name, int64_t v);
tbf_status tbf_put_double(tbf_batch *b, tbf_span name, double v);
tbf_status tbf_put_decimal(tbf_batch *b, tbf_span name, int64_t mantissa, uint8_t scale);
tbf_status tbf_put_bool(tbf_batch *b, tbf_span name, bool v);
/* type: TBF_STRING, TBF_JSON or TBF_BYTES */
tbf_status tbf_put_blob(tbf_batch *b, tbf_span name, tbf_type type, tbf_span v);
/* A null member: stores nothing and kills an earlier value of that name in this record. */
tbf_status tbf_put_null(tbf_batch *b, tbf_span name);
/* For values produced piecewise (unescaped strings, compacted JSON): reserve with a name and an
 * upper bound, write at the returned pointer, finish with the real length (<= bound). */
tbf_status tbf_blob_open(tbf_batch *b, tbf_span name, tbf_type type, size_t bound, uint8_t **at);
void tbf_blob_close(tbf_batch *b, size_t n);

#endif
