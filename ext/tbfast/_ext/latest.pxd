# Latest values and last activity, in memory: see latest.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.series cimport tbf_point

cdef struct series:
    uint64_t device
    int64_t ts
    int64_t value        # int64, mantissa, bits of a double, or pointer to bytes
    uint32_t key         # the tail's own key number
    uint32_t n           # length of bytes
    uint32_t next        # index + 1 of the device's next series, in order of their first points
    uint8_t type
    uint8_t scale
    uint8_t elsewhere    # the value is too large to be kept here
    uint8_t absent       # the latest value was deleted; there may be older points
    uint64_t order       # of its commit among those of all journals; 0 = from the series store
cdef struct device:
    uint64_t number
    int64_t activity_ms  # commit time of its last record
    uint32_t first, last  # index + 1 of its oldest and its newest series
    uint32_t likely      # index + 1 of the series that its next point is most likely for
    uint32_t count
    uint32_t changed     # number of the head that was filled when its last record came
    uint8_t gone         # not registered any more: its rows are dropped
    uint8_t stale        # the series store has changes to it that are not in its record

cdef inline uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t h = (a ^ 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL
    h = (h ^ (h >> 31) ^ b) * 0x94D049BB133111EBULL
    return h ^ (h >> 29)

cdef class LatestTable:
    cdef series *all
    cdef uint32_t count, cap
    cdef uint32_t *index
    cdef uint32_t index_mask
    cdef device *devices
    cdef uint32_t device_count, device_cap
    cdef uint32_t *device_index
    cdef uint32_t device_mask
    cdef uint64_t seed[2]
    cdef dict keys            # name -> own number (from 1)
    cdef list names
    cdef size_t string_bytes
    cdef void _drop_bytes(self, series *s) noexcept nogil
    cdef uint32_t _intern(self, bytes name) except 0
    cdef int _reserve(self, size_t points, size_t records) except -1
    cdef device *_find_device(self, uint64_t number) noexcept nogil
    cdef device *_device(self, uint64_t number) noexcept nogil
    cdef uint32_t _next(self, device *d, uint32_t key) except 0
    cdef uint32_t _begin(self, device *d, uint32_t key) except 0
    cdef uint32_t _place(self, uint64_t number, uint32_t key) noexcept nogil
    cdef series *_lookup(self, uint64_t number, uint32_t key) noexcept nogil
    cdef series *_find_series(self, device *d, uint32_t key) noexcept nogil
    cdef void _make_absent(self, series *s) noexcept nogil
    cdef int _take(self, series *s, int64_t ts, uint64_t order,
                   const tbf_point *point) except -1
