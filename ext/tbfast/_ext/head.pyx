"""The head: rows of the current run in arrival order, linked per series (design section 3).

Each row knows when it was committed: of equal times the later commit wins, and between commits of
the same moment the later arrival, so that journals may arrive a little out of step.

One arena of 32-byte rows, one of value bytes, one entry per series that has rows.  A full head is
frozen, handed to the sealer, and a new one takes its place; a frozen head is never written again,
so that reads on the loop and the sealer's thread may share it.
"""

from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

from tbfast._ext.batch cimport TBF_BYTES, TBF_DOUBLE, TBF_JSON, TBF_STRING

cdef enum:
    ROWS = 4096  # room of a new head
    BYTES = 65536

cdef bint keeping = False
cdef head_row *spare_rows = NULL  # of the last head that went, while `keeping`
cdef uint32_t spare_row_cap = 0
cdef uint8_t *spare_bytes = NULL
cdef size_t spare_bytes_cap = 0


def keep_memory(bint keep):
    """Whether the arenas of a head that goes are kept for the next.

    While full heads come one upon the other, getting the pages of each from the system takes
    longer than filling them.
    """
    global keeping, spare_rows, spare_bytes
    keeping = keep
    if not keep:
        free(spare_rows)
        free(spare_bytes)
        spare_rows = NULL
        spare_bytes = NULL


cdef class Head:
    """Rows since the last freeze."""

    def __cinit__(self):
        self._take_arenas()
        self.series_cap = 256
        self.place_cap = 1024
        self.series = <head_series *>malloc(self.series_cap * sizeof(head_series))
        self.place = <uint32_t *>calloc(self.place_cap, sizeof(uint32_t))
        if not (self.rows and self.bytes and self.series and self.place):
            raise MemoryError("no memory for the head")

    def __dealloc__(self):
        self._give_arenas()
        free(self.series)
        free(self.place)

    cdef void _take_arenas(self) noexcept:
        global spare_rows, spare_bytes
        self.row_cap = ROWS
        self.bytes_cap = BYTES
        if spare_rows != NULL:
            self.rows, self.row_cap = spare_rows, spare_row_cap
            self.bytes, self.bytes_cap = spare_bytes, spare_bytes_cap
            spare_rows = NULL
            spare_bytes = NULL
        else:
            self.rows = <head_row *>malloc(self.row_cap * sizeof(head_row))
            self.bytes = <uint8_t *>malloc(self.bytes_cap)

    cdef void _give_arenas(self) noexcept:
        global spare_rows, spare_row_cap, spare_bytes, spare_bytes_cap
        if keeping and spare_rows == NULL and self.rows != NULL and self.bytes != NULL:
            spare_rows, spare_row_cap = self.rows, self.row_cap
            spare_bytes, spare_bytes_cap = self.bytes, self.bytes_cap
        else:
            free(self.rows)
            free(self.bytes)

    def fit(self):
        """Gives room back that rows do not need now; only before the freeze."""
        cdef uint32_t row_cap = max(<uint32_t>ROWS, self.row_count)
        cdef size_t bytes_cap = max(<size_t>BYTES, self.bytes_len)
        cdef void *less
        if row_cap < self.row_cap:
            less = realloc(self.rows, row_cap * sizeof(head_row))
            if less != NULL:
                self.rows = <head_row *>less
                self.row_cap = row_cap
        if bytes_cap < self.bytes_cap:
            less = realloc(self.bytes, bytes_cap)
            if less != NULL:
                self.bytes = <uint8_t *>less
                self.bytes_cap = bytes_cap

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

    @property
    def room(self):
        """Memory of the arenas, bytes."""
        return self.row_cap * sizeof(head_row) + self.bytes_cap
