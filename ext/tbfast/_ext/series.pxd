# Block reader declarations and the growing JSON text buffer shared by reads.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.chunk cimport tbf_cell
from tbfast._ext.merge cimport Merge, Ring
from tbfast._ext.batch cimport tbf_kind, tbf_span, tbf_status, tbf_type

cdef extern from "tbf_block.h" nogil:
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

cdef struct hit:
    int64_t ts
    int64_t commit_ms
    uint64_t arrival     # journal number in the high bits, then a counter
    tbf_cell cell        # bytes are owned
    uint32_t column

cdef class RangeScan:
    cdef uint64_t device
    cdef int kind
    cdef int64_t start_ms, end_ms
    cdef bint bounded_end
    cdef uint64_t limit
    cdef bint ascending
    cdef dict columns          # name bytes -> column
    cdef list names
    cdef bint all_keys
    cdef hit *hits
    cdef size_t count, cap, compact_at
    cdef uint64_t arrival
    cdef uint32_t *key_map     # key number -> column + 1, of the current epoch
    cdef size_t key_map_len
    cdef readonly uint64_t blocks, skipped
    cdef Merge merge  # sealed points, and after `prepare` the others too
    cdef int64_t *row_ts
    cdef tbf_cell *row_cells
    cdef bint ready
    cdef int64_t _last(self) noexcept
    cdef int64_t column_of(self, bytes name) except -2
    cdef int add(self, uint32_t column, int64_t ts, int64_t commit_ms, uint64_t arrival,
                 const tbf_cell *cell) except -1
    cdef tbf_status _next_record(self, tbf_block *block, tbf_record *record) noexcept nogil
    cdef int _compact(self) except -1
    cdef int prepare(self) except -1
    cdef int _oldest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes) except -1
    cdef int _newest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes, Ring ring) except -1
    cdef int _gather(self, Ring ring, size_t start, size_t *end, uint64_t most) except -1
    cdef int key(self, Text text, size_t column) except -1

cdef bint is_text(uint8_t type) noexcept nogil
cdef void cell_of(const tbf_point *point, tbf_cell *cell) noexcept nogil
cdef void point_of(const tbf_cell *cell, tbf_point *point) noexcept nogil
cdef object too_long(size_t max_bytes)
cdef int open_block(const uint8_t *p, size_t n, tbf_block *out) except -1
