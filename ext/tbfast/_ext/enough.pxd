# When a limited read of one series has all it needs: see enough.pyx.
from libc.stdint cimport int64_t, uint64_t

cdef struct part:      # points of one chunk, all of them wanted; times as `Enough` counts them
    int64_t first
    int64_t last
    uint64_t points

cdef class Enough:
    cdef uint64_t limit
    cdef bint ascending
    cdef part *parts
    cdef size_t count, cap
    cdef uint64_t points           # of all parts, perhaps the same ones
    cdef size_t looked             # how many parts there were at the last look
    cdef bint found
    cdef int64_t nearest           # `limit` points are certain to be up to here
    cdef int64_t *rows
    cdef size_t row_count, row_cap
    cdef int64_t _along(self, int64_t ts) noexcept nogil
    cdef int add(self, int64_t min_ts, int64_t max_ts, uint64_t points) except -1
    cdef void clear_rows(self) noexcept nogil
    cdef int add_row(self, int64_t ts) except -1
    cdef bint before(self, int64_t bound) except -1
    cdef size_t _rows_before(self, int64_t time) noexcept nogil
    cdef int _look(self) except -1
