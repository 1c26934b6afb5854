# Latest values that can be stored: see latest_store.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.latest cimport LatestTable, device, series
from tbfast._ext.series cimport Text

cdef class StoredLatest(LatestTable):
    cdef uint32_t heads  # frozen so far
    cdef int _pack_activity(self, Text text, uint64_t number, device *d) except -1
    cdef int64_t _pack_change(self, Text text, int64_t base, const series *s) except? -1
    cdef int _pack(self, Text text, const series *s) except -1
    cdef const uint8_t *_restore(self, device *d, const uint8_t *p, const uint8_t *end,
                                 int64_t *base) except NULL
    cdef int _forget(self, uint64_t number) except -1
