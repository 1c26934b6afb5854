# What is deleted of one device's rows: see deleted.pyx.
from libc.stdint cimport int64_t

cdef class Ranges:
    cdef int64_t *first
    cdef int64_t *last
    cdef size_t count
    cdef bint has(self, int64_t ts) noexcept nogil
    cdef bint touch(self, int64_t first, int64_t last) noexcept nogil

cdef class Deleted:
    cdef list entries
    cdef dict merged  # (name, reach) -> Ranges, None when nothing of that key is deleted
    cdef Py_ssize_t reach(self, at) except -1
    cdef Ranges ranges(self, bytes name, Py_ssize_t reach)
