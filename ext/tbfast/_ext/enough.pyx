"""When a limited read of one series has all it needs, without decoding what it was given.

Chunks overlap, and of equal times one point stays: only points of chunks that lie apart are
certain to be different ones.  Of all ways to choose such chunks the one with most points counts.

Times are counted along the read: as they are when it is ascending, else reversed (bits inverted,
which no time overflows), so that it always goes from small to great.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc


cdef int by_last(const void *a, const void *b) noexcept nogil:
    cdef int64_t x = (<const part *>a).last
    cdef int64_t y = (<const part *>b).last
    return -1 if x < y else (1 if x > y else 0)


cdef class Enough:
    """`add` for each chunk, `add_row` in order of the read, then `before` as often as needed."""

    def __cinit__(self, uint64_t limit, bint ascending):
        self.limit = limit
        self.ascending = ascending

    def __dealloc__(self):
        free(self.parts)
        free(self.rows)

    cdef int64_t _along(self, int64_t ts) noexcept nogil:
        return ts if self.ascending else ~ts

    cdef int add(self, int64_t min_ts, int64_t max_ts, uint64_t points) except -1:
        """A chunk with so many points at different times, none of them deleted or out of range."""
        cdef part *more
        if self.count == self.cap:
            more = <part *>realloc(self.parts, (2 * self.cap + 16) * sizeof(part))
            if more == NULL:
                raise MemoryError("no memory for a read")
            self.parts = more
            self.cap = 2 * self.cap + 16
        self.parts[self.count].first = self._along(min_ts if self.ascending else max_ts)
        self.parts[self.count].last = self._along(max_ts if self.ascending else min_ts)
        self.parts[self.count].points = points
        self.count += 1
        self.points += points
        return 0

    cdef void clear_rows(self) noexcept nogil:
        """Rows are given anew."""
        self.row_count = self.looked = 0
        self.found = False

    cdef int add_row(self, int64_t ts) except -1:
        """A row that is in no chunk yet; of equal times one is to be given."""
        cdef int64_t *more
        if self.row_count == self.row_cap:
            more = <int64_t *>realloc(self.rows, (2 * self.row_cap + 16) * sizeof(int64_t))
            if more == NULL:
                raise MemoryError("no memory for a read")
            self.rows = more
            self.row_cap = 2 * self.row_cap + 16
        self.rows[self.row_count] = self._along(ts)
        self.row_count += 1
        return 0

    cdef bint before(self, int64_t bound) except -1:
        """Whether `limit` points are certain to come before a time: neither points at that time nor
        later ones along the read can be among them or replace one of them."""
        bound = self._along(bound)
        if self.limit == 0:
            return True
        if self.row_count >= self.limit and self.rows[self.limit - 1] < bound:
            return True
        if self.points + self.row_count < self.limit:
            return False
        # A look takes n log n; many parts are looked at once there is an eighth more of them.
        if self.count > self.looked + self.looked // 8:
            self._look()
        return self.found and self.nearest < bound

    cdef size_t _rows_before(self, int64_t time) noexcept nogil:
        cdef size_t low = 0, high = self.row_count, middle
        while low < high:
            middle = low + (high - low) // 2
            if self.rows[middle] < time:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int _look(self) except -1:
        """Weighted interval scheduling: most[i] points are certain in the first i parts."""
        cdef uint64_t *most = <uint64_t *>malloc((self.count + 1) * sizeof(uint64_t))
        cdef size_t i, low, high, middle
        if most == NULL:
            raise MemoryError("no memory for a read")
        with nogil:
            self.looked = self.count
            self.found = False
            qsort(self.parts, self.count, sizeof(part), by_last)
            most[0] = 0
            for i in range(self.count):
                low = 0
                high = i
                while low < high:  # how many parts end before this one begins
                    middle = low + (high - low) // 2
                    if self.parts[middle].last < self.parts[i].first:
                        low = middle + 1
                    else:
                        high = middle
                most[i + 1] = max(most[i], self.parts[i].points + max(
                    most[low], <uint64_t>self._rows_before(self.parts[i].first)))
                if most[i + 1] >= self.limit:
                    self.nearest = self.parts[i].last
                    self.found = True
                    break
        free(most)
        return 0
