from libc.stdint cimport uint8_t, uint16_t

from tbfast._ext.batch cimport tbf_status

cdef extern from "tbf_proxy.h" nogil:
    ctypedef struct tbf_proxy:
        uint8_t address[16]
        uint16_t port
        bint has_source
        size_t total
    tbf_status tbf_proxy_read(const uint8_t *p, size_t n, tbf_proxy *out)
