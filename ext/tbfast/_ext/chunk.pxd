# C declarations of ext/c/tbf_chunk.h and tbf_agg.h, and the owners of a chunk writer's memory.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.batch cimport tbf_span, tbf_status

cdef extern from "tbf_chunk.h" nogil:
    enum:
        TBF_CHUNK_BATCH
        TBF_CHUNK_POINTS_MAX
    ctypedef struct tbf_cell:
        uint8_t type
        uint8_t scale
        uint32_t n
        int64_t i64
        double f64
        uint64_t bits
        const uint8_t *p
    ctypedef enum tbf_column_kind:
        TBF_COLUMN_INT64
        TBF_COLUMN_DECIMAL
        TBF_COLUMN_NUMBER
        TBF_COLUMN_FORMS
        TBF_COLUMN_DOUBLE
        TBF_COLUMN_BOOL
        TBF_COLUMN_STRING
        TBF_COLUMN_JSON
        TBF_COLUMN_BYTES
        TBF_COLUMN_MIXED
    ctypedef struct tbf_column:
        uint32_t key
        uint32_t n
        const int64_t *ts
        const tbf_cell *cells
    ctypedef struct tbf_chunk_scratch:
        uint64_t seed[2]
    size_t tbf_chunk_bound(const tbf_column *columns, size_t count)
    tbf_status tbf_chunk_write(uint8_t *out, size_t cap, const tbf_column *columns, size_t count,
                               tbf_chunk_scratch *scratch, size_t *written)
    ctypedef struct tbf_chunk:
        tbf_span bytes
        size_t first
        uint32_t columns
        uint64_t points
        int64_t min_ts
        int64_t max_ts
    ctypedef struct tbf_chunk_column:
        uint32_t key
        uint32_t points
        int64_t min_ts
        int64_t max_ts
        tbf_column_kind kind
        bint has_dictionary
        tbf_span times
        tbf_span values
    tbf_status tbf_chunk_open(tbf_span bytes, tbf_chunk *out)
    tbf_status tbf_chunk_next(const tbf_chunk *chunk, size_t *at, tbf_chunk_column *out)
    ctypedef struct tbf_cursor:
        pass
    tbf_status tbf_cursor_open(tbf_cursor *c, const tbf_chunk_column *column, int64_t first,
                               int64_t last)
    tbf_status tbf_cursor_next(tbf_cursor *c, int64_t *ts, tbf_cell *cells, size_t *n)

cdef extern from "tbf_agg.h" nogil:
    ctypedef struct tbf_agg:
        uint64_t count
        uint64_t numbers
    void tbf_agg_init(tbf_agg *a)
    void tbf_agg_add(tbf_agg *a, const tbf_cell *cells, size_t n)
    bint tbf_agg_min(const tbf_agg *a, tbf_cell *out)
    bint tbf_agg_max(const tbf_agg *a, tbf_cell *out)
    void tbf_agg_widen(const tbf_agg *a, tbf_cell *cell)
    bint tbf_agg_sum(const tbf_agg *a, tbf_cell *out)
    double tbf_agg_total(const tbf_agg *a)

# Raises StoreError for anything but TBF_OK.
cdef int open_chunk(const uint8_t *p, size_t n, tbf_chunk *out) except -1

cdef class ChunkWriter:
    cdef tbf_chunk_scratch scratch
    cdef uint8_t *buf
    cdef size_t cap
    cdef size_t len
    cdef int write(self, const tbf_column *columns, size_t count) except -1
    cdef int append(self, const tbf_column *columns, size_t count) except -1 nogil
    cdef int _grow(self, size_t cap) except -1 nogil

cdef class Columns:
    cdef tbf_column *columns
    cdef size_t count
    cdef list kept
