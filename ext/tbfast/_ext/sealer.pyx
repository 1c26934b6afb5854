"""From a frozen head to chunks, and from chunks to range reads (design section 3).

Per device: points of each series in time order, of equal times the one committed last (then the
one that arrived last), and then columns.  Small series, and larger ones that share their times with
another, go into the device's common chunk (key 0), where shared times are written once; the rest
earn a chunk of their own, so that reading one key does not fetch the others.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy

import struct

from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_BYTES,
    TBF_DOUBLE,
    TBF_JSON,
    TBF_MORE,
    TBF_OK,
    TBF_STRING,
    tbf_span,
    tbf_status,
    tbf_type,
)
from tbfast._ext.chunk cimport (
    TBF_CHUNK_POINTS_MAX,
    ChunkWriter,
    tbf_cell,
    tbf_chunk,
    tbf_chunk_column,
    tbf_chunk_next,
    tbf_chunk_open,
    tbf_column,
    tbf_cursor,
    tbf_cursor_next,
    tbf_cursor_open,
)
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.head cimport Head, head_row, head_series, order_of
from tbfast._ext.series cimport RangeScan, tbf_point

cdef enum:
    OWN_POINTS = 64         # a series with so many points may have a chunk of its own ...
    ALWAYS_OWN_POINTS = 2048  # ... and with so many it always has
    BATCH = 128             # TBF_CHUNK_BATCH

_CHUNK_KEY = struct.Struct(">QII")

cdef struct place:
    uint64_t device
    uint32_t key
    uint32_t at  # index into head.series

cdef struct timed:
    int64_t ts
    uint64_t order
    uint32_t arrival

cdef int by_place(const void *a, const void *b) noexcept nogil:
    cdef const place *x = <const place *>a
    cdef const place *y = <const place *>b
    if x.device != y.device:
        return -1 if x.device < y.device else 1
    return -1 if x.key < y.key else (1 if x.key > y.key else 0)

cdef int by_time(const void *a, const void *b) noexcept nogil:
    cdef const timed *x = <const timed *>a
    cdef const timed *y = <const timed *>b
    if x.ts != y.ts:
        return -1 if x.ts < y.ts else 1
    if x.order != y.order:
        return -1 if x.order < y.order else 1
    return -1 if x.arrival < y.arrival else (1 if x.arrival > y.arrival else 0)


cdef class Sealer:
    """Chunks of one frozen head, device by device, in key order.

    ``points`` counts what is stored: of several rows with the same series and time one remains.
    """

    cdef Head head
    cdef readonly uint32_t run
    cdef readonly uint64_t points, nbytes
    cdef readonly int64_t min_ts, max_ts
    cdef place *places
    cdef uint32_t count, next_place
    cdef int64_t *ts
    cdef tbf_cell *cells
    cdef size_t row_cap
    cdef timed *order
    cdef size_t order_cap
    cdef tbf_column *columns
    cdef tbf_column *common
    cdef size_t column_cap
    cdef ChunkWriter writer

    def __cinit__(self, Head head not None, uint32_t run):
        cdef uint32_t i
        self.head = head
        self.run = run
        self.min_ts = INT64_MAX
        self.max_ts = INT64_MIN
        self.count = head.series_count
        self.places = <place *>malloc((self.count + 1) * sizeof(place))
        self.writer = ChunkWriter()
        if self.places == NULL:
            raise MemoryError("no memory for sealing")
        for i in range(self.count):
            self.places[i].device = head.series[i].device
            self.places[i].key = head.series[i].key
            self.places[i].at = i
        with nogil:
            qsort(self.places, self.count, sizeof(place), by_place)

    def __dealloc__(self):
        free(self.places)
        free(self.ts)
        free(self.cells)
        free(self.order)
        free(self.columns)
        free(self.common)

    def next(self, size_t max_bytes):
        """[(key, chunk), ...] of the next devices, about max_bytes; empty at the end."""
        cdef uint32_t end
        cdef size_t rows, total = 0
        out = []
        while self.next_place < self.count and total < max_bytes:
            end = self.next_place
            rows = 0
            while end < self.count and (
                self.places[end].device == self.places[self.next_place].device
            ):
                rows += self.head.series[self.places[end].at].count
                end += 1
            self._reserve(rows, end - self.next_place)
            total += self._device(self.next_place, end, out)
            self.next_place = end
        return out

    cdef int _reserve(self, size_t rows, size_t columns) except -1:
        if rows > self.row_cap:
            free(self.ts)
            free(self.cells)
            self.row_cap = 0
            self.ts = <int64_t *>malloc(rows * sizeof(int64_t))
            self.cells = <tbf_cell *>malloc(rows * sizeof(tbf_cell))
            if self.ts == NULL or self.cells == NULL:
                raise MemoryError("no memory for sealing")
            self.row_cap = rows
        if rows > self.order_cap:
            free(self.order)
            self.order_cap = 0
            self.order = <timed *>malloc(rows * sizeof(timed))
            if self.order == NULL:
                raise MemoryError("no memory for sealing")
            self.order_cap = rows
        # A series above the codec's bound becomes several columns.
        columns += rows // TBF_CHUNK_POINTS_MAX
        if columns > self.column_cap:
            free(self.columns)
            free(self.common)
            self.column_cap = 0
            self.columns = <tbf_column *>malloc(columns * sizeof(tbf_column))
            self.common = <tbf_column *>malloc(columns * sizeof(tbf_column))
            if self.columns == NULL or self.common == NULL:
                raise MemoryError("no memory for sealing")
            self.column_cap = columns
        return 0

    cdef size_t _device(self, uint32_t start, uint32_t end, list out) except? 0:
        """Chunks of one device; returns their bytes."""
        cdef size_t total = 0, at = 0, n, part, count = 0, common = 0, c
        cdef uint32_t i
        with nogil:
            for i in range(start, end):
                n = self._gather(&self.head.series[self.places[i].at], at)
                while n:
                    part = n if n < TBF_CHUNK_POINTS_MAX else TBF_CHUNK_POINTS_MAX
                    self.columns[count].key = self.places[i].key
                    self.columns[count].n = <uint32_t>part
                    self.columns[count].ts = self.ts + at
                    self.columns[count].cells = self.cells + at
                    self.points += part
                    if self.ts[at] < self.min_ts:
                        self.min_ts = self.ts[at]
                    if self.ts[at + part - 1] > self.max_ts:
                        self.max_ts = self.ts[at + part - 1]
                    count += 1
                    at += part
                    n -= part
        device = self.places[start].device
        c = 0
        while c < count:
            part = 1  # parts of one series stay together
            while c + part < count and self.columns[c + part].key == self.columns[c].key:
                part += 1
            if part > 1 or self._earns_own(c, count):
                total += self._write(device, self.columns[c].key, &self.columns[c], part, out)
            else:
                self.common[common] = self.columns[c]
                common += 1
            c += part
        if common:
            total += self._write(device, 0, self.common, common, out)
        return total

    cdef bint _earns_own(self, size_t c, size_t count) noexcept nogil:
        cdef size_t other
        cdef tbf_column *mine = &self.columns[c]
        if mine.n < OWN_POINTS:
            return False
        if mine.n >= ALWAYS_OWN_POINTS:
            return True
        for other in range(count):
            if other != c and self.columns[other].n == mine.n and memcmp(
                self.columns[other].ts, mine.ts, mine.n * sizeof(int64_t)
            ) == 0:
                return False
        return True

    cdef size_t _gather(self, head_series *s, size_t at) noexcept nogil:
        """Points of a series at ts[at:], cells[at:]; returns how many."""
        cdef uint32_t row = s.last
        cdef size_t i = s.count, n, kept = 0
        cdef bint ascending = True
        cdef head_row *r
        cdef int64_t later = INT64_MAX
        while row:  # newest arrival first
            r = &self.head.rows[row - 1]
            i -= 1
            self.order[i].ts = r.ts
            self.order[i].order = order_of(r)
            self.order[i].arrival = row
            ascending = ascending and (r.ts < later or i == s.count - 1)
            later = r.ts
            row = r.previous
        n = s.count
        if not ascending:
            qsort(self.order, n, sizeof(timed), by_time)
        for i in range(n):
            if i + 1 < n and self.order[i + 1].ts == self.order[i].ts:
                continue  # a later one has the same time
            r = &self.head.rows[self.order[i].arrival - 1]
            self.ts[at + kept] = r.ts
            self._cell(&self.cells[at + kept], r)
            kept += 1
        return kept

    cdef void _cell(self, tbf_cell *cell, head_row *r) noexcept nogil:
        cell.type = r.type
        cell.scale = r.scale
        cell.n = r.n
        if r.type == TBF_STRING or r.type == TBF_JSON or r.type == TBF_BYTES:
            cell.p = self.head.bytes + <size_t>r.value
        else:
            memcpy(&cell.i64, &r.value, sizeof(int64_t))

    cdef size_t _write(self, uint64_t device, uint32_t key, tbf_column *columns, size_t count,
                       list out) except 0:
        cdef ChunkWriter writer = self.writer
        writer.write(columns, count)
        self.nbytes += writer.len
        out.append((_CHUNK_KEY.pack(device, key, self.run),
                    PyBytes_FromStringAndSize(<char *>writer.buf, <Py_ssize_t>writer.len)))
        return writer.len


def feed_chunk(RangeScan scan not None, const uint8_t[::1] chunk not None, names, uint32_t run,
               Deleted deleted=None):
    """Gives the points of a chunk to a range scan, without those that are deleted.

    names: {key number: name}.  Points of a later run win over those of an earlier one at the same
    time, and rows of a head over both.
    """
    cdef tbf_span span
    cdef tbf_chunk opened
    cdef tbf_chunk_column column
    cdef tbf_status status
    cdef size_t at
    cdef int64_t wanted, last = INT64_MAX
    cdef Py_ssize_t reach = deleted.reach(run) if deleted is not None else 0
    cdef Ranges gone
    span.p = &chunk[0] if chunk.shape[0] else NULL
    span.n = <size_t>chunk.shape[0]
    if tbf_chunk_open(span, &opened) != TBF_OK:
        raise StoreError("a chunk of the series store is damaged")
    if scan.bounded_end:
        if scan.end_ms == INT64_MIN:
            return
        last = scan.end_ms - 1
    at = opened.first
    while (status := tbf_chunk_next(&opened, &at, &column)) == TBF_OK:
        name = names.get(column.key)
        wanted = scan.column_of(name) if name is not None else -1
        if wanted >= 0 and column.max_ts >= scan.start_ms and column.min_ts <= last:
            gone = deleted.ranges(name, reach) if reach else None
            feed_column(scan, &column, <uint32_t>wanted, last, run, gone)
    if status != TBF_MORE:
        raise StoreError("a chunk of the series store is damaged")


cdef int feed_column(RangeScan scan, const tbf_chunk_column *column, uint32_t wanted, int64_t last,
                     uint32_t run, Ranges gone) except -1:
    cdef tbf_cursor cursor
    cdef int64_t ts[BATCH]
    cdef tbf_cell cells[BATCH]
    cdef size_t n = 0, i
    cdef tbf_point point
    cdef tbf_status status
    if tbf_cursor_open(&cursor, column, scan.start_ms, last) != TBF_OK:
        raise StoreError("a chunk of the series store is damaged")
    while True:
        with nogil:
            status = tbf_cursor_next(&cursor, ts, cells, &n)
        if status != TBF_OK:
            break
        for i in range(n):
            if gone is not None and gone.has(ts[i]):
                continue
            point.type = <tbf_type>cells[i].type
            point.scale = cells[i].scale
            if point.type == TBF_STRING or point.type == TBF_JSON or point.type == TBF_BYTES:
                point.bytes.p = cells[i].p
                point.bytes.n = cells[i].n
            elif point.type == TBF_DOUBLE:
                point.f64 = cells[i].f64
            else:
                point.i64 = cells[i].i64
            scan.add(wanted, ts[i], INT64_MIN + run, run, &point)
        if scan.count >= scan.compact_at:
            scan._compact()
    if status != TBF_MORE:
        raise StoreError("a chunk of the series store is damaged")
    return 0
