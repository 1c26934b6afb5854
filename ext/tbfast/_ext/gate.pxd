# An epoll in front of an epoll: see gate.pyx.
from libc.stdint cimport int64_t, uint32_t

cdef class Gate:
    cdef int fd, behind, alarm
    cdef readonly bint closed
    cdef int64_t ended_ns
    cdef int _watch(self, int op, int fd, uint32_t events) except -1
    cdef int rest(self, int64_t began) except -1
    cdef int open(self) except -1
