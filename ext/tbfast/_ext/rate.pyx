"""Rate limits and their buckets in memory that a node's processes share (MQTT spec 8.1)."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcmp, memset

import mmap

from tbfast.model.rates import RateLimits, over_limit

RATE_SCOPE_TENANT = TBF_RATE_TENANT
RATE_SCOPE_DEVICE = TBF_RATE_DEVICE
RATE_SCOPE_GATEWAY = TBF_RATE_GATEWAY
RATE_SCOPE_GATEWAY_DEVICE = TBF_RATE_GATEWAY_DEVICE

cdef size_t HALF_BYTES = TBF_RATE_CELLS * sizeof(uint64_t)


@cython.final
cdef class Rates:
    """Made once, before the node's processes are forked; without limits it takes no memory."""

    def __cinit__(self):
        self._memory = mmap.mmap(-1, TBF_RATE_PAGE_BYTES + 2 * HALF_BYTES)
        PyObject_GetBuffer(self._memory, &self._buffer, PyBUF_WRITABLE)
        self.page = <tbf_rate_page *>self._buffer.buf
        self.cells = <uint64_t *>(<char *>self._buffer.buf + TBF_RATE_PAGE_BYTES)
        tbf_rate_read(self.page, self.cells, &self.view)

    def __dealloc__(self):
        if self._buffer.buf != NULL:
            PyBuffer_Release(&self._buffer)

    def put(self, limits not None):
        """Puts a RateLimits in force for the next message in every process, with full buckets.

        Nothing happens if it is in force already.  Only one process may call this.
        """
        cdef tbf_rate_limits wanted
        cdef unsigned scope, kind, i
        memset(&wanted, 0, sizeof(wanted))
        for scope in range(4):
            for kind in range(3):
                for i, (capacity, seconds) in enumerate(limits.buckets(scope, kind)):
                    if i == TBF_RATE_PAIRS:
                        raise ValueError("too many buckets")
                    wanted.pairs[scope][kind][i].capacity = capacity
                    wanted.pairs[scope][kind][i].seconds = seconds
        self.in_force()
        if self.page.generation % 2 == 0 and not memcmp(&wanted, &self.view.limits,
                                                        sizeof(wanted)):
            return
        self._memory.madvise(mmap.MADV_REMOVE,
                             TBF_RATE_PAGE_BYTES + tbf_rate_next_half(self.page) * HALF_BYTES,
                             HALF_BYTES)
        tbf_rate_write(self.page, &wanted)

    @property
    def limits(self):
        """The RateLimits in force."""
        cdef unsigned scope, kind, i
        cdef tbf_rate_pair *pairs
        self.in_force()
        found = []
        for scope in range(4):
            for kind in range(3):
                pairs = self.view.limits.pairs[scope][kind]
                found.append(tuple((pairs[i].capacity, pairs[i].seconds)
                                   for i in range(TBF_RATE_PAIRS) if pairs[i].capacity))
        return RateLimits(tuple(found))

    def message(self, uint8_t scope, uint64_t device, uint32_t points, int64_t now_ns):
        """Accounts one message with so many points; RateLimited when it is over a limit."""
        cdef const tbf_rate_view *view = self.in_force()
        if scope > TBF_RATE_GATEWAY_DEVICE:
            raise ValueError("no such scope")
        if view != NULL and not tbf_rate_message(view, <tbf_rate_scope>scope, device, points,
                                                 now_ns, &self.refusal):
            raise self.refused()

    cdef object refused(self):
        """The RateLimited of the last refusal."""
        cdef tbf_rate_refusal *r = &self.refusal
        cdef tbf_rate_pair *pairs = self.view.limits.pairs[r.scope][r.kind]
        cdef unsigned i
        buckets = tuple((pairs[i].capacity, pairs[i].seconds)
                        for i in range(TBF_RATE_PAIRS) if pairs[i].capacity)
        wait_ns = None if r.wait_ns == TBF_RATE_NEVER else r.wait_ns
        return over_limit(r.scope, r.kind, buckets, r.tokens, wait_ns)


def take(cells not None, Py_ssize_t index, uint32_t capacity, uint32_t seconds, uint32_t tokens,
         int64_t now_ns):
    """Tokens from one bucket of a writable buffer of cells: 0, or how many ns to wait; None: never.

    For tests of the bucket itself.
    """
    cdef Py_buffer view
    cdef tbf_rate_pair pair
    cdef int64_t wait_ns = 0
    if not capacity or not seconds:
        raise ValueError("a bucket holds tokens and is filled in time")
    pair.capacity = capacity
    pair.seconds = seconds
    PyObject_GetBuffer(cells, &view, PyBUF_WRITABLE)
    try:
        if not 0 <= index < view.len // <Py_ssize_t>sizeof(uint64_t):
            raise IndexError(index)
        if tbf_rate_take(<uint64_t *>view.buf + index, pair, tokens, now_ns, &wait_ns):
            return 0
    finally:
        PyBuffer_Release(&view)
    return None if wait_ns == TBF_RATE_NEVER else wait_ns
