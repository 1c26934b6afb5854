"""Deleted ranges of one device, as reads and replay ask for them: per key and per position.

A delete covers the rows that had arrived by then.  How far that reaches is a number that grows with
arrival: a run for chunks, epoch and sequence for a journal.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc


cdef class Ranges:
    """Closed ranges of times, in order and without overlaps."""

    def __cinit__(self, ranges):
        cdef size_t n = <size_t>len(ranges)
        cdef size_t i = 0
        self.first = <int64_t *>malloc((n + 1) * sizeof(int64_t))
        self.last = <int64_t *>malloc((n + 1) * sizeof(int64_t))
        if self.first == NULL or self.last == NULL:
            raise MemoryError("no memory for deleted ranges")
        for first, last in sorted(ranges):
            if i and first <= <object>self.last[i - 1] + 1:
                self.last[i - 1] = max(self.last[i - 1], last)
                continue
            self.first[i] = first
            self.last[i] = last
            i += 1
        self.count = i

    def __dealloc__(self):
        free(self.first)
        free(self.last)

    cdef bint has(self, int64_t ts) noexcept nogil:
        return self.touch(ts, ts)

    cdef bint touch(self, int64_t first, int64_t last) noexcept nogil:
        """Whether a time of a closed range is in one of them."""
        cdef size_t low = 0, high = self.count, middle
        while low < high:
            middle = low + (high - low) // 2
            if self.last[middle] < first:
                low = middle + 1
            else:
                high = middle
        return low < self.count and self.first[low] <= last


cdef class Deleted:
    """entries: [(upto, key name or None for all keys, first ms, last ms), ...].

    A row is deleted by an entry of its key whose range holds its time, unless the row's position
    is after `upto`.
    """

    def __cinit__(self, entries):
        self.entries = sorted(entries, key=_upto, reverse=True)
        self.merged = {}

    cdef Py_ssize_t reach(self, at) except -1:
        """How many entries, of those that reach furthest, cover rows at a position."""
        cdef Py_ssize_t n = 0
        for entry in self.entries:
            if entry[0] < at:
                break
            n += 1
        return n

    cdef Ranges ranges(self, bytes name, Py_ssize_t reach):
        """Ranges that the first `reach` entries delete of a key; None when there are none."""
        known = self.merged.get((name, reach), self)
        if known is self:
            found = [e[2:] for e in self.entries[:reach] if e[1] is None or e[1] == name]
            known = self.merged[(name, reach)] = Ranges(found) if found else None
        return known

    def ranges_of(self, bytes name, at):
        """[(first ms, last ms), ...] deleted of a key's rows at a position: in order, merged."""
        cdef Ranges ranges = self.ranges(name, self.reach(at))
        if ranges is None:
            return []
        return [(ranges.first[i], ranges.last[i]) for i in range(ranges.count)]

    def covers(self, bytes name, int64_t ts, at):
        """Whether a row is deleted."""
        cdef Ranges ranges = self.ranges(name, self.reach(at))
        return ranges is not None and ranges.has(ts)


def _upto(entry):
    return entry[0]
