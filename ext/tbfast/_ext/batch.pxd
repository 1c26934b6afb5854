# C declarations of ext/c/tbf_base.h and tbf_batch.h, and the owner of a batch's memory.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "tbf_base.h" nogil:
    ctypedef struct tbf_span:
        const uint8_t *p
        size_t n
    ctypedef enum tbf_status:
        TBF_OK
        TBF_MORE
        TBF_EMALFORMED
        TBF_ETOOBIG
        TBF_EREJECT
        TBF_ENOSPACE
        TBF_ECORRUPT
        TBF_EVERSION
    uint64_t tbf_zigzag(int64_t v)
    int64_t tbf_unzigzag(uint64_t v)
    uint8_t *tbf_put_varint(uint8_t *p, uint64_t v)
    const uint8_t *tbf_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *out)
    uint32_t tbf_crc32c(uint32_t crc, const uint8_t *p, size_t n)
    uint64_t tbf_hash(const uint8_t *p, size_t n, const uint64_t *seed)

cdef extern from "tbf_batch.h" nogil:
    ctypedef enum tbf_type:
        TBF_INT64
        TBF_DOUBLE
        TBF_FALSE
        TBF_TRUE
        TBF_STRING
        TBF_JSON
        TBF_BYTES
        TBF_DECIMAL
    ctypedef enum tbf_kind:
        TBF_KIND_TELEMETRY
        TBF_KIND_CLIENT_ATTR
    const uint32_t TBF_INLINE_SLOTS
    const uint32_t TBF_KEY_NUMBER_MAX
    ctypedef struct tbf_key:
        uint32_t name_off
        uint32_t name_len
        uint32_t point_off
        uint64_t stamp
        uint64_t hash
    ctypedef struct tbf_keys:
        uint64_t seed[2]
        uint32_t *slots
        uint32_t slot_mask
        tbf_key *keys
        uint32_t count
        uint32_t cap
        uint8_t *names
        uint32_t names_len
        uint32_t names_cap
    ctypedef struct tbf_inline_slot:
        uint64_t stamp
        uint32_t point_off
    ctypedef struct tbf_batch:
        uint8_t *buf
        size_t len
        size_t cap
        int64_t base_ms
        int64_t min_ts
        int64_t max_ts
        uint32_t record_count
        uint32_t point_count
        uint32_t dropped_records
        tbf_keys *keys
        tbf_inline_slot *inline_slots
        uint64_t stamp
    ctypedef struct tbf_mark:
        size_t len
        uint32_t key_count
    tbf_mark tbf_batch_mark(const tbf_batch *b)
    void tbf_batch_rollback(tbf_batch *b, const tbf_mark *m)
    void tbf_batch_clear(tbf_batch *b, int64_t base_ms)
    tbf_status tbf_record_begin(tbf_batch *b, uint64_t device, tbf_kind kind, int64_t ts_ms)
    tbf_status tbf_record_end(tbf_batch *b)
    tbf_status tbf_put_int64(tbf_batch *b, tbf_span name, int64_t v)
    tbf_status tbf_put_double(tbf_batch *b, tbf_span name, double v)
    tbf_status tbf_put_decimal(tbf_batch *b, tbf_span name, int64_t mantissa, uint8_t scale)
    tbf_status tbf_put_bool(tbf_batch *b, tbf_span name, bint v)
    tbf_status tbf_put_blob(tbf_batch *b, tbf_span name, tbf_type type, tbf_span v)

cdef extern from "tbf_block.h" nogil:
    size_t tbf_block_size(const tbf_batch *b, uint32_t first_key)
    void tbf_block_write(uint8_t *out, const tbf_batch *b, uint32_t journal_id, uint32_t epoch,
                         uint64_t seq, int64_t commit_ms, uint32_t first_key)

cdef class Batch:
    cdef tbf_batch b
    cdef tbf_keys k
    cdef readonly size_t max_bytes
    cdef int grow(self) except -1
