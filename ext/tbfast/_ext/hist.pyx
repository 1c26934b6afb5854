"""Histogram of durations in nanoseconds, exact to 1/256."""

cimport cython
from libc.string cimport memset


@cython.final
cdef class Histogram:
    """Counts of values by size; a value above 137 s counts as that."""

    def record(self, uint64_t value):
        """Add one value."""
        tbf_hist_record(&self.h, value)

    def merge(self, Histogram other):
        """Add the values of another histogram."""
        tbf_hist_merge(&self.h, &other.h)

    def clear(self):
        """Forget every value."""
        memset(&self.h, 0, sizeof(self.h))

    def quantile(self, double q):
        """The smallest value that at least a share q (0..1) does not exceed; 0 when empty."""
        if not 0.0 <= q <= 1.0:
            raise ValueError("a quantile is between 0 and 1")
        return tbf_hist_quantile(&self.h, q)

    @property
    def count(self):
        return self.h.count

    @property
    def min(self):
        return self.h.min

    @property
    def max(self):
        return self.h.max

    @property
    def mean(self):
        return <double>self.h.sum / <double>self.h.count if self.h.count else 0.0
