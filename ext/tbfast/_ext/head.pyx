"""The head: rows of the current run in arrival order, linked per series (design section 3).

Each row knows when it was committed: of equal times the later commit wins, and between commits of
the same moment the later arrival, so that journals may arrive a little out of step.

One arena of 32-byte rows, one of value bytes, one entry per series that has rows.  A full head is
frozen, handed to the sealer, and a new one takes its place; a frozen head is never written again,
so that reads on the loop and the sealer's thread may share it.

The memory of a sealed head goes to the next one: fetching fresh pages for every head cost as much
as filling them, and giving them back between others left holes in the heap.  What the sealed head
had no use for goes back to the system first: one that a stall made large is not large for ever.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from tbfast._ext.batch cimport TBF_BYTES, TBF_DOUBLE, TBF_JSON, TBF_STRING

cdef enum:
    ROWS_FIRST = 4096      # room of a head that finds no spare memory
    BYTES_FIRST = 65536
    SERIES_FIRST = 256
    PLACES_FIRST = 1024
    FILLED_PART = 8        # one that filled less of its rows does not pass its memory on


cdef void free_memory(head_memory *m) noexcept:
    free(m.rows)
    free(m.bytes)
    free(m.series)
    free(m.place)
    memset(m, 0, sizeof(head_memory))


cdef void *fitted(void *p, size_t size, size_t *cap, size_t used, size_t least) noexcept:
    """An array of `cap` items without the room that `used` and a little more do not need."""
    cdef size_t wanted = max(used + used // 8, least)
    cdef void *less
    if cap[0] <= wanted + wanted // 8:  # not worth it, heads are never quite alike
        return p
    less = realloc(p, wanted * size)
    if less == NULL:
        return p
    cap[0] = wanted
    return less


cdef class HeadPool:
    """Memory of at most one sealed head, for the next: none above `max_bytes`."""

    def __cinit__(self, size_t max_bytes):
        self.max_bytes = max_bytes

    def bound(self, size_t max_bytes):
        """Another bound from now on; what is above it goes."""
        self.max_bytes = max_bytes
        if memory_bytes(&self.spare) > max_bytes:
            free_memory(&self.spare)

    def __dealloc__(self):
        free_memory(&self.spare)

    @property
    def nbytes(self):
        """Bytes held for the next head."""
        return memory_bytes(&self.spare)

    def release(self):
        """Gives what is held back to the system."""
        free_memory(&self.spare)

    cdef bint take(self, head_memory *m) noexcept:
        """Whether there was memory; its places are zero."""
        if self.spare.rows == NULL:
            return False
        m[0] = self.spare
        memset(&self.spare, 0, sizeof(head_memory))
        memset(m.place, 0, m.place_cap * sizeof(uint32_t))
        return True

    cdef bint give(self, head_memory *m) noexcept:
        """Whether it is kept; if not, it still is the caller's."""
        if self.spare.rows != NULL or memory_bytes(m) > self.max_bytes:
            return False
        self.spare = m[0]
        return True


cdef size_t memory_bytes(const head_memory *m) noexcept:
    return (m.row_cap * sizeof(head_row) + m.bytes_cap + m.series_cap * sizeof(head_series)
            + m.place_cap * sizeof(uint32_t))


