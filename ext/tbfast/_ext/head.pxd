# Rows that no recorded run holds yet: see head.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tbfast._ext.series cimport tbf_point

cdef struct head_row:
    int64_t ts
    int64_t value     # int64, mantissa, bits of a double, or offset into the byte arena
    uint32_t previous  # index + 1 of the series' row before it; 0 = first
    uint32_t n        # length of bytes
    uint8_t type
    uint8_t scale
    uint16_t order_high  # place of its commit among those of all journals, 48 bits: `order_of`
    uint32_t order_low

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef inline uint64_t order_of(const head_row *row) noexcept nogil:
    return <uint64_t>row.order_high << 32 | row.order_low

cdef struct head_series:
    uint64_t device
    uint32_t key
    uint32_t last     # index + 1 of its newest row
    uint32_t count

cdef struct head_memory:
    head_row *rows
    uint8_t *bytes
    head_series *series
    uint32_t *place       # tail's series index -> index + 1 into series
    size_t bytes_cap
    uint32_t row_cap, series_cap, place_cap

cdef class HeadPool:
    cdef head_memory spare
    cdef readonly size_t max_bytes
    cdef bint take(self, head_memory *m) noexcept
    cdef bint give(self, head_memory *m) noexcept

cdef class Head:
    cdef HeadPool pool
    cdef head_row *rows
    cdef uint32_t row_count, row_cap
    cdef uint8_t *bytes
    cdef size_t bytes_len, bytes_cap
    cdef head_series *series
    cdef uint32_t series_count, series_cap
    cdef uint32_t *place
    cdef uint32_t place_cap
    cdef int _begin(self) except -1
    cdef void _fit(self) noexcept
    cdef int append(self, uint32_t index, uint64_t device, uint32_t key, int64_t ts,
                    uint64_t order, const tbf_point *point) except -1
    cdef int _more_places(self, uint32_t index) except -1
    cdef head_series *_series_of(self, uint32_t index, uint64_t device, uint32_t key) except NULL
    cdef head_series *find(self, uint32_t index) noexcept nogil
    cdef void remove(self, uint32_t index, int64_t first, int64_t last) noexcept nogil

cdef inline void warm_place(Head head, uint32_t index) noexcept nogil:
    """Fetches what `warm_series`, some time later, needs to fetch the series itself."""
    if index < head.place_cap:
        prefetch(&head.place[index])

cdef inline void warm_series(Head head, uint32_t index) noexcept nogil:
    if index < head.place_cap and head.place[index]:
        prefetch(&head.series[head.place[index] - 1])
