# Histogram of durations (ext/c/tbf_hist.h).
cimport cython
from libc.stdint cimport uint64_t

cdef extern from "tbf_hist.h" nogil:
    ctypedef struct tbf_hist:
        uint64_t count
        uint64_t sum
        uint64_t min
        uint64_t max
    void tbf_hist_record(tbf_hist *h, uint64_t v)
    void tbf_hist_merge(tbf_hist *into, const tbf_hist *from_)
    uint64_t tbf_hist_quantile(const tbf_hist *h, double q)


@cython.final
cdef class Histogram:
    cdef tbf_hist h
