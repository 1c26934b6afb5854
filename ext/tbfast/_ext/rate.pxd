# Rate limits in force, and the buckets that all processes of the node share.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "tbf_rate.h" nogil:
    const uint32_t TBF_RATE_PAIRS
    const uint32_t TBF_RATE_CELLS
    const uint32_t TBF_RATE_PAGE_BYTES
    const int64_t TBF_RATE_NEVER
    ctypedef enum tbf_rate_scope:
        TBF_RATE_TENANT
        TBF_RATE_DEVICE
        TBF_RATE_GATEWAY
        TBF_RATE_GATEWAY_DEVICE
    ctypedef enum tbf_rate_kind:
        TBF_RATE_MESSAGES
        TBF_RATE_TELEMETRY
        TBF_RATE_POINTS
    ctypedef struct tbf_rate_pair:
        uint32_t capacity
        uint32_t seconds
    ctypedef struct tbf_rate_limits:
        tbf_rate_pair pairs[4][3][4]
    ctypedef struct tbf_rate_page:
        uint64_t generation
        tbf_rate_limits limits
    ctypedef struct tbf_rate_view:
        uint64_t generation
        bint on
        tbf_rate_limits limits
    ctypedef struct tbf_rate_refusal:
        uint8_t scope
        uint8_t kind
        uint32_t tokens
        int64_t wait_ns
    void tbf_rate_write(tbf_rate_page *page, const tbf_rate_limits *limits)
    unsigned tbf_rate_next_half(const tbf_rate_page *page)
    bint tbf_rate_read(const tbf_rate_page *page, uint64_t *cells, tbf_rate_view *view)
    bint tbf_rate_is_stale(const tbf_rate_page *page, const tbf_rate_view *view)
    bint tbf_rate_take(uint64_t *cell, tbf_rate_pair pair, uint32_t tokens, int64_t now_ns,
                       int64_t *wait_ns)
    bint tbf_rate_message(const tbf_rate_view *view, tbf_rate_scope scope, uint64_t device,
                          uint32_t points, int64_t now_ns, tbf_rate_refusal *refusal)

cdef class Rates:
    cdef object _memory
    cdef Py_buffer _buffer
    cdef tbf_rate_page *page
    cdef uint64_t *cells
    cdef tbf_rate_view view
    cdef tbf_rate_refusal refusal  # the last one
    cdef object refused(self)

    # Brings the view up to date; NULL while there is no limit.
    cdef inline const tbf_rate_view *in_force(self) noexcept nogil:
        if tbf_rate_is_stale(self.page, &self.view):
            tbf_rate_read(self.page, self.cells, &self.view)
        return &self.view if self.view.on else NULL
