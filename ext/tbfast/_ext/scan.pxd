# Reads of one device's series: see scan.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from tbfast._ext.batch cimport tbf_status
from tbfast._ext.chunk cimport tbf_cell, tbf_chunk_column
from tbfast._ext.deleted cimport Ranges
from tbfast._ext.merge cimport Merge, Ring
from tbfast._ext.series cimport Text, tbf_block, tbf_record

cdef struct hit:
    int64_t ts
    int64_t commit_ms
    uint64_t arrival     # journal number in the high bits, then a counter
    tbf_cell cell        # bytes are owned
    uint32_t column

cdef struct bound:
    bint full            # there are `limit` hits of the column,
    int64_t ts           # and this is the time of the last of them along the read

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
    cdef bint limited          # there is a limit that can matter
    cdef list enough           # by column
    cdef bint rows_counted     # `enough` knows all hits
    cdef hit *hits
    cdef size_t count, cap, compact_at
    cdef bound *bounds         # by column, as of the last `_compact`
    cdef size_t bound_count
    cdef uint64_t arrival
    cdef uint32_t *key_map     # key number -> column + 1, of the current epoch
    cdef size_t key_map_len
    cdef readonly uint64_t blocks, skipped
    cdef readonly uint64_t chunks  # looked at
    cdef Merge merge  # sealed points, and after `prepare` the others too
    cdef int64_t *row_ts
    cdef tbf_cell *row_cells
    cdef bint ready
    cdef int64_t _last(self) noexcept
    cdef int64_t column_of(self, bytes name) except -2
    cdef int reserve(self, size_t rows) except -1
    cdef int add(self, uint32_t column, int64_t ts, int64_t commit_ms, uint64_t arrival,
                 const tbf_cell *cell) except -1
    cdef bint wants_time(self, uint32_t column, int64_t ts) noexcept nogil
    cdef tbf_status _next_record(self, tbf_block *block, tbf_record *record) noexcept nogil
    cdef int _count_rows(self) except -1
    cdef int added(self, uint32_t column, const tbf_chunk_column *found, Ranges gone) except -1
    cdef int _compact(self) except -1
    cdef void _free_rows(self) noexcept nogil
    cdef int _more_bounds(self) except -1
    cdef int prepare(self) except -1
    cdef int _oldest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes) except -1
    cdef int _newest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes, Ring ring) except -1
    cdef int _gather(self, Ring ring, size_t start, size_t *end, uint64_t most) except -1
    cdef int key(self, Text text, size_t column) except -1

cdef object too_long(size_t max_bytes)
