cimport cython
from libc.stdint cimport uint8_t


cdef enum tls_end:
    TLS_MORE = 0    # bytes of the peer are needed
    TLS_DONE = 1
    TLS_FAILED = 2


@cython.final
cdef class TlsStream:
    cdef object tls, incoming, outgoing
    cdef bint begun       # something was fed
    cdef readonly str error  # why it ended, in OpenSSL's words; None: it has not, or in good order

    cdef int feed(self, const uint8_t *p, size_t n) except -1
    cdef tls_end handshake(self) except *
    cdef Py_ssize_t take(self, uint8_t *into, size_t room) except -1
    cdef bytes seal(self, const uint8_t *p, size_t n)
    cdef bytes unsent(self)
    cdef bytes farewell(self)
