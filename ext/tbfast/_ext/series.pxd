# Block reader declarations and the growing JSON text buffer shared by reads.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.chunk cimport tbf_cell
from tbfast._ext.batch cimport tbf_kind, tbf_span, tbf_status, tbf_type

cdef extern from "tbf_block.h" nogil:
    enum:
        TBF_DECIMAL_SCALE_MAX
    ctypedef struct tbf_block:
        uint32_t journal_id
        uint32_t epoch
        uint64_t seq
        int64_t commit_ms
        int64_t base_ms
        int64_t min_ts
        int64_t max_ts
        uint32_t record_count
        uint32_t point_count
        uint32_t first_key
        tbf_span defs
        tbf_span rows
    ctypedef struct tbf_record:
        uint64_t device
        tbf_kind kind
        int64_t ts_ms
        tbf_span points
    ctypedef struct tbf_point:
        uint32_t key
        tbf_span name
        tbf_type type
        bint dead
        uint8_t scale
        int64_t i64
        double f64
        tbf_span bytes
    tbf_status tbf_block_open(tbf_span bytes, tbf_block *out)
    tbf_status tbf_next_def(tbf_span *at, tbf_span *name)
    tbf_status tbf_next_record(tbf_span *at, int64_t base_ms, tbf_record *out)
    tbf_status tbf_next_point(tbf_span *at, tbf_point *out)
    size_t tbf_decimal_text(uint8_t *out, int64_t mantissa, uint8_t scale)

cdef class Text:
    cdef uint8_t *buf
    cdef size_t len, cap
    cdef int room(self, size_t n) except -1 nogil
    cdef int raw(self, const uint8_t *p, size_t n) except -1
    cdef int string(self, tbf_span utf8) except -1
    cdef int int64(self, int64_t v) except -1
    cdef int value(self, const tbf_point *point) except -1
    cdef int points(self, const int64_t *ts, const tbf_cell *cells, size_t n,
                    bint strings) except -1 nogil
    cdef int unfinished(self, int64_t ts, const tbf_cell *cell, bint strings) except -1
    cdef bytes to_bytes(self)

cdef bint is_text(uint8_t type) noexcept nogil
cdef void cell_of(const tbf_point *point, tbf_cell *cell) noexcept nogil
cdef void point_of(const tbf_cell *cell, tbf_point *point) noexcept nogil
cdef int check_key_number(size_t number) except -1
cdef int open_block(const uint8_t *p, size_t n, tbf_block *out) except -1
