/* The journal block: one commit group as one RocksDB value.  Version 1, little-endian.
 *
 *   offset size
 *        0    4  magic "TBJB"
 *        4    1  version (1)
 *        5    1  flags (0)
 *        6    2  header bytes (80)
 *        8    4  journal id
 *       12    4  epoch (one per opening of the journal)
 *       16    8  sequence number in the epoch, from 1
 *       24    8  commit time, ms since the Unix epoch
 *       32    8  base time of the records, ms
 *       40   16  smallest and largest record time, ms
 *       56    4  bytes of key definitions
 *       60    4  bytes of rows
 *       64    4  records
 *       68    4  live points
 *       72    4  number of the first key defined here
 *       76    4  CRC32C of bytes 0..75 and of everything after the header
 *       80       definitions: varint(n) name, numbers counting up from the first
 *                rows: see tbf_batch.h
 */
#ifndef TBF_BLOCK_H
#define TBF_BLOCK_H

#include "tbf_batch.h"

#define TBF_BLOCK_HEADER 80u
#define TBF_BLOCK_VERSION 1u

typedef struct {
    uint32_t journal_id, epoch;
    uint64_t seq;
    int64_t commit_ms, base_ms, min_ts, max_ts;
    uint32_t record_count, point_count, first_key;
    tbf_span defs, rows;
} tbf_block;

/* Bytes that tbf_block_write needs for this batch with keys from number `first_key` on defined. */
size_t tbf_block_size(const tbf_batch *b, uint32_t first_key);
/* Frames the batch as a block at out (tbf_block_size bytes). */
void tbf_block_write(uint8_t *out, const tbf_batch *b, uint32_t journal_id, uint32_t epoch,
                     uint64_t seq, int64_t commit_ms, uint32_t first_key);
/* Checks magic, version, lengths, checksum, and that rows of that length can hold as many records
 * and points.  TBF_ECORRUPT or TBF_EVERSION otherwise. */
tbf_status tbf_block_open(tbf_span bytes, tbf_block *out);

/* Iteration.  Set `at` to block.defs or block.rows; each call takes one item off its front.
 * TBF_MORE = the span is used up; TBF_ECORRUPT = it does not parse. */
tbf_status tbf_next_def(tbf_span *at, tbf_span *name);

typedef struct {
    uint64_t device;
    tbf_kind kind;
    int64_t ts_ms;
    tbf_span points;
} tbf_record;
tbf_status tbf_next_record(tbf_span *at, int64_t base_ms, tbf_record *out);

typedef struct {
    uint32_t key;  /* 0: see name */
    tbf_span name; /* inline name when key is 0 */
    tbf_type type;
    bool dead;
    uint8_t scale;  /* DECIMAL */
    int64_t i64;    /* INT64 value, DECIMAL mantissa */
    double f64;     /* DOUBLE */
    tbf_span bytes; /* STRING, JSON, BYTES */
} tbf_point;
tbf_status tbf_next_point(tbf_span *at, tbf_point *out);

/* Text of a DECIMAL as a JSON number ("-0.05", "21.5"); at most TBF_DECIMAL_TEXT bytes, returns
 * the length.  Scale above TBF_DECIMAL_SCALE_MAX never leaves the block reader. */
#define TBF_DECIMAL_SCALE_MAX 64u
#define TBF_DECIMAL_TEXT 96u
size_t tbf_decimal_text(uint8_t *out, int64_t mantissa, uint8_t scale);

#endif