cdef class Head:
    """Rows since the last freeze; takes no memory before the first one.

    pool: where its memory comes from and goes to when nobody reads it any more.
    """

    def __cinit__(self, HeadPool pool=None):
        self.pool = pool

    def __dealloc__(self):
        cdef head_memory m
        cdef bint passed_on = (
            self.pool is not None
            and self.rows != NULL
            and self.row_count >= self.row_cap // FILLED_PART
        )
        if passed_on:
            self._fit()
        m.rows = self.rows
        m.row_cap = self.row_cap
        m.bytes = self.bytes
        m.bytes_cap = self.bytes_cap
        m.series = self.series
        m.series_cap = self.series_cap
        m.place = self.place
        m.place_cap = self.place_cap
        if not passed_on or not self.pool.give(&m):
            free_memory(&m)

    cdef void _fit(self) noexcept:
        cdef size_t cap = self.row_cap
        self.rows = <head_row *>fitted(
            self.rows, sizeof(head_row), &cap, self.row_count, ROWS_FIRST
        )
        self.row_cap = <uint32_t>cap
        self.bytes = <uint8_t *>fitted(
            self.bytes, 1, &self.bytes_cap, self.bytes_len, BYTES_FIRST
        )
        cap = self.series_cap
        self.series = <head_series *>fitted(
            self.series, sizeof(head_series), &cap, self.series_count, SERIES_FIRST
        )
        self.series_cap = <uint32_t>cap

    cdef int _begin(self) except -1:
        cdef head_memory m
        memset(&m, 0, sizeof(m))
        if self.pool is None or not self.pool.take(&m):
            m.rows = <head_row *>malloc(ROWS_FIRST * sizeof(head_row))
            m.bytes = <uint8_t *>malloc(BYTES_FIRST)
            m.series = <head_series *>malloc(SERIES_FIRST * sizeof(head_series))
            m.place = <uint32_t *>calloc(PLACES_FIRST, sizeof(uint32_t))
            if not (m.rows and m.bytes and m.series and m.place):
                free_memory(&m)
                raise MemoryError("no memory for the head")
            m.row_cap = ROWS_FIRST
            m.bytes_cap = BYTES_FIRST
            m.series_cap = SERIES_FIRST
            m.place_cap = PLACES_FIRST
        self.rows = m.rows
        self.row_cap = m.row_cap
        self.bytes = m.bytes
        self.bytes_cap = m.bytes_cap
        self.series = m.series
        self.series_cap = m.series_cap
        self.place = m.place
        self.place_cap = m.place_cap
        return 0

    cdef int _more_places(self, uint32_t index) except -1:
        cdef uint32_t cap = self.place_cap
        cdef uint32_t *more
        while index >= cap:
            cap *= 2
        more = <uint32_t *>realloc(self.place, cap * sizeof(uint32_t))
        if more == NULL:
            raise MemoryError("no memory for the head")
        memset(more + self.place_cap, 0, (cap - self.place_cap) * sizeof(uint32_t))
        self.place = more
        self.place_cap = cap
        return 0

    cdef head_series *_series_of(self, uint32_t index, uint64_t device, uint32_t key) except NULL:
        cdef void *more
        cdef head_series *s
        if self.rows == NULL:
            self._begin()
        if index >= self.place_cap:
            self._more_places(index)
        if self.place[index]:
            return &self.series[self.place[index] - 1]
        if self.series_count == self.series_cap:
            more = realloc(self.series, 2 * self.series_cap * sizeof(head_series))
            if more == NULL:
                raise MemoryError("no memory for the head")
            self.series = <head_series *>more
            self.series_cap *= 2
        s = &self.series[self.series_count]
        self.series_count += 1
        self.place[index] = self.series_count
        s.device = device
        s.key = key
        s.last = s.count = 0
        return s

    cdef int append(self, uint32_t index, uint64_t device, uint32_t key, int64_t ts,
                    uint64_t order, const tbf_point *point) except -1:
        cdef head_series *s = self._series_of(index, device, key)
        cdef head_row *row
        cdef void *more
        cdef size_t cap
        if self.row_count == self.row_cap:
            more = realloc(self.rows, 2 * <size_t>self.row_cap * sizeof(head_row))
            if more == NULL:
                raise MemoryError("no memory for the head")
            self.rows = <head_row *>more
            self.row_cap *= 2
        row = &self.rows[self.row_count]
        row.ts = ts
        row.type = <uint8_t>point.type
        row.scale = point.scale
        row.order_high = <uint16_t>(order >> 32)
        row.order_low = <uint32_t>order
        row.n = 0
        if point.type == TBF_STRING or point.type == TBF_JSON or point.type == TBF_BYTES:
            cap = self.bytes_cap
            while cap - self.bytes_len < point.bytes.n:
                cap *= 2
            if cap != self.bytes_cap:
                more = realloc(self.bytes, cap)
                if more == NULL:
                    raise MemoryError("no memory for the head")
                self.bytes = <uint8_t *>more
                self.bytes_cap = cap
            if point.bytes.n:
                memcpy(self.bytes + self.bytes_len, point.bytes.p, point.bytes.n)
            row.value = <int64_t>self.bytes_len
            row.n = <uint32_t>point.bytes.n
            self.bytes_len += point.bytes.n
        elif point.type == TBF_DOUBLE:
            memcpy(&row.value, &point.f64, sizeof(double))
        else:
            row.value = point.i64
        row.previous = s.last
        self.row_count += 1
        s.last = self.row_count
        s.count += 1
        return 0

    cdef head_series *find(self, uint32_t index) noexcept nogil:
        if index >= self.place_cap or self.place[index] == 0:
            return NULL
        return &self.series[self.place[index] - 1]

    cdef void remove(self, uint32_t index, int64_t first, int64_t last) noexcept nogil:
        """Takes the rows of a series with first <= ts <= last out, only before the freeze."""
        cdef head_series *s = self.find(index)
        cdef uint32_t *link
        cdef head_row *row
        if s == NULL:
            return
        link = &s.last
        while link[0]:
            row = &self.rows[link[0] - 1]
            if first <= row.ts and row.ts <= last:
                link[0] = row.previous
                s.count -= 1
            else:
                link = &row.previous

    @property
    def points(self):
        """Rows taken in, with those that were removed again."""
        return self.row_count

    @property
    def series_held(self):
        """Series with rows."""
        return self.series_count

    @property
    def nbytes(self):
        """Memory in use, bytes."""
        return (self.row_count * sizeof(head_row) + self.bytes_len
                + self.series_count * sizeof(head_series))
