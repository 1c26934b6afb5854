# Points of several sorted sources in order of time: see merge.pyx.
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t

from tbfast._ext.chunk cimport TBF_CHUNK_BATCH, tbf_cell, tbf_chunk, tbf_chunk_column, tbf_cursor
from tbfast._ext.deleted cimport Ranges

cdef struct piece:
    uint32_t column
    uint32_t run           # of equal times the point of the greatest run stays
    int64_t min_ts
    int64_t max_ts
    bint overlaps          # with one before it in order of first times
    # a column of a chunk: where it begins in it
    Py_ssize_t chunk       # index into Merge.chunks, -1 = rows
    const uint8_t *bytes   # of the chunk while they are kept; NULL = to be read again
    size_t nbytes
    size_t first
    size_t at
    void *gone             # Ranges that are deleted, held by Merge.kept
    # rows
    const int64_t *ts
    const tbf_cell *cells
    size_t count

cdef struct source:        # a piece that is being read
    const piece *of
    int64_t ts[TBF_CHUNK_BATCH]
    tbf_cell cells[TBF_CHUNK_BATCH]
    size_t at, n           # the next point, and how many there are in the batch
    size_t rows_at
    tbf_cursor cursor
    Py_ssize_t held        # index into Merge.again of bytes read again, -1 = none

cdef class Merge:
    cdef int64_t first, last       # times wanted, both included
    cdef piece *pieces
    cdef size_t count, cap
    cdef list chunks               # bytes, or what reads them again
    cdef list kept
    cdef size_t chunk_bytes
    cdef list again
    cdef size_t again_bytes
    cdef bint hold                 # bytes read again stay until `release`
    cdef source **heap
    cdef size_t open, heap_cap
    cdef source *unused
    cdef size_t next_piece, end_piece
    cdef size_t taken              # points of heap[0] that the last `next` gave
    cdef bint begun
    cdef int64_t newest            # time of the last point given
    cdef int add_chunk(self, bytes chunk, again) except -1
    cdef int add_column(self, uint32_t column, uint32_t run, const tbf_chunk_column *found,
                        size_t first, size_t at, Ranges gone) except -1
    cdef int add_rows(self, uint32_t column, const int64_t *ts, const tbf_cell *cells,
                      size_t n) except -1
    cdef piece *_more(self) except NULL
    cdef void sort(self) noexcept nogil
    cdef size_t column_end(self, size_t start) noexcept nogil
    cdef size_t cluster_start(self, size_t end) noexcept nogil
    cdef void begin(self, size_t start, size_t end) noexcept nogil
    cdef int next(self, const int64_t **ts, const tbf_cell **cells, size_t *n) except -1 nogil
    cdef void release(self) noexcept
    cdef int _open(self) except -1 nogil
    cdef source *_unused(self) except NULL nogil
    cdef int _locate(self, source *s, tbf_chunk_column *column) except -1 nogil
    cdef int _read_again(self, source *s, tbf_chunk *chunk) except -1 with gil
    cdef int _refill(self, source *s) except -1 nogil
    cdef int _step(self, size_t n) except -1 nogil
    cdef void _sift_down(self) noexcept nogil
    cdef void _let_go(self, source *s) noexcept nogil
    cdef void _close(self, source *s) noexcept nogil

cdef class Ring:
    cdef int64_t *ts
    cdef tbf_cell *cells
    cdef size_t cap, limit
    cdef uint64_t total
    cdef void reset(self, size_t limit) noexcept nogil
    cdef int add(self, const int64_t *ts, const tbf_cell *cells, size_t n) except -1 nogil
    cdef size_t newest(self, size_t start, int64_t *ts, tbf_cell *cells,
                       size_t most) noexcept nogil
