# Columns of one device on their way to chunks: see packer.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.chunk cimport ChunkWriter, tbf_cell, tbf_column

cdef enum:
    PAGE_BYTES = 16384        # of chunks; together with more, each is worth a key of its own

cdef struct timed:
    int64_t ts
    uint64_t order  # of its commit
    uint32_t arrival

cdef bytes chunk_key(uint64_t device, uint32_t key, uint32_t run)

cdef int by_time(const void *a, const void *b) noexcept nogil

cdef struct chunk_made:           # a chunk in the writer's buffer
    uint64_t device
    uint32_t key
    uint32_t points
    uint32_t which            # its device's class
    size_t at, n              # bytes
    int64_t min_ts, max_ts

cdef class Totals:
    cdef readonly uint64_t points, nbytes
    cdef readonly int64_t min_ts, max_ts
    cdef readonly list odd
    cdef int64_t usual_first, usual_last
    cdef int count(self, const chunk_made *chunk) except -1

cdef class Packer:
    cdef int64_t *ts
    cdef tbf_cell *cells
    cdef timed *order
    cdef size_t row_cap, order_cap
    cdef size_t rows          # taken by columns
    cdef tbf_column *columns
    cdef tbf_column *common
    cdef size_t column_cap, count
    cdef ChunkWriter writer
    cdef chunk_made *chunks
    cdef size_t chunk_cap, chunk_count
    cdef uint8_t page[PAGE_BYTES + 1024]  # with its directory
    # Pages, counted from 1, whose chunks are given singly; 0 = none.  See `room_for`.
    cdef uint64_t split       # the last of what is to be given now; more of it may come
    cdef uint64_t begun       # the first of it, where it was that when chunks were given before
    cdef int reserve(self, size_t rows, size_t columns) except -1 nogil
    cdef int reserve_order(self, size_t rows) except -1 nogil
    cdef void add(self, uint32_t key, size_t n) noexcept nogil
    cdef int pack(self, uint64_t device) except -1 nogil
    cdef int give(self, uint32_t run, list totals, list out, class_of) except -1
    cdef int give_pages(self, uint32_t run, list totals, list out, class_of) except -1
    cdef bint room_for(self, uint64_t device, size_t max_bytes) noexcept nogil
    cdef int _sort_out(self, list totals, class_of) except -1
    cdef bytes _bytes_of(self, const chunk_made *chunk)
    cdef bytes _page(self, size_t i, size_t end, uint32_t which)
    cdef int _write(self, uint64_t device, uint32_t key, tbf_column *columns,
                    size_t count) except -1 nogil
    cdef bint _earns_own(self, size_t c) noexcept nogil
