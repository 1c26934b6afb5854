"""MIN, MAX, AVG, SUM and COUNT by interval over what a range scan was given (REST spec 7).

Points stream through one bucket at a time.  Of points with the same key and time only the last
arrival counts.  Numbers win over strings; AVG and SUM need a number, MIN and MAX a number or a
string; booleans, JSON and bytes only count.
"""

from libc.stdint cimport SIZE_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from tbfast.errors import LocalError

from tbfast._ext.batch cimport TBF_DOUBLE, TBF_INT64, TBF_STRING
from tbfast._ext.chunk cimport (
    tbf_agg, tbf_agg_add, tbf_agg_init, tbf_agg_max, tbf_agg_min, tbf_agg_sum, tbf_agg_total,
    tbf_agg_widen, tbf_cell,
)
from tbfast._ext.scan cimport RangeScan, too_long
from tbfast._ext.series cimport Text

cdef enum function:
    MIN
    MAX
    AVG
    SUM
    COUNT

_FUNCTIONS = {"MIN": MIN, "MAX": MAX, "AVG": AVG, "SUM": SUM, "COUNT": COUNT}


cdef class Buckets:
    """Ascending points of one key in, one point for each bucket with a value out."""

    cdef int which
    cdef int64_t *edges    # first times of the buckets, and the end of the last
    cdef size_t count, bucket
    cdef tbf_agg agg
    cdef bint has_text
    cdef uint8_t *text     # the first or last string of the bucket
    cdef size_t text_n, text_cap
    cdef bint strings
    cdef Text out

    def __cinit__(self, int which, bounds, Text out, bint strings):
        cdef size_t i
        self.which = which
        self.out = out
        self.strings = strings
        self.count = <size_t>len(bounds) - 1
        self.edges = <int64_t *>malloc((self.count + 1) * sizeof(int64_t))
        if self.edges == NULL:
            raise MemoryError("no memory for an aggregation")
        for i in range(self.count + 1):
            self.edges[i] = bounds[i]
        self._clear()

    def __dealloc__(self):
        free(self.edges)
        free(self.text)

    cdef void _clear(self) noexcept nogil:
        tbf_agg_init(&self.agg)
        self.has_text = False

    cdef int add(self, const int64_t *ts, const tbf_cell *cells, size_t n) except -1 nogil:
        """Points at or after all that came before, and before the last edge."""
        cdef size_t low, high, middle
        while n:
            if ts[0] >= self.edges[self.bucket + 1]:
                self.finish()
                low = self.bucket + 1  # the bucket that the point is in
                high = self.count - 1
                while low < high:
                    middle = (low + high) // 2
                    if ts[0] >= self.edges[middle + 1]:
                        low = middle + 1
                    else:
                        high = middle
                self.bucket = low
            low = 1
            high = n
            if ts[n - 1] < self.edges[self.bucket + 1]:
                low = n
            while low < high:
                middle = (low + high) // 2
                if ts[middle] < self.edges[self.bucket + 1]:
                    low = middle + 1
                else:
                    high = middle
            tbf_agg_add(&self.agg, cells, low)
            if self.which == MIN or self.which == MAX:
                self._add_texts(cells, low)
            ts += low
            cells += low
            n -= low
        return 0

    cdef int _add_texts(self, const tbf_cell *cells, size_t n) except -1 nogil:
        cdef size_t i
        cdef uint8_t *more
        for i in range(n):
            if cells[i].type != TBF_STRING or not self._replaces(&cells[i]):
                continue
            if cells[i].n > self.text_cap:
                more = <uint8_t *>realloc(self.text, cells[i].n)
                if more == NULL:
                    with gil:
                        raise MemoryError("no memory for an aggregation")
                self.text = more
                self.text_cap = cells[i].n
            if cells[i].n:
                memcpy(self.text, cells[i].p, cells[i].n)
            self.text_n = cells[i].n
            self.has_text = True
        return 0

    cdef bint _replaces(self, const tbf_cell *cell) noexcept nogil:
        """Whether a string comes before the one held (MIN) or after it (MAX), byte by byte."""
        cdef int order
        if not self.has_text:
            return True
        order = 0
        if cell.n and self.text_n:  # an empty text may come without a pointer
            order = memcmp(cell.p, self.text, min(<size_t>cell.n, self.text_n))
        if order == 0:
            order = -1 if cell.n < self.text_n else (1 if cell.n > self.text_n else 0)
        return order < 0 if self.which == MIN else order > 0

    cdef int finish(self) except -1 nogil:
        """Ends the bucket: its point is written, if it has a value."""
        cdef tbf_cell cell
        cdef int64_t middle = self.edges[self.bucket]
        # Half the width as unsigned: a range may be wider than int64.
        middle += <int64_t>((<uint64_t>self.edges[self.bucket + 1] - <uint64_t>middle) // 2)
        if self._result(&cell):
            self.out.points(&middle, &cell, 1, self.strings)
        self._clear()
        return 0

    cdef bint _result(self, tbf_cell *cell) noexcept nogil:
        """Value of the bucket; False if it has none."""
        if self.agg.count == 0:
            return False
        if self.which == COUNT:
            cell.type = TBF_INT64
            cell.i64 = <int64_t>self.agg.count
        elif self.agg.numbers == 0:
            cell.type = TBF_STRING
            cell.p = self.text
            cell.n = <uint32_t>self.text_n
            return self.has_text
        elif self.which == AVG:
            cell.type = TBF_DOUBLE
            cell.f64 = tbf_agg_total(&self.agg) / <double>self.agg.numbers
        elif self.which == MIN:
            tbf_agg_min(&self.agg, cell)
            tbf_agg_widen(&self.agg, cell)
        elif self.which == MAX:
            tbf_agg_max(&self.agg, cell)
            tbf_agg_widen(&self.agg, cell)
        else:
            tbf_agg_sum(&self.agg, cell)
        return True


def aggregate_json(RangeScan scan not None, str aggregation not None, bounds not None,
                   bint strings=False, size_t max_bytes=SIZE_MAX):
    """{"key":[{"ts":..,"value":..},..],..}: one point for each bucket with a value, ascending.

    bounds: first times of the buckets and the end of the last, ascending; the scan is over that
    range and without a limit that matters.  A sum beyond the range of a double is null.
    strings: values as strings (REST spec 7).  PeerError: the text is longer than max_bytes.
    """
    cdef Text text = Text()
    cdef Buckets buckets
    cdef const int64_t *ts
    cdef const tbf_cell *cells
    cdef size_t n, start = 0, end, before, opened
    if aggregation not in _FUNCTIONS or len(bounds) < 2:
        raise LocalError(f"no aggregation {aggregation!r} over {len(bounds)} bounds")
    buckets = Buckets(_FUNCTIONS[aggregation], bounds, text, strings)
    scan.prepare()
    text.raw(b"{", 1)
    while start < scan.merge.count:
        end = scan.merge.column_end(start)
        before = text.len
        if before > 1:
            text.raw(b",", 1)
        scan.key(text, scan.merge.pieces[start].column)
        opened = text.len
        buckets.bucket = 0
        with nogil:
            scan.merge.begin(start, end)
            while scan.merge.next(&ts, &cells, &n):
                buckets.add(ts, cells, n)
            buckets.finish()
        if text.len == opened:
            text.len = before
        else:
            text.buf[text.len - 1] = c"]"
        if text.len > max_bytes:
            raise too_long(max_bytes)
        start = end
    text.raw(b"}", 1)
    return text.to_bytes()
