# C declarations of ext/c/tbf_page.h.
from libc.stdint cimport uint8_t

from tbfast._ext.batch cimport tbf_span, tbf_status

cdef extern from "tbf_page.h" nogil:
    enum:
        TBF_PAGE_DEVICES
    ctypedef struct tbf_page_entry:
        uint8_t place
        tbf_span chunk
    ctypedef struct tbf_page:
        size_t count
        tbf_page_entry *entries
    size_t tbf_page_bound(const tbf_page *page)
    tbf_status tbf_page_write(uint8_t *out, size_t cap, const tbf_page *page, size_t *written)
    bint tbf_is_page(tbf_span value)
    tbf_status tbf_page_open(tbf_span value, tbf_page *out)
